"""Small made-up videos in the real lay-outs of HC-STVG, VidSTG and MeViS: `python tests/data/road/make.py`.

Two squares move over a still background, one red and one blue. Everything is drawn, nothing is of others."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from stvg_nb.foundations.masks import encode_mask
from stvg_nb.foundations.video import write_video

HERE = Path(__file__).resolve().parent
W, H, T, SIDE = 96, 64, 40, 20


def place(k, t):  # left, top of square k on frame t
    return (4 + 1.6 * t, 8) if k == 0 else (72 - 1.6 * t, 36)


def boxes(k, frames):  # xyxy
    corners = [[int(v) for v in place(k, t)] for t in frames]
    return [[x, y, x + SIDE, y + SIDE] for x, y in corners]


def frame(t, colours):
    rng = np.random.default_rng(7)
    out = rng.integers(90, 110, (H, W, 3)).astype(np.uint8)
    for k, colour in enumerate(colours):
        ((x1, y1, x2, y2),) = boxes(k, [t])
        out[y1:y2, x1:x2] = colour
    return out


COLOURS = [((220, 40, 40), (40, 60, 220)), ((230, 200, 40), (40, 180, 60))]
NAMES = [("red", "blue"), ("yellow", "green")]


def write_json(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1) + "\n")


def hcstvg():
    root = HERE / "hcstvg"
    records = {}
    for v, colours in enumerate(COLOURS):
        write_video(root / "videos" / f"{v}_clip.mp4", (frame(t, colours) for t in range(T)), 10)
        start, stop = 10 + 4 * v, 30
        some = boxes(0, range(start, stop))
        records[f"{v}_clip.mp4"] = dict(
            bbox=[[x1, y1, x2 - x1, y2 - y1] for x1, y1, x2, y2 in some],
            st_frame=start + 1,
            img_num=T,
            st_time=start / 2,
            ed_time=stop / 2,
            img_size=[H, W, 3],
            caption=f"The {NAMES[v][0]} square moves to the right.",
        )
    write_json(root / "v1_train.json", records)
    write_json(root / "v1_test.json", {k: records[k] for k in list(records)[1:]})


def vidstg():
    root = HERE / "vidstg"
    sentences, vidor = [], {}
    for v, colours in enumerate(COLOURS):
        vid = f"{100 + v}"
        write_video(root / "videos" / f"{vid}.mp4", (frame(t, colours) for t in range(T)), 10)
        trajectories = []
        for t in range(T):
            here = []
            for k in range(2):
                ((x1, y1, x2, y2),) = boxes(k, [t])
                corners = dict(xmin=x1, ymin=y1, xmax=x2, ymax=y2)
                here.append(dict(tid=k, bbox=corners, generated=0, tracker="none"))
            trajectories.append(here)
        things = [dict(tid=k, category="toy") for k in range(2)]
        size = dict(frame_count=T, fps=10.0, width=W, height=H)
        vidor[vid] = dict(video_id=vid, video_path=f"{vid}.mp4", trajectories=trajectories)
        vidor[vid] |= size | {"subject/objects": things, "relation_instances": []}
        record = dict(vid=vid, **size)
        record["subject/objects"] = things
        record["used_segment"] = dict(begin_fid=0, end_fid=T - 1)
        relation = dict(subject_tid=0, object_tid=1, predicate="toward")
        record["used_relation"] = relation | dict(begin_fid=10, end_fid=30)
        record["temporal_gt"] = dict(begin_fid=10, end_fid=30)
        text = f"the {NAMES[v][0]} toy moves toward the {NAMES[v][1]} toy"
        record["captions"] = [dict(description=text, type=0, target_id=0)]
        text = f"what moves toward the {NAMES[v][1]} toy?"
        record["questions"] = [dict(description=text, type=0, target_id=0)]
        sentences.append(record)
    write_json(root / "train_annotations.json", sentences)
    write_json(root / "val_annotations.json", sentences[1:])
    write_json(root / "vidor.json", vidor)


def mevis():
    root = HERE / "mevis" / "valid_u"
    videos, masks = {}, {}
    for v, colours in enumerate(COLOURS):
        name, frames = f"vid{v:04d}", range(0, T, 2)
        folder = root / "JPEGImages" / name
        folder.mkdir(parents=True, exist_ok=True)
        for i, t in enumerate(frames):
            Image.fromarray(frame(t, colours)).save(folder / f"{i:05d}.jpg", quality=90)
        (folder / "fps.txt").write_text("5\n")
        for k in range(2):
            codes = []
            for t in frames:
                ((x1, y1, x2, y2),) = boxes(k, [t])
                mask = np.zeros((H, W), bool)
                mask[y1:y2, x1:x2] = True
                codes.append(dict(size=[H, W], counts=encode_mask(mask)))
            masks[str(10 * v + k)] = codes
        one = dict(exp=f"the {NAMES[v][0]} square moving right", obj_id=[0], anno_id=[10 * v])
        both = dict(exp="the squares that move", obj_id=[0, 1], anno_id=[10 * v, 10 * v + 1])
        names = [f"{i:05d}" for i in range(len(frames))]
        videos[name] = dict(expressions={"0": one, "1": both}, frames=names)
    write_json(root / "meta_expressions.json", dict(videos=videos))
    write_json(root / "mask_dict.json", masks)


if __name__ == "__main__":
    hcstvg()
    vidstg()
    mevis()
