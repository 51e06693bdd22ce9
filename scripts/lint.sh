#!/usr/bin/env bash
# What must hold of formatting, names and imports, then the counts of the house style, which may only sink.
set -euo pipefail
cd "$(dirname "$0")/.."
where=(nbs scripts tests bench)

ruff format --check "${where[@]}" || { echo "lint: run: ruff format ${where[*]}" >&2; exit 1; }
ruff check --quiet stvg_nb # names that an exported cell needs and the module does not have
# everything but the rules that scripts/style.py counts
ruff check --quiet --output-format concise --ignore E501,E731,E741 "${where[@]}"
python scripts/style.py --check
