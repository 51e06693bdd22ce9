#!/usr/bin/env bash
# The wheel in an empty environment, outside the checkout: `bash scripts/wheel.sh [VENV]` (an environment to use instead).
# First the package alone, then with the extra `train`; neither ultralytics nor JupyterLab may be there.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
venv=${1:-$work/venv}
export OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 SAM2_BUILD_CUDA=0
export PIP_CONSTRAINT=${PIP_CONSTRAINT:-$root/constraints.txt}
export PIP_BUILD_CONSTRAINT=$PIP_CONSTRAINT PIP_DISABLE_PIP_VERSION_CHECK=1
unset PYTHONPATH STVG_PROFILE STVG_RUNS STVG_FIGURES

[ -x "$venv/bin/python" ] || python3 -m venv "$venv"
# built from a copy, so that no build/ is left behind
mkdir "$work/source"
cp -r "$root"/{stvg_nb,pyproject.toml,README.md,LICENSE,LICENSES,NOTICE} "$work/source"
"$venv/bin/python" -m pip wheel --quiet --no-deps --wheel-dir "$work" "$work/source"
wheel=("$work"/stvg_r1_notebooks-*.whl)
"$venv/bin/python" -m pip install --quiet "${wheel[0]}"
"$venv/bin/python" -m pip install --quiet --no-deps --force-reinstall "${wheel[0]}"
PATH=$venv/bin:$PATH

absent() {
  for name in "$@"; do
    if python -c "import $name" 2>/dev/null; then echo "wheel: $name is installed; it must not be needed" >&2; exit 1; fi
  done
}

says() { # CODE COMMAND...: a command that ends with this exit code
  local want=$1 got=0
  shift
  echo "+ $*"
  "$@" >"$work/out" 2>"$work/err" || got=$?
  if [ "$got" != "$want" ]; then cat "$work/out" "$work/err" >&2; echo "wheel: exit code $got, not $want: $*" >&2; exit 1; fi
}

mkdir "$work/elsewhere"
cd "$work/elsewhere"
absent ultralytics jupyterlab trl nbdev
cp -r "$root/tests/data/road/hcstvg" .
small=(--profile smoke --set sampling.longer_side=56 --set sampling.max_frames=4)
files=(--benchmark hcstvg --annotations hcstvg/v1_test.json)
clip=clips/videos/puppets_stage_test_00000.mp4
says 0 stvg --help
says 3 stvg doctor "${files[@]}" --videos hcstvg/videos # another frame rate than is annotated: said, exit code 3
says 0 stvg puppets --output clips --count 1
says 0 stvg prompt "$clip" --output numbered.mp4 --set prompting.detector=motion --set prompting.tracker=flow
says 0 stvg ground "$clip" "The puppet waves a hand." --model embedded:grpo-0 --render answer.mp4 "${small[@]}"
says 2 stvg prompt "$clip" --output again.mp4 --set prompting.detector=puppets # needs ultralytics, and says so
grep -q "stvg-r1-notebooks\[yolo\]" "$work/err"
says 0 stvg predict "${files[@]}" --videos hcstvg/videos --model embedded:grpo-0 --output said.jsonl "${small[@]}"
says 0 stvg evaluate "${files[@]}" --predictions said.jsonl
says 2 stvg train --base random --steps 1 --output run "${small[@]}" # needs the extra, and says so
grep -q "stvg-r1-notebooks\[train\]" "$work/err"
python - "$root/README.md" <<'PY'
import re
import sys
from pathlib import Path

(code,) = re.findall(r"^```python\n(.+?)^```", Path(sys.argv[1]).read_text("utf-8"), re.M | re.S)
print("+ the lines of the README")
exec(code, {})
PY

python -m pip install --quiet "${wheel[0]}[train]"
absent ultralytics jupyterlab nbdev
one=(--set train.num_generations=2 --set train.prompts_per_step=1 --set train.prompts_per_pass=1)
says 0 stvg train --base random --method grpo --steps 1 --output run "${small[@]}" "${one[@]}"
[ -f run/final/model.safetensors ]
echo "wheel: works without ultralytics and JupyterLab"
