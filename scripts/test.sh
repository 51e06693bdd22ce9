#!/usr/bin/env bash
# `make test`: every notebook under nbdev_test, then tests/. Both must really have run something.
set -euo pipefail
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" HF_HUB_OFFLINE=1 YOLO_OFFLINE=true YOLO_AUTOINSTALL=false
mkdir -p runs
log=runs/nbdev_test.log

wanted=$(ls nbs/*.ipynb | wc -l)
if ! nbdev_test --do_print --timing 2>&1 | tee "$log"; then exit 1; fi
done=$(grep -c '^- Completed' "$log" || true)
# nbdev_test exits 0 when it found nothing to run
if [ "$done" -lt 1 ] || [ "$done" -ne "$wanted" ]; then echo "test: $done of $wanted notebooks ran" >&2; exit 1; fi
echo "test: $done notebooks ran"

python -m pytest -n 2 --dist loadfile tests
