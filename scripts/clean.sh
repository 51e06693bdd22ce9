#!/usr/bin/env bash
# `make clean`: remove what make made: `bash scripts/clean.sh FOLDER-OF-THE-ENVIRONMENT`.
# The environment only where its marker names this very folder; the rest by name, in this checkout.
set -euo pipefail
venv=$1
[ -d "$venv" ] && venv=$(cd "$(dirname "$venv")" && pwd -P)/$(basename "$venv")
cd "$(dirname "$0")/.."
marker="$venv/.made-by-make-install"

if [ -f "$marker" ] && [ "$(cat "$marker")" = "$venv" ] && ! [ -L "$venv" ] && [ -f "$venv/pyvenv.cfg" ]; then
  rm -rf "$venv"
elif [ -e "$venv" ] || [ -L "$venv" ]; then
  echo "clean: $venv is left: it was not made here by make install"
fi
rm -rf runs _proc _docs build dist ./*.egg-info
