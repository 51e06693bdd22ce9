"""Scoring speed: vIoU with STCAT's arithmetic against a loop over frames, J&F against the dense definition.

python bench/evaluate.py [--quick] [--device cpu] [--json FILE]
"""

import math

from common import alternate, finish, parse_arguments
import cv2
import numpy as np

from stvg_nb.foundations.geometry import Tube
from stvg_nb.foundations.boundaries import frame_jf
from stvg_nb.foundations.predictions import box_array, box_table
from stvg_nb.foundations.tube_scores import score_tubes

cv2.setNumThreads(1)
VIDEOS, FRAMES = 2000, 600


# ---- vIoU: 2,000 videos of 600 frames, predictions sampled at 6.4 frames a second and interpolated to every frame -----------
def sampled(rate=6.4 / (FRAMES / 20)):
    ids = [0]
    for f in range(FRAMES - 1):
        if int(ids[-1] * rate) < int(f * rate):
            ids.append(f)
    return np.array(ids + [FRAMES - 2] * (ids[-1] != FRAMES - 2))


def make_tubes(seed=0):
    "Annotation and prediction records as JSON gives them."
    rng, ids, annotations, predictions = np.random.default_rng(seed), sampled(), {}, {}
    for i in range(VIDEOS):
        n = int(rng.integers(150, 500))
        first = int(rng.integers(0, FRAMES - n))
        corner, size = np.cumsum(rng.normal(0, 1, (n, 2)), 0) + 200, rng.uniform(60, 90, (n, 2))
        annotations[f"{i}.mp4"] = {
            "st_frame": first + 1,
            "img_num": FRAMES,
            "bbox": np.round(np.c_[corner, size], 1).tolist(),
        }
        nearest = np.clip(ids - first, 0, n - 1)
        boxes = np.round(
            np.c_[corner[nearest], corner[nearest] + size[nearest]]
            + rng.normal(0, 5, (len(ids), 4)),
            2,
        )
        start, end = sorted(rng.choice(ids, 2, replace=False).tolist())
        predictions[f"{i}.mp4"] = {
            "start_frame": start,
            "end_frame": end + 1,
            "boxes": dict(zip(map(str, ids.tolist()), boxes.tolist())),
        }
    return annotations, predictions


def box_iou(a, b):
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    inter = width * height
    return inter / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter)


def fill(given):
    "Boxes on every frame between the first and the last given one, linear per coordinate."
    boxes, keys = {}, sorted(given)
    for f0, f1 in zip(keys, keys[1:]):
        b0, b1 = given[f0], given[f1]
        for f in range(f0, f1):
            t = (f - f0) / (f1 - f0)
            boxes[f] = [u + (v - u) * t for u, v in zip(b0, b1)]
    boxes[keys[-1]] = given[keys[-1]]
    return boxes


def checked(box):
    "Both ways refuse a box that is not four finite numbers."
    a, b, c, d = box
    if not math.isfinite(a + b + c + d):
        raise ValueError(box)
    return box


def score_one(record, answer):
    first = record["st_frame"] - 1
    last = min(first + len(record["bbox"]) - 1, record["img_num"] - 1)
    truth = {
        first + i: [x, y, x + w, y + h]
        for i, (x, y, w, h) in enumerate(map(checked, record["bbox"]))
    }
    boxes = fill({int(f): checked(box) for f, box in answer["boxes"].items()})
    start, end = answer["start_frame"], answer["end_frame"]
    low, high = max(first, start), min(last, end)
    inter = max(high - low, 0)
    inside = total = 0.0
    for f in range(first, last + 1):
        if f not in boxes:
            continue
        iou = box_iou(truth[f], boxes[f])
        total += iou
        if low <= f < high:
            inside += iou
    hull = max(max(last, end) - min(first, start), 1)
    return (
        inter / max(last - first + end - start - inter, 1),
        inside / hull,
        total / max(last - first + 1, 1),
    )


def loop(annotations, predictions):
    return np.array([score_one(record, predictions[key]) for key, record in annotations.items()]).T


def to_tubes(records, answers):
    truths, tubes = [], []
    for record, answer in zip(records, answers):
        boxes, first = (
            box_array(record["bbox"], lambda i: f"bbox, box {i}").copy(),
            record["st_frame"] - 1,
        )
        left, top, right, bottom = boxes.T
        right += left
        bottom += top  # xywh to xyxy
        truths.append(
            Tube(
                first,
                min(first + len(boxes), record["img_num"]) - 1,
                np.arange(first, first + len(boxes)),
                boxes,
            )
        )
        tubes.append(
            Tube(answer["start_frame"], answer["end_frame"], *box_table(answer["boxes"], "boxes"))
        )
    return truths, tubes


def at_once(annotations, predictions):
    "As `evaluate` does it: 8 samples at a time, from records to scores."
    keys, parts = list(annotations), []
    for part in (keys[i : i + 8] for i in range(0, len(keys), 8)):
        truths, tubes = to_tubes([annotations[k] for k in part], [predictions[k] for k in part])
        scores = score_tubes(truths, tubes, "stcat", [True] * len(part))
        parts.append([scores[k] for k in ("tiou", "viou", "siou")])
    return np.concatenate(parts, 1)


# ---- J&F: the definition on the whole frame ---------------------------------------------------------------------------------
def dense_boundary(mask):
    edge = np.zeros_like(mask)
    edge[:, :-1] |= mask[:, :-1] ^ mask[:, 1:]
    edge[:-1] |= mask[:-1] ^ mask[1:]
    edge[:-1, :-1] |= mask[:-1, :-1] ^ mask[1:, 1:]
    return edge


def dense_jf(pred, gt):
    h, w = pred.shape
    radius = math.ceil(0.008 * math.sqrt(h * h + w * w))
    y = np.arange(-radius, radius + 1)
    disk = (y[:, None] ** 2 + y**2 <= radius**2).astype(np.uint8)
    inter, union = np.count_nonzero(pred & gt), np.count_nonzero(pred | gt)
    p, g = dense_boundary(pred), dense_boundary(gt)
    n_p, n_g = np.count_nonzero(p), np.count_nonzero(g)
    hit_p = np.count_nonzero(p & cv2.dilate(g.view(np.uint8), disk).view(bool))
    hit_g = np.count_nonzero(g & cv2.dilate(p.view(np.uint8), disk).view(bool))
    J = inter / union if union else 1.0
    if not n_p or not n_g:
        return J, float(n_p == n_g)
    precision, recall = hit_p / n_p, hit_g / n_g
    return J, 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def person(h, w, rng):
    "A made-up walking figure whose box takes about 4 percent of the frame."
    mask, s, x, y = (
        np.zeros((h, w), np.uint8),
        h * rng.uniform(0.38, 0.44),
        rng.uniform(0.2, 0.8) * w,
        rng.uniform(0.45, 0.55) * h,
    )
    cv2.ellipse(
        mask, (int(x), int(y)), (int(0.16 * s), int(0.3 * s)), rng.uniform(-15, 15), 0, 360, 1, -1
    )
    cv2.circle(mask, (int(x), int(y - 0.4 * s)), int(0.1 * s), 1, -1)
    for side in (-1, 1):
        cv2.line(
            mask,
            (int(x), int(y + 0.2 * s)),
            (int(x + side * rng.uniform(0.05, 0.25) * s), int(y + 0.5 * s)),
            1,
            max(1, int(0.08 * s)),
        )
    return mask.astype(bool)


def persons(h, w, n=40, seed=0):
    "Pairs of truth and a prediction that is shifted by up to five pixels and grown or shrunk by up to two."
    rng, pairs = np.random.default_rng(seed), []
    for _ in range(n):
        gt = person(h, w, rng)
        moved = np.roll(gt, rng.integers(-5, 6, 2), (0, 1)).astype(np.uint8)
        change, k = rng.choice([cv2.dilate, cv2.erode]), 2 * int(rng.integers(0, 3)) + 1
        pairs.append((change(moved, np.ones((k, k), np.uint8)).astype(bool), gt))
    return pairs


def full_frames(h, w, n=10, seed=1):
    "Masks that fill the frame: full but for small holes, and large blobs everywhere."
    rng, pairs = np.random.default_rng(seed), []
    for i in range(n):
        if i % 2:
            noise = cv2.GaussianBlur(rng.standard_normal((h, w)).astype(np.float32), (0, 0), 25)
            pairs.append((noise > 0, noise > 0.2 * noise.std()))
        else:
            gt = np.ones((h, w), bool)
            gt[20:40, 30:60] = gt[-1, -1] = gt[0, 0] = False
            pairs.append((np.roll(gt, (2, 3), (0, 1)), gt))
    return pairs


def edge_cases():
    rng, sizes = (
        np.random.default_rng(2),
        [(1, 1), (1, 9), (7, 1), (2, 2), (31, 47), (120, 90), (360, 640)],
    )
    kinds = [
        lambda s: np.zeros(s, bool),
        lambda s: np.ones(s, bool),
        lambda s: rng.random(s) < 0.5,
        lambda s: rng.random(s) < 0.01,
    ]
    return [(a(s), b(s)) for s in sizes for a in kinds for b in kinds]


def tubes(repeats):  # -> (largest difference, times)
    annotations, predictions = make_tubes()
    difference = float(
        np.abs(at_once(annotations, predictions) - loop(annotations, predictions)).max()
    )
    return difference, alternate(
        lambda: at_once(annotations, predictions), lambda: loop(annotations, predictions), repeats
    )


def main():
    arguments = parse_arguments(__doc__)
    repeats, ratios, equal = (1 if arguments.quick else 7), {}, {}
    equal["viou_max_abs"], ratios["viou_vs_loop"] = tubes(repeats)
    sets = {
        "jf_vs_dense_480p": persons(480, 854),
        "jf_vs_dense_720p": persons(720, 1280, 20),
        "jf_vs_dense_1080p": persons(1080, 1920, 10),
        "jf_vs_dense_full_frame": full_frames(480, 854),
        "edge_cases": edge_cases(),
    }
    equal["jf_max_abs"] = max(
        abs(a - b)
        for pairs in sets.values()
        for pair in pairs
        for a, b in zip(frame_jf(*pair), dense_jf(*pair))
    )
    for name in list(sets)[:4]:
        several = sets[name] * 5  # a repeat is long enough for the clock
        ratios[name] = alternate(
            lambda: [frame_jf(*pair) for pair in several],
            lambda: [dense_jf(*pair) for pair in several],
            repeats,
        )
    ok = equal["viou_max_abs"] <= 1e-9 and equal["jf_max_abs"] == 0
    counts = {"videos": VIDEOS, "frames": FRAMES, "masks_480p": len(sets["jf_vs_dense_480p"])}
    finish(
        "evaluate",
        arguments,
        ratios,
        equal,
        ok,
        ("numpy", "opencv-python-headless", "pycocotools"),
        counts=counts,
    )


if __name__ == "__main__":
    main()
