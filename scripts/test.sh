#!/usr/bin/env bash
# `make test`: every notebook of every folder under nbdev_test, then tests/. Both must really have run something.
set -euo pipefail
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" HF_HUB_OFFLINE=1 YOLO_OFFLINE=true YOLO_AUTOINSTALL=false
mkdir -p runs
log=runs/nbdev_test.log

# as nbdev finds them: at any depth, no file or folder whose name starts with a dot or an underscore
wanted=$(find nbs -mindepth 1 -name '[._]*' -prune -o -type f -name '*.ipynb' -print | wc -l)
if ! nbdev_test --do_print --timing 2>&1 | tee "$log"; then exit 1; fi
done=$(grep -c '^- Completed' "$log" || true)
# nbdev_test exits 0 when it found nothing to run
if [ "$done" -lt 1 ] || [ "$done" -ne "$wanted" ]; then echo "test: $done of $wanted notebooks ran" >&2; exit 1; fi
echo "test: $done notebooks ran"

python -m pytest -n 2 --dist loadfile tests
