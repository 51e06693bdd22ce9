#!/usr/bin/env bash
# Virtual environment, pinned packages and the notebook kernel: `bash scripts/bootstrap.sh PYTHON FOLDER`.
# A folder that was there before is never removed, unless it holds the marker of an environment made here.
set -euo pipefail
python=$1 venv=$2
[ -n "$venv" ] || { echo "install: VENV is empty; name a folder" >&2; exit 2; }
mkdir -p "$(dirname "$venv")"
venv=$(cd "$(dirname "$venv")" && pwd -P)/$(basename "$venv")
cd "$(dirname "$0")/.."
marker=.made-by-make-install # made here: `make clean` may remove it
stamp="$venv/.installed"     # packages are in; newer than what they are read from

fail() { echo "install: $*" >&2; exit 2; }

made() { [ -f "$venv/$marker" ] && [ "$(cat "$venv/$marker")" = "$venv" ] && ! [ -L "$venv" ]; }
works() { [ -x "$venv/bin/python" ] && "$venv/bin/python" -m pip --version >/dev/null 2>&1; }

up_to_date() {
  [ -f "$stamp" ] && [ -x "$venv/bin/python" ] || return 1
  for source in settings.ini pyproject.toml constraints.txt scripts/bootstrap.sh; do
    [ ! "$source" -nt "$stamp" ] || return 1
  done
}
if [ -f "$venv/$marker" ] && ! made; then
  fail "$venv was made for another place, $(cat "$venv/$marker"); remove it and call again"
fi
if up_to_date; then exit 0; fi

"$python" - <<'PY' || exit 2
import sys
if sys.version_info < (3, 11): sys.exit(f"install: Python 3.11 or newer is needed, this is {sys.version.split()[0]}; set PYTHON=")
PY

make_venv() {
  mkdir "$venv" || fail "$venv cannot be made" # so that what is removed below was made by this line
  echo "$venv" >"$venv/$marker"
  "$python" -m venv "$venv" >/dev/null 2>&1 && return
  rm -rf "$venv"
  return 1
}

if ! works; then
  if made; then rm -rf "$venv"; fi # the Python that it was made with is gone, or an installation broke off
  if [ -e "$venv" ] || [ -L "$venv" ]; then
    fail "$venv was there before and is no virtual environment with pip; remove it, or name another: make VENV=folder"
  fi
  if ! make_venv; then
    # Debian splits venv from python3; with the right to install it, do so, else say what is missing
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
      apt-get update -qq && apt-get install -y -qq python3-venv python3-dev gcc g++ >/dev/null
      make_venv || fail "'$python -m venv' does not work"
    else
      fail "'$python -m venv' does not work; install it first (Debian: apt-get install python3-venv)"
    fi
  fi
fi

# Pins also reach the environments in which packages are built (sam2 is built from source and would fetch another
# torch). Relative paths: pip cuts these lists at spaces.
export PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt
"$venv/bin/python" -m pip install --quiet --upgrade pip
"$venv/bin/python" -m pip install --quiet --progress-bar off -e ".[train,yolo,book,dev]"
"$venv/bin/python" -m pip check

# A kernel that carries the same thread settings, whoever starts it
"$venv/bin/python" -m ipykernel install --sys-prefix --name python3 --display-name "Python 3 (stvg)" \
  --env OMP_NUM_THREADS "${OMP_NUM_THREADS:-1}" >/dev/null
touch "$stamp"
echo "install: ready in $venv"
