"""What every benchmark script shares: arguments, alternating repeats, machine and packages, the table, the JSON file."""

import argparse, json, os, platform, statistics, sys, time
from importlib import metadata

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

SCHEMA = "stvg.bench/1"


def parse_arguments(description):
    "`--quick`, `--device` and `--json`, the same for all scripts."
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="one repeat at the same shapes")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--json", metavar="FILE", help="write the result here")
    return parser.parse_args()


def _cpu():
    try:
        return next(
            line.split(":", 1)[1].strip()
            for line in open("/proc/cpuinfo")
            if line.startswith("model name")
        )
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def machine(device="cpu"):
    "Processor, GPU and threads; nothing that names the host or its user."
    gpu = None
    if device == "cuda":
        import torch

        gpu = torch.cuda.get_device_name()
    return {"cpu": _cpu(), "gpu": gpu, "threads": int(os.environ["OMP_NUM_THREADS"])}


def packages(*names):
    "Installed versions, Python's first."
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in names}


def cpu_seconds(f, *args):
    "(result, process CPU seconds)"
    start = time.process_time()
    result = f(*args)
    return result, time.process_time() - start


def alternate(ours, other, repeats, bound=None):
    "Run both ways in turn; medians, and the median of the ratios other / ours."
    times = [(cpu_seconds(ours)[1], cpu_seconds(other)[1]) for _ in range(repeats)]
    a, b = (statistics.median(t) for t in zip(*times))
    return {
        "ours_s": round(a, 6),
        "other_s": round(b, 6),
        "ratio": round(statistics.median(y / x for x, y in times), 3),
        "bound": bound,
        "repeats": repeats,
    }


def finish(name, arguments, ratios, equal, ok, package_names, **more):
    "Print the table, write the JSON, and exit with 1 when the results were not equal."
    print(f"{'':28s}{'ours s':>10s}{'other s':>10s}{'ratio':>8s}{'repeats':>9s}")
    for key, r in ratios.items():
        print(f"{key:28s}{r['ours_s']:10.4f}{r['other_s']:10.4f}{r['ratio']:8.2f}{r['repeats']:9d}")
    for key, value in equal.items():
        print(f"equal: {key} {value}")
    result = {
        "schema": SCHEMA,
        "name": name,
        "quick": arguments.quick,
        "device": arguments.device,
        "machine": machine(arguments.device),
        "packages": packages(*package_names),
        "equal": equal,
        "ratios": ratios,
    } | more
    if arguments.json:
        os.makedirs(os.path.dirname(arguments.json) or ".", exist_ok=True)
        with open(arguments.json + ".tmp", "w") as f:
            json.dump(result, f, indent=1, allow_nan=False)
            f.write("\n")
        os.replace(arguments.json + ".tmp", arguments.json)
    if not ok:
        print("NOT EQUAL", file=sys.stderr)
    sys.exit(0 if ok else 1)
