"""People before a fixed camera, without weights: ours beside linking blobs from frame to frame.

    python bench/motion.py FOLDER [--flow] [--json FILE]

FOLDER holds TUD-Campus/gt.txt and TUD-Stadtmitte/gt.txt, as the package motmetrics has them in its
`data`. Walking figures are drawn along these tracks before a still wall, in flat colours and with
texture. Scores are at box IoU 0.5: IDF1, recall, switches of numbers; frames a CPU second.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from stvg_nb.detectors import MotionDetector
from stvg_nb.foundations.geometry import box_iou
from stvg_nb.foundations.id_scores import id_scores
from stvg_nb.foundations.prompting_config import variant
from stvg_nb.foundations.video import write_video
from stvg_nb.prompting import build_database

HEIGHT, WIDTH, FPS = 480, 640, 25


def read_tracks(path):
    "{frame: {id: (4,) xyxy}} of a file of MOTChallenge."
    out = {}
    for frame, id, x, y, width, height, *_ in np.loadtxt(path, delimiter=","):
        box = np.array([x - 1, y - 1, x - 1 + width, y - 1 + height])
        out.setdefault(int(frame) - 1, {})[int(id)] = box
    return out


def silhouette(box, phase):
    "(H, W) bool: a walking figure that reaches all four sides of its box."
    x1, y1, x2, y2 = box
    width, height = x2 - x1, y2 - y1
    mask, step = np.zeros((HEIGHT, WIDTH), np.uint8), 0.12 * np.sin(phase)
    head = (
        (int((x1 + x2) / 2), int(y1 + 0.09 * height)),
        (int(0.17 * width + 1), int(0.09 * height)),
    )
    cv2.ellipse(mask, *head, 0, 0, 360, 1, -1)
    limbs = [
        [(0.2, 0.18), (0.8, 0.18), (0.75, 0.55), (0.25, 0.55)],
        [(0.2, 0.18), (0.0, 0.5), (0.1, 0.52), (0.3, 0.3)],
        [(0.8, 0.18), (1.0, 0.5), (0.9, 0.52), (0.7, 0.3)],
        [(0.25, 0.5), (0.55, 0.5), (0.28 + step, 1.0), (0.05 + step / 2, 1.0)],
        [(0.45, 0.5), (0.75, 0.5), (0.95 - step / 2, 1.0), (0.72 - step, 1.0)],
    ]
    for limb in limbs:
        points = [[x1 + width * a, y1 + height * b] for a, b in limb]
        cv2.fillPoly(mask, [np.array(points, np.int32)], 1)
    return mask > 0


def paint(box, mask, look, textured):
    "Colours of a figure's pixels: skin, upper and lower clothes."
    y, x = np.nonzero(mask)
    down, across = (y - box[1]) / (box[3] - box[1]), (x - box[0]) / (box[2] - box[0])
    colours, texture = look
    out = np.where((down < 0.52)[:, None], colours[0], colours[1])
    out = np.where((down < 0.18)[:, None], np.array([200, 160, 130]), out)
    if textured:
        cell = [(np.clip(v, 0, 0.999) * n).astype(int) for v, n in ((down, 40), (across, 16))]
        out = out + texture[cell[0], cell[1]]
    return out


def render(tracks, textured, seed=0):
    "Frames (T, H, W, 3) uint8 and the boxes that they show."
    rng, frames, truth = np.random.default_rng(seed), [], {}
    coarse = rng.integers(90, 170, (24, 32, 1)).astype(np.uint8)
    wall = cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)[..., None].astype(int)
    wall = wall + np.array([10, 0, -10]) + rng.integers(-12, 13, (HEIGHT, WIDTH, 1))
    ids = sorted({id for boxes in tracks.values() for id in boxes})
    colours = {id: rng.integers(20, 236, (2, 3)) for id in ids}
    looks = {id: (colours[id], rng.integers(-60, 61, (40, 16, 1))) for id in ids}
    for t in range(max(tracks) + 1):
        image = wall + rng.integers(-3, 4, (HEIGHT, WIDTH, 1))
        near_last = sorted(tracks.get(t, {}).items(), key=lambda item: item[1][3])
        for id, box in near_last:
            mask = silhouette(box, t / 3 + id)
            if mask.any():
                image[mask] = paint(box, mask, looks[id], textured)
        frame = [WIDTH, HEIGHT, WIDTH, HEIGHT]
        truth[t] = {id: np.clip(box, 0, frame) for id, box in near_last}
        frames.append(image.clip(0, 255).astype(np.uint8))
    return np.stack(frames), truth


def naive(path, frames):
    "Blobs of each frame, linked to those of the frame before at IoU 0.3."
    detector = MotionDetector()
    detector.prepare(path, len(frames))
    out, before, count = {}, {}, 0
    for t, frame in enumerate(frames):
        (found,) = detector([frame])
        now, used = {}, set()
        pairs = [
            (float(box_iou(a, b)), i, j)
            for i, a in before.items()
            for j, b in enumerate(found.boxes)
        ]
        for iou, i, j in sorted(pairs, reverse=True):
            if iou >= 0.3 and i not in now and j not in used:
                now[i] = found.boxes[j]
                used.add(j)
        for j, box in enumerate(found.boxes):
            if j not in used:
                count += 1
                now[count] = box
        out[t] = before = now
    return out


def numbered(path, **settings):
    "Boxes {frame: {id: (4,)}} of our own database."
    db, _ = build_database(path, variant(detector="motion", **settings))
    out = {}
    for id in db.ids:
        tube = db.tube(id)
        for frame, box in zip(tube.frames.tolist(), tube.boxes):
            out.setdefault(frame, {})[id] = box
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", help="with TUD-Campus and TUD-Stadtmitte")
    parser.add_argument("--flow", action="store_true", help="also outlines carried by flow alone")
    parser.add_argument("--json", metavar="FILE", help="write the result here")
    options, rows = parser.parse_args(), []
    for name in ("TUD-Campus", "TUD-Stadtmitte"):
        tracks = read_tracks(Path(options.folder) / name / "gt.txt")
        for textured in (False, True):
            frames, truth = render(tracks, textured)
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "people.mp4"
                write_video(path, frames, FPS)
                ways = dict(
                    ours=lambda: numbered(path, tracker="silhouettes"),
                    naive=lambda: naive(path, frames),
                )
                if options.flow:
                    ways["flow"] = lambda: numbered(path, tracker="flow")
                for way, run in ways.items():
                    began = time.process_time()
                    found = run()
                    spent = time.process_time() - began
                    row = dict(tracks=name, figures="textured" if textured else "flat", way=way)
                    rows.append(
                        row | id_scores(truth, found) | dict(fps=round(len(frames) / spent, 1))
                    )
                    print("  ".join(f"{k} {v}" for k, v in rows[-1].items()), flush=True)
    if options.json:
        Path(options.json).write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
