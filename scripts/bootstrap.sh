#!/usr/bin/env bash
# Virtual environment, pinned packages and the notebook kernel. Called by `make install`.
set -euo pipefail
python=$1 venv=$2

"$python" - <<'PY' || exit 2
import sys
if sys.version_info < (3, 11): sys.exit(f"install: Python 3.11 or newer is needed, this is {sys.version.split()[0]}; set PYTHON=")
PY

if [ ! -x "$venv/bin/python" ] || ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
  if ! "$python" -m venv "$venv" 2>/dev/null; then
    rm -rf "$venv"
    # Debian splits venv from python3; with the right to install it, do so, else say what is missing
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
      apt-get update -qq && apt-get install -y -qq python3-venv python3-dev gcc g++ >/dev/null
      "$python" -m venv "$venv"
    else
      echo "install: '$python -m venv' does not work; install it first (Debian: apt-get install python3-venv)" >&2
      exit 2
    fi
  fi
fi

# PIP_CONSTRAINT reaches build environments too (sam2 is built from source and would fetch another torch)
export PIP_CONSTRAINT="$PWD/constraints.txt"
"$venv/bin/python" -m pip install --quiet --upgrade pip
"$venv/bin/python" -m pip install --quiet --progress-bar off -e ".[dev]"
"$venv/bin/python" -m pip check

# A kernel that carries the same thread settings, whoever starts it
"$venv/bin/python" -m ipykernel install --sys-prefix --name python3 --display-name "Python 3 (stvg)" \
  --env OMP_NUM_THREADS "${OMP_NUM_THREADS:-1}" >/dev/null
echo "install: ready in $venv"
