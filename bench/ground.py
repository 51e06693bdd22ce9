"""`stvg ground` on clips of Puppets: seconds a clip after load, and are its tubes the table's?

    python bench/ground.py [--quick] [--json FILE]

20 clips of the test split's stage, 20 s each, which neither detector nor policy was trained on; one
sentence a clip, profile tiny, the policy that is asked where nobody is named. Policy, detector and
tracker are loaded before; times are process CPU seconds on one thread. On the first clip, three
sentences in one call are compared with three calls, and a video that is held while it is worked on
with one that is decoded for all who ask. `table` is what figures/tiny kept of the same policy about
these clips, with exact masks in place of detected ones: m_vIoU of both, and the 95 %
bootstrap interval of their difference over the clips.
"""

import contextlib
import json
import os
import statistics
import sys
import tempfile
import zipfile
from pathlib import Path

from common import alternate, cpu_seconds, finish, parse_arguments
import cv2
import numpy as np
import torch

from stvg_nb import ground as chapter
from stvg_nb.foundations.settings import load_profile
from stvg_nb.foundations.video import probe
from stvg_nb.front import made_clip
from stvg_nb.gallery import Example, scores_of
from stvg_nb.models import load_policy

ROOT = Path(__file__).resolve().parents[1]
CLIPS, BOUND = 20, 3.0  # how many; seconds a clip, the median at most
MORE = "Who waves a hand?", "The puppet sits down."
KEPT = "r1-table01.zip", "marks+GRPO--seed0.jsonl"
PACKAGES = "torch", "transformers", "ultralytics-opencv-headless", "opencv-python-headless"


class Asker:
    "Everything that is loaded once."

    def __init__(self):
        self.parts = dict(
            policy=load_policy(chapter.SHIPPED), profile=load_profile("tiny"), loaded={}
        )

    def __call__(self, clip, *queries):
        "The answers to sentences about a clip, its own by default."
        return chapter.ground(clip.video, queries or [clip.query], **self.parts)["results"]


def viou(record, clip):
    "vIoU of a record of a predictions file; 0 where nothing was answered."
    info = probe(clip.video)
    facts = (info.height, info.width), info.fps, info.frame_count
    return scores_of(Example("clip", clip.query, clip.video, *facts, truth=clip.truth), record)[
        "viou"
    ]


def kept():
    "{file name of a clip: what the table's policy answered}"
    with zipfile.ZipFile(ROOT / "figures/tiny/predictions" / KEPT[0]) as archive:
        lines = archive.read(KEPT[1]).decode().splitlines()[1:]
    return {record["key"]: record for record in map(json.loads, lines)}


def against_table(answers, clips):
    "m_vIoU of the answers and of the table's, and the interval of the difference."
    table = kept()
    ours = [viou(answer[0]["prediction"], c) for answer, c in zip(answers, clips)]
    theirs = [viou(table[c.video.name], c) for c in clips]
    apart = np.subtract(ours, theirs)
    drawn = np.random.default_rng(0).choice(apart, (10_000, len(apart))).mean(1)
    low, high = (round(float(q), 3) for q in np.quantile(drawn, (0.025, 0.975)))
    means = (round(float(np.mean(x)), 3) for x in (ours, theirs))
    return dict(zip(("ours", "table"), means)) | dict(difference=[low, high])


@contextlib.contextmanager
def decoded_each_time():
    "The other way: nothing of a video is held."
    held, chapter.held = chapter.held, lambda video: contextlib.nullcontext(probe(video))
    try:
        yield
    finally:
        chapter.held = held


def not_held(ask, clip):
    with decoded_each_time():
        return ask(clip)


def compare(ask, clip, repeats):
    "Ratios and equalities of the two pairs of ways."
    three = [clip.query, *MORE]
    ways = dict(
        three_sentences=(lambda: ask(clip, *three), lambda: [ask(clip, q)[0] for q in three]),
        held=(lambda: ask(clip), lambda: not_held(ask, clip)),
    )
    texts = {name: [[r["text"] for r in way()] for way in pair] for name, pair in ways.items()}
    equal = {name: a == b for name, (a, b) in texts.items()}
    return {name: alternate(*pair, repeats) for name, pair in ways.items()}, equal


def main():
    arguments = parse_arguments(__doc__.splitlines()[0])
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    before = os.getloadavg()[0]  # processes that want a core: cores that are shared are slower
    count, repeats, ask = *((3, 1) if arguments.quick else (CLIPS, 3)), Asker()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["STVG_RUNS"] = f"{folder}/runs"
        clips = [made_clip(folder, i, "test") for i in range(count)]
        first = clips[0]
        ask(first)  # the detector is made ready when it first sees frames
        answers, seconds = zip(*(cpu_seconds(ask, clip) for clip in clips))
        ratios, equal = compare(ask, first, repeats)
        drawn = f"{folder}/drawn.mp4", answers[0][0]["prediction"], first.truth, first.query
        render = cpu_seconds(chapter.render_answer, first.video, *drawn)[1]
        scores = against_table(answers, clips)
    middle = round(statistics.median(seconds), 2)
    spread = dict(least=round(min(seconds), 2), most=round(max(seconds), 2))
    seconds = dict(median=middle, **spread, bound=BOUND, render=round(render, 2))
    load = [round(x, 1) for x in (before, os.getloadavg()[0])]
    print(f"seconds a clip, {count} clips: {seconds}; load {load}")
    print(f"m_vIoU, {count} clips: {scores}")
    if middle > BOUND:
        print(f"the median is above {BOUND} s", file=sys.stderr)
    low, high = scores["difference"]
    ok = all(equal.values()) and low <= 0 <= high
    more = dict(counts=dict(clips=count), load=load, seconds=seconds, m_viou=scores)
    finish("ground", arguments, ratios, equal, ok, PACKAGES, **more)


if __name__ == "__main__":
    main()
