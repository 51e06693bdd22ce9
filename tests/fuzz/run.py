"""Damaged inputs by the thousand: `python tests/fuzz/run.py --seed 1 --count 20000`.

Each mutation ends in success or in one clear line, within `PATIENCE` seconds and `ROOM` bytes.
Anything else is kept under `--keep`, and its traceback is printed. The mutations run in
processes of `CHUNK` each, so that nothing adds up and one that ends its process is found.
"""

import argparse
import collections
import contextlib
import faulthandler
import io
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from targets import all_targets

PATIENCE = 300  # seconds; a mutation that has not ended then hangs
ROOM = 1 << 30  # bytes that one mutation may add to the memory of the process, at its peak
ADDRESSES = 12 << 30  # bytes of address space of a process; libraries map far more than they use
CHUNK = 1000  # mutations a process
GOOD = ("fine", "refused", "set aside")


class Hang(BaseException):
    "A mutation took longer than `PATIENCE`."


def _alarm(*_):
    raise Hang


def _memory(field):
    "Bytes that the process holds (`VmRSS`) or has held at most (`VmHWM`); 0 where unknown."
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(field)), 0)


@contextlib.contextmanager
def watched():
    "A list that gets the bytes which the block added to the memory of the process at its peak."
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
    before, grown = _memory("VmRSS"), []
    yield grown
    grown.append(_memory("VmHWM") - before)


def outcome(call, folder, damaged):
    "(kind, text) of one mutation; kinds: fine, refused, set aside, and the failures."
    with watched() as grown:
        kind, text = _outcome(call, folder, damaged)
    if kind in GOOD and grown[0] > ROOM:
        return "memory", f"{grown[0] >> 20} MiB at its peak; else {kind}: {text}"
    return kind, text


def _outcome(call, folder, damaged):
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
    except MemoryError:
        return "memory", traceback.format_exc()
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


def one(target, rng, shop):
    "(kind, text, damaged bytes) of one mutation of a target's file."
    sound = target.file.read_bytes()
    data = target.damage(rng, sound)
    damaged = target.file
    if not target.in_place:
        damaged = target.file.with_name(f"damaged{target.file.suffix}")
    damaged.write_bytes(data)
    signal.alarm(PATIENCE)
    kind, text = outcome(target.call, shop, damaged)
    signal.alarm(0)
    if target.in_place:
        damaged.write_bytes(sound)
    else:
        damaged.unlink(missing_ok=True)
    return kind, text, data


def fuzz(seed, count, keep=None, only=None, first=0, log=lambda record: None):
    "Counts by (target, kind), and the failures as (case, target, kind, text)."
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGALRM, _alarm)
    counts, failures = collections.Counter(), []
    with tempfile.TemporaryDirectory() as folder:
        shop = Path(folder)
        targets = [t for t in all_targets(shop) if not only or only in t.name]
        for t in targets:
            kind, text = outcome(t.call, shop, t.file)
            assert kind in ("fine", "set aside"), f"{t.name} refuses its sound file: {text}"
        weights = [t.weight for t in targets]
        for k in range(first, first + count):
            rng = random.Random(f"{seed}-{k}")
            (target,) = rng.choices(targets, weights)
            log(dict(case=k, target=target.name))
            kind, text, data = one(target, rng, shop)
            log(dict(case=k, target=target.name, kind=kind, text=text if kind not in GOOD else ""))
            counts[target.name, kind] += 1
            if kind not in GOOD:
                failures.append((f"{seed}-{k}", target.name, kind, text))
                if keep:
                    keep.mkdir(parents=True, exist_ok=True)
                    (keep / f"{seed}-{k}{target.file.suffix}").write_bytes(data)
    return counts, failures


def _limited():
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))


def supervised(command, log):
    """The records of one process, which appends them to `log`.

    A mutation that began and did not end is recorded too: as a hang, or as what ended the
    process. A process that ends before its first mutation is an error.
    """
    log.write_text("")
    with subprocess.Popen(command, preexec_fn=_limited) as child:
        while child.poll() is None:
            time.sleep(0.5)
            if time.time() - log.stat().st_mtime > 2 * PATIENCE:
                child.kill()
    records = [json.loads(line) for line in log.read_text().splitlines()]
    if records and "kind" not in records[-1]:
        kind = "hang" if child.returncode == -signal.SIGKILL else "crash"
        records.append(records[-1] | dict(kind=kind, text=f"exit {child.returncode}"))
    elif child.returncode:
        raise SystemExit(f"{command}: exit {child.returncode}")
    return [r for r in records if "kind" in r]


def in_chunks(seed, count, first, more, log):
    "As `fuzz`, in processes of `CHUNK` mutations each; the next begins where one ended."
    counts, failures, end = collections.Counter(), [], first + count
    while first < end:
        given = dict(seed=seed, first=first, count=min(CHUNK, end - first), log=log)
        named = [part for k, v in given.items() for part in (f"--{k}", str(v))]
        records = supervised([sys.executable, __file__, *named, *more], log)
        for r in records:
            counts[r["target"], r["kind"]] += 1
            if r["kind"] not in GOOD:
                failures.append((f"{seed}-{r['case']}", r["target"], r["kind"], r["text"]))
        first = records[-1]["case"] + 1
        print(f"{first} of {end}, {len(failures)} failed", file=sys.stderr, flush=True)
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


def report(counts, failures):
    "Print each different failure once, and the counts."
    shown = collections.Counter()
    for case, name, kind, text in failures:
        last = text.strip().splitlines()[-1] if text.strip() else kind
        shown[name, kind, last] += 1
        if shown[name, kind, last] == 1:
            print(f"--- {case} {name}: {kind}\n{text}")
    print(table(counts))
    print(f"{len(failures)} failures, {len(shown)} of them different")


def main(argv=None):
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--count", type=int, default=20000)
    p.add_argument("--first", type=int, default=0, help="number of the first mutation")
    p.add_argument("--only", help="targets whose name contains this")
    p.add_argument("--keep", type=Path, help="folder for the inputs that failed")
    p.add_argument("--log", type=Path, help="run here, and append a JSON line a mutation")
    options = p.parse_args(argv)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    faulthandler.enable()
    if options.log:

        def log(record):
            with options.log.open("a") as f:
                f.write(json.dumps(record) + "\n")

        given = (options.seed, options.count, options.keep, options.only, options.first, log)
        fuzz(*given)
        return 0
    more = ["--only", options.only] if options.only else []
    more += ["--keep", str(options.keep)] if options.keep else []
    with tempfile.TemporaryDirectory() as folder:
        found = in_chunks(
            options.seed, options.count, options.first, more, Path(folder) / "log.jsonl"
        )
    report(*found)
    return 1 if found[1] else 0


if __name__ == "__main__":
    sys.exit(main())
