#!/usr/bin/env bash
# nbdev 3 exports the same modules as the nbdev that is installed: `bash scripts/nbdev3.sh [FOLDER]`.
# FOLDER holds nbdev 3 (`pip install --target FOLDER 'nbdev==3.*'`); without it, it is fetched.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
folder=${1:-$work/nbdev}
[ -d "$folder/nbdev" ] || python -m pip install --quiet --target "$folder" 'nbdev==3.*'

# nbdev 3 takes its settings from [tool.nbdev]: settings.ini stays behind
mkdir "$work/copy"
cp -r nbs stvg_nb pyproject.toml README.md "$work/copy"
find "$work/copy/stvg_nb" -name '*.py' ! -name '__init__.py' -delete
(cd "$work/copy" && PYTHONPATH="$folder" python -c 'from nbdev.doclinks import nbdev_export; nbdev_export()')

# all but the index of modules, whose lay-out is the version's own
python - "$work/copy/stvg_nb" <<'PY'
import sys
from pathlib import Path


def modules(folder):
    found = [p for p in Path(folder).rglob("*.py") if p.name != "_modidx.py"]
    return {p.relative_to(folder): p.read_text("utf-8") for p in found}


old, new = modules("stvg_nb"), modules(sys.argv[1])
differing = sorted(str(n) for n in old.keys() | new.keys() if old.get(n) != new.get(n))
for name in differing:
    print(f"nbdev3: stvg_nb/{name} is not exported alike", file=sys.stderr)
print(f"nbdev3: {len(old)} modules, {len(differing)} differ")
sys.exit(bool(differing))
PY
