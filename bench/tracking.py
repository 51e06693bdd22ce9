"""SAM2 with every frame encoded once, against three ways of driving the sam2 package's predictor.

    python bench/tracking.py [--quick] [--device cpu] [--json FILE]

60 frames at 256 px, SAM2.1 hiera-tiny with random weights; 4 objects in frame 0 and one more at
frames 12, 24, 36 and 48. Each way runs in a process of its own, so that its peak memory is its own;
ways alternate, times are process CPU seconds (device events on a GPU). Equality is per object and
frame, on logits at video size, in both directions.
"""

import json, statistics, subprocess, sys, tempfile, time

from common import finish, parse_arguments
import numpy as np

from stvg_nb.foundations.files import peak_bytes
from stvg_nb.sam2_tracker import Sam2Tracker, count_work, load_sam2, official_tracks
from stvg_nb.sessions import work_of

CONFIG, T, SIDE, ARRIVALS = "sam2.1_hiera_t", 60, 256, {0: 4, 12: 1, 24: 1, 36: 1, 48: 1}
BUDGET = 32 << 20  # bytes of encodings kept in memory; 60 frames need more
N = sum(ARRIVALS.values())
WAYS = {
    "ours": "competent",
    "ours_forward": "released",
    "one_state": None,
    "released": None,
    "competent": None,
}  # ours: what it must equal
RATIOS = {
    "vs_one_state": ("ours", "one_state"),
    "vs_released_way": ("ours_forward", "released"),
    "vs_competent_way": ("ours", "competent"),
}
LENGTHS = (60, 240, 960)


def place(k, t):
    "Left, top of object k at time t: eight squares on crossing ways."
    x, y = (
        (30 + 23 * k + (2 if k % 2 else -1) * t) % 200,
        (20 + 37 * k + (1 if k < 4 else -2) * t) % 200,
    )
    return x, y


def mask_of(k, t):
    mask = np.zeros((SIDE, SIDE), bool)
    x, y = place(k, t)
    mask[y : y + 40, x : x + 40] = True
    return mask


def frames(n, seed=0):
    "Frames one at a time: textured squares over a textured ground."
    rng = np.random.default_rng(seed)
    texture = lambda side, cell: (
        rng.integers(0, 256, (side // cell, side // cell, 3), np.uint8)
        .repeat(cell, 0)
        .repeat(cell, 1)
    )
    ground, looks = texture(SIDE, 8), [texture(40, 4) for _ in range(N)]
    for t in range(n):
        frame = ground.copy()
        for k in range(N):
            x, y = place(k, t)
            frame[y : y + 40, x : x + 40] = looks[k]
        yield frame


def arrivals(kind):
    "{frame: {id: mask or box}}, IDs from 1 in order of arrival."
    out, k = {}, 0
    for frame, n in ARRIVALS.items():
        out[frame] = {}
        for _ in range(n):
            x, y = place(k, frame)
            out[frame][k + 1] = (
                mask_of(k, frame) if kind == "mask" else np.array([x, y, x + 40, y + 40], float)
            )
            k += 1
    return out


def ours(model, prompts, n, backward, budget, images=None, logits=True):
    "The session driven as the pipeline drives it; yields (frame, id, logits)."
    with Sam2Tracker(model=model, budget=budget).open(
        images or frames(n), SIDE, SIDE, n, backward=backward, logits=logits
    ) as session:
        for stop in sorted({*prompts, n - 1}):
            for f, found in session.advance(stop):
                yield from ((f, id, x) for id, x in found.items())
            for id, prompt in prompts.get(stop, {}).items():
                yield (
                    stop,
                    id,
                    session.add(id, stop, **{"mask" if prompt.ndim == 2 else "box": prompt}),
                )
        ours.bytes = max(t.state.nbytes for t in session.tracks)
        for f, found in session.backward():
            yield from ((f, id, x) for id, x in found.items())


class Clock:
    "Process CPU seconds, or device events."

    def __init__(self, device):
        self.cuda = device == "cuda"

    def __enter__(self):
        if self.cuda:
            import torch

            self.events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
            self.events[0].record()
        self.start = time.process_time()
        return self

    def __exit__(self, *_):
        self.seconds = time.process_time() - self.start
        if self.cuda:
            import torch

            self.events[1].record()
            torch.cuda.synchronize()
            self.seconds = self.events[0].elapsed_time(self.events[1]) / 1000


def peak_mb():
    return peak_bytes() / 2**20


# what runs in processes of its own --------------------------------------------------------------
def work(device, way, kind, path):
    "One way once; logits go to `path` as they come, so that they are not counted as its memory."
    model, prompts = load_sam2(CONFIG, device=device, image_size=SIDE), arrivals(kind)
    steps = (
        ours(model, prompts, T, way == "ours", BUDGET)
        if way.startswith("ours")
        else official_tracks(model, list(frames(T)), prompts, way)
    )
    with open(path, "r+b") as out, count_work(model) as counts, Clock(device) as clock:
        for f, id, x in steps:
            out.seek(((id - 1) * T + f) * SIDE * SIDE * 4)
            out.write(np.ascontiguousarray(x, np.float32).data)
    return dict(seconds=clock.seconds, counts=counts, peak_mb=peak_mb())


def length(device, n):
    "Peak memory of a long video: one object, one arrival, both directions; the rest lies on disk."
    prompts = {0: {1: mask_of(0, 0)}, n // 2: {2: mask_of(1, n // 2)}}
    masks = sum(
        1
        for _ in ours(
            load_sam2(CONFIG, device=device, image_size=SIDE),
            prompts,
            n,
            True,
            BUDGET,
            logits=False,
        )
    )
    return dict(masks=masks, peak_mb=peak_mb())


def state(device, n):
    "Bytes a track keeps after n frames; all frames are one picture, which is encoded once."
    model, first, kept = load_sam2(CONFIG, device=device, image_size=SIDE), next(frames(1)), {}
    encode = model.forward_image

    def cached(x):
        if not kept:
            kept.update(encode(x))
        return {k: list(v) if isinstance(v, list) else v for k, v in kept.items()}

    model.forward_image = cached
    for _ in ours(
        model,
        {0: {1: mask_of(0, 0)}},
        n,
        False,
        BUDGET,
        images=(first for _ in range(n)),
        logits=False,
    ):
        pass
    return dict(bytes=ours.bytes)


def spawn(*args):
    "This script again in a fresh process; its last line is JSON."
    done = subprocess.run(
        [sys.executable, __file__, "--worker", json.dumps(args)], capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


# the comparison ---------------------------------------------------------------------------------
def compare(a, b, known):
    "Largest difference of logits, share of pixels whose sign differs, where both ways give masks."
    a, b = (np.memmap(p, np.float32, "r", shape=(N, T, SIDE, SIDE)) for p in (a, b))
    pairs = [(a[k, f], b[k, f]) for k, f in known]
    return max(float(np.abs(x - y).max()) for x, y in pairs), sum(
        int(((x > 0) != (y > 0)).sum()) for x, y in pairs
    ) / (len(pairs) * SIDE * SIDE)


def one_round(device, kind):
    "Every way once, then the equalities."
    with tempfile.TemporaryDirectory() as folder:
        paths, results = {way: f"{folder}/{way}.f32" for way in WAYS}, {}
        for way, path in paths.items():
            with open(path, "wb") as f:
                f.truncate(N * T * SIDE * SIDE * 4)
            results[way] = spawn("work", device, way, kind, path)
            print(f"{kind} prompts, {way}: {results[way]}", file=sys.stderr)
        start = {id - 1: f for f, new in arrivals("box").items() for id in new}
        for way, other in WAYS.items():
            known = [(k, f) for k in range(N) for f in range(0 if way == "ours" else start[k], T)]
            if other:
                results[way]["equal"] = compare(paths[way], paths[other], known)
    return results


def counts_of(rounds):
    "Counted work of both sides of each ratio, and whether every count is what arithmetic says."
    want = {
        way: work_of(way.removesuffix("_forward"), T, ARRIVALS, backward=way != "ours_forward")
        for way in WAYS
    }
    counts = {
        f"{key}_{name}": dict(ours=rounds[0][a]["counts"][key], other=rounds[0][b]["counts"][key])
        for key in ("encodings", "object_frames")
        for name, (a, b) in RATIOS.items()
    }
    return counts, all(r[way]["counts"] == want[way] for r in rounds for way in WAYS)


def main():
    if sys.argv[1:2] == ["--worker"]:
        what, *rest = json.loads(sys.argv[2])
        return print(json.dumps(dict(work=work, length=length, state=state)[what](*rest)))
    arguments = parse_arguments(__doc__.splitlines()[0])
    device, full = arguments.device, not arguments.quick
    rounds = [one_round(device, kind) for kind in (("mask", "box", "mask") if full else ("mask",))]
    middle = lambda way, key: statistics.median(r[way][key] for r in rounds)
    ratios = {
        name: dict(
            ours_s=round(middle(a, "seconds"), 2),
            other_s=round(middle(b, "seconds"), 2),
            bound=None,
            repeats=len(rounds),
            ratio=round(statistics.median(r[b]["seconds"] / r[a]["seconds"] for r in rounds), 3),
        )
        for name, (a, b) in RATIOS.items()
    }
    checked = [r[way]["equal"] for r in rounds for way, other in WAYS.items() if other]
    equal = dict(logits_max_abs=max(d for d, _ in checked), sign_share=max(s for _, s in checked))
    counts, ok = counts_of(rounds)
    memory = {
        f"peak_{name}": dict(
            ours_mb=round(middle(a, "peak_mb")),
            other_mb=round(middle(b, "peak_mb")),
            ratio=round(middle(b, "peak_mb") / middle(a, "peak_mb"), 2),
        )
        for name, (a, b) in RATIOS.items()
    }
    if device == "cpu":
        ok &= equal["logits_max_abs"] < 1e-4 and equal["sign_share"] < 1e-6
    if full:
        peaks, kept = (
            [spawn("length", device, n)["peak_mb"] for n in LENGTHS],
            [spawn("state", device, n)["bytes"] for n in (60, 600)],
        )
        memory["peak_over_length"] = dict(
            frames=LENGTHS,
            ours_mb=[round(p) for p in peaks],
            spread=round(max(peaks) / min(peaks) - 1, 4),
        )
        memory["bytes_per_track"] = dict(frames=[60, 600], ours=kept)
        ok &= memory["peak_over_length"]["spread"] <= 0.1 and len(set(kept)) == 1
    for group in (counts, memory):
        for name, value in group.items():
            print(f"{name}: {value}")
    finish(
        "tracking",
        arguments,
        ratios,
        equal,
        ok,
        ("torch", "sam2", "numpy"),
        counts=counts,
        memory=memory,
        shape=dict(
            config=CONFIG,
            image_size=SIDE,
            frames=T,
            arrivals=ARRIVALS,
            prompts=["mask", "box", "mask"] if full else ["mask"],
        ),
    )


if __name__ == "__main__":
    main()
