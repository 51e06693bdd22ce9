"""Two workers on one list of videos against one, with shares and with Ray.

    python bench/fanout.py [--quick] [--json FILE]

Sixteen Puppets clips of eight seconds, numbered by whole processes of `stvg prompt`: their start
and the loading of the models count, and for Ray that of its cluster. Times are wall clock, the best
of three; the databases of all ways must be equal. On fewer than two free cores the ratio says
nothing.
"""

import os, subprocess, sys, tempfile, time
from pathlib import Path

from common import finish, parse_arguments

from stvg_nb.theatre.clips import write_clip
from stvg_nb.theatre.staging import Options
from stvg_nb.theatre.stories import make_script

COUNT, SECONDS = 16, 8.0
RAY_ONE = "import ray, sys; ray.init(num_cpus=int(sys.argv.pop(1)), log_to_driver=False)\n"
RAY_ONE += "from stvg_nb.cli import main; sys.exit(main(sys.argv[1:]))"


def shares(n, command):
    plain = [sys.executable, "-m", "stvg_nb.cli", *command, "--quiet"]
    return [[*plain, "--shard", f"{i}/{n}"] for i in range(1, n + 1)]


def over_ray(n, command):
    return [[sys.executable, "-c", RAY_ONE, str(n), *command, "--quiet", "--ray"]]


def measured(way, n, clips, out):
    "(wall seconds, databases) of all processes together."
    commands = way(n, ["prompt", str(clips), "--output", str(out)])
    env = os.environ | dict(STVG_PROFILE="tiny", RAY_USAGE_STATS_ENABLED="0")
    env |= dict(RAY_worker_niceness="0")
    start = time.perf_counter()
    running = [subprocess.Popen(c, env=env, stdout=subprocess.DEVNULL) for c in commands]
    if any([p.wait() for p in running]):
        sys.exit("a worker failed")
    spent = time.perf_counter() - start
    return spent, {p.name: p.read_bytes() for p in out.glob("*.masks.json.gz")}


def main():
    arguments = parse_arguments(__doc__)
    repeats, ratios, equal = 1 if arguments.quick else 3, {}, {}
    before = os.getloadavg()[0]  # processes that want a core, before ours
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        for k in range(COUNT):
            script = make_script("val", "stage", k, Options(duration=SECONDS))
            write_clip(folder / f"clips/c{k}.mp4", script)
        for name, way in dict(shares=shares, ray=over_ray).items():
            found = {1: [], 2: []}
            for r in range(repeats):
                for n in found:
                    found[n].append(measured(way, n, folder / "clips", folder / f"{name}{n}{r}"))
            best = {n: min(s for s, _ in runs) for n, runs in found.items()}
            ratios[f"{name}: two against one"] = dict(
                ours_s=round(best[2], 3),
                other_s=round(best[1], 3),
                ratio=round(best[1] / best[2], 3),
                bound=None,
                repeats=repeats,
            )
            first, *rest = [d for runs in found.values() for _, d in runs]
            equal[name] = len(first) == COUNT and all(d == first for d in rest)
    told = ratios, equal, all(equal.values()), ("ray", "torch", "av")
    finish("fanout", arguments, *told, load=round(before, 1))


if __name__ == "__main__":
    main()
