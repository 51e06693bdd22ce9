"""Damaged inputs by the thousand: `python tests/fuzz/run.py --seed 1 --count 20000`.

Each mutation ends in success or in one clear line. Anything else is kept
under `--keep`, and its traceback is printed.
"""

import argparse
import collections
import contextlib
import io
import os
import random
import signal
import sys
import tempfile
import traceback
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from targets import all_targets

PATIENCE = 300  # seconds; a mutation that has not ended then hangs


class Hang(BaseException):
    "A mutation took longer than `PATIENCE`."


def _alarm(*_):
    raise Hang


def outcome(call, folder, damaged):
    "(kind, text) of one mutation; kinds: fine, refused, set aside, and the failures."
    from stvg_nb.cli import main
    from stvg_nb.foundations.files import InputError

    out, err = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            argv = call(folder, damaged)
            code = 0 if argv is None else main([*map(str, argv), "--quiet", "--verbose"])
    except InputError as e:
        bad = "\n" in str(e) or not e.reason
        return ("unclear", str(e)) if bad else ("refused", str(e))
    except SystemExit as e:
        return "exit", f"SystemExit {e.code}"
    except Hang:
        return "hang", f"longer than {PATIENCE} s"
    except Exception:
        return "internal error", traceback.format_exc()
    lines = err.getvalue().splitlines()
    if code == 2 and (len(lines) != 1 or not lines[0].startswith("stvg: error: ")):
        return "unclear", err.getvalue()
    if code == 2:
        return "refused", lines[0]
    if code not in (0, 3):
        return "exit", f"exit {code}: {err.getvalue()}"
    return ("fine" if code == 0 else "set aside"), ""


def fuzz(seed, count, keep=None, only=None, tell=None):
    "Counts by (target, kind), and the failures as (target, kind, text, bytes)."
    warnings.simplefilter("ignore")
    if hasattr(signal, "SIGALRM"):
        signal.signal(signal.SIGALRM, _alarm)
    counts, failures = collections.Counter(), []
    with tempfile.TemporaryDirectory() as shop:
        targets = [t for t in all_targets(Path(shop)) if not only or only in t.name]
        for t in targets:
            kind, text = outcome(t.call, Path(shop), t.file)
            assert kind in ("fine", "set aside"), f"{t.name} refuses its sound file: {text}"
        weights = [t.weight for t in targets]
        for k in range(count):
            rng = random.Random(f"{seed}-{k}")
            (target,) = rng.choices(targets, weights)
            sound = target.file.read_bytes()
            data = target.damage(rng, sound)
            damaged = target.file
            if not target.in_place:
                damaged = target.file.with_name(f"damaged{target.file.suffix}")
            damaged.write_bytes(data)
            signal.alarm(PATIENCE)
            kind, text = outcome(target.call, Path(shop), damaged)
            signal.alarm(0)
            if target.in_place:
                damaged.write_bytes(sound)
            else:
                damaged.unlink(missing_ok=True)
            counts[target.name, kind] += 1
            if kind not in ("fine", "refused", "set aside"):
                failures.append((f"{seed}-{k}", target.name, kind, text))
                if keep:
                    keep.mkdir(parents=True, exist_ok=True)
                    (keep / f"{seed}-{k}{target.file.suffix}").write_bytes(data)
            if tell and k % 500 == 499:
                tell(k + 1, len(failures))
    return counts, failures


def table(counts):
    "The counts as text, a line a target."
    kinds = sorted({kind for _, kind in counts})
    names = sorted({name for name, _ in counts})
    width = max(map(len, names))
    lines = [" " * width + "".join(f"{k:>16}" for k in kinds)]
    for name in names:
        lines.append(f"{name:<{width}}" + "".join(f"{counts[name, k]:>16}" for k in kinds))
    total = [sum(counts[n, k] for n in names) for k in kinds]
    lines.append(f"{'total':<{width}}" + "".join(f"{n:>16}" for n in total))
    return "\n".join(lines)


def main(argv=None):
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--count", type=int, default=20000)
    p.add_argument("--only", help="targets whose name contains this")
    p.add_argument("--keep", type=Path, help="folder for the inputs that failed")
    options = p.parse_args(argv)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")

    def tell(done, failed):
        print(f"{done} of {options.count}, {failed} failed", file=sys.stderr, flush=True)

    counts, failures = fuzz(options.seed, options.count, options.keep, options.only, tell)
    shown = collections.Counter()
    for case, name, kind, text in failures:
        last = text.strip().splitlines()[-1] if text.strip() else kind
        shown[name, kind, last] += 1
        if shown[name, kind, last] == 1:
            print(f"--- {case} {name}: {kind}\n{text}")
    print(table(counts))
    print(f"{len(failures)} failures, {len(shown)} of them different")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
