"""Detectors and trackers of transformers through `stvg prompt`, without network or ultralytics."""

import subprocess
import sys

import numpy as np
import pytest
import torch

import small_models
from stvg_nb.foundations.files import InputError
from stvg_nb.foundations.id_scores import id_scores
from stvg_nb.foundations.masks import MaskDatabase, mask_box
from stvg_nb.foundations.prompting_config import variant
from stvg_nb.foundations.settings import load_profile
from stvg_nb.foundations.video import Clip, write_video
from stvg_nb.model_detectors import ModelDetector
from stvg_nb.prompting import build_database, key_frames, report_path
from stvg_nb.sessions import textured_scene

FRAMES, _ = textured_scene(20)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("eyes")
    write_video(folder / "scene.mp4", FRAMES, 10)
    for name in ("rf_detr", "d_fine", "edgetam", "sam3"):
        getattr(small_models, name)(folder / name)
    return folder


WITHOUT = (
    "import sys; sys.modules['ultralytics'] = None; from stvg_nb.cli import main; sys.exit(main())"
)


def prompt(home, name, **settings):
    "`stvg prompt` in a process of its own in which ultralytics cannot be imported."
    output = home / f"{name}.mp4"
    words = [sys.executable, "-c", WITHOUT, "prompt", str(home / "scene.mp4")]
    words += ["--output", str(output), "--profile", "one-gpu-apache", "--set", "device=cpu"]
    for key, value in settings.items():
        words += ["--set", f"prompting.{key}={value}"]
    run = subprocess.run(words, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-3000:]
    db = output.with_name(f"{name}.masks.json.gz")
    assert report_path(db).is_file() and output.is_file()
    return MaskDatabase.open(db), run.stderr


def masks_of(db):
    "{id: {frame: (H, W) bool}}"
    return {i: {f: db.mask(i, f) for f in db.frames_of(i)} for i in db.ids}


def same(ours, theirs):
    "Are two tracks equal, mask by mask?"
    shown = {f: m for f, m in theirs.items() if m.any()}
    return set(ours) == set(shown) and all((ours[f] == m).all() for f, m in shown.items())


def library_boxes(folder, frames):
    "Boxes (n, 4) of the library's own detector on each frame, whatever their scores."
    from transformers import AutoImageProcessor, AutoModelForObjectDetection

    model = AutoModelForObjectDetection.from_pretrained(folder).eval()
    processor = AutoImageProcessor.from_pretrained(folder)
    with torch.inference_mode():
        out = model(**processor(images=frames, return_tensors="pt"))
    sizes = [f.shape[:2] for f in frames]
    found = processor.post_process_object_detection(out, threshold=0.0, target_sizes=sizes)
    return [r["boxes"].numpy() for r in found]


class LibraryLoop:
    "EdgeTAM as the library runs it: the whole video in a session, one object in it."

    def __init__(self, folder, frames):
        from transformers import EdgeTamVideoModel, Sam2VideoProcessor

        self.model = EdgeTamVideoModel.from_pretrained(folder).eval()
        self.processor, self.frames = Sam2VideoProcessor.from_pretrained(folder), frames

    def masks(self, frame, steps, **prompt):
        "{frame: (H, W) bool} from a prompt on one frame; `steps`: False forward, True backward."
        session = self.processor.init_video_session(video=list(self.frames))
        self.processor.add_inputs_to_inference_session(session, frame, 1, **prompt)
        with torch.inference_mode():
            first = self.model(session, frame_idx=frame)
            ways = dict(start_frame_idx=frame)
            runs = [
                self.model.propagate_in_video_iterator(session, **ways, reverse=r) for r in steps
            ]
            outs = [first, *(o for run in runs for o in run)]
        low, sizes = [o.pred_masks for o in outs], [(96, 128)] * len(outs)
        full = self.processor.post_process_masks(low, sizes)
        return {o.frame_idx: m[0, 0].numpy() for o, m in zip(outs, full)}

    def track(self, frame, box):
        "Both ways from the mask of a box."
        mask = self.masks(frame, [], input_boxes=[[box.tolist()]])[frame]
        back = [self.masks(frame, [True], input_masks=mask)] if frame else []
        ways = [*back, self.masks(frame, [False], input_masks=mask)]
        return {f: m for way in ways for f, m in way.items()}


@pytest.mark.parametrize("eye", ["rf_detr", "d_fine"])
def test_a_detector_and_edgetam_number_a_video_as_the_library_would(home, eye):
    parts = dict(detector_weights=home / eye, tracker_weights=home / "edgetam")
    every = dict(confidence=0.0, classes="all", duplicate_iou=1.0, new_iou=1.0, new_overlap=1.0)
    db, said = prompt(home, eye, **parts, **every)
    assert f"detector transformers:{eye}@" in said and "tracker edgetam:edgetam@" in said
    assert {db.info(i)["label"] for i in db.ids} <= {"Person", "dog"}
    assert {db.info(i)["source"] for i in db.ids} == {"first", "new"}
    frames, keys = Clip.read(home / "scene.mp4").frames, key_frames(20, 15)
    boxes = library_boxes(home / eye, [frames[k] for k in keys])
    loop = LibraryLoop(home / "edgetam", frames)
    tracks = [loop.track(k, box.astype(float)) for k, found in zip(keys, boxes) for box in found]
    ours = masks_of(db)
    print(eye, len(ours), "objects,", sum(map(len, ours.values())), "masks")
    assert all(any(same(own, track) for track in tracks) for own in ours.values())


def test_sam3_numbers_a_video_from_words(home):
    parts = dict(tracker="sam3", tracker_weights=home / "sam3", classes="'dog, person'")
    db, said = prompt(home, "words", **parts)
    assert "detector none: sam3 finds what it tracks" in said and "tracker sam3:sam3@" in said
    assert len(db) and {db.info(i)["label"] for i in db.ids} <= {"dog", "person"}
    assert db.ids == list(range(1, len(db) + 1))


def test_an_unknown_class_is_named_before_the_video_is_tracked(home):
    parts = dict(detector="transformers", detector_weights=str(home / "rf_detr"), tracker="flow")
    config = variant(**parts, classes="person, cat")
    with pytest.raises(InputError, match="has no class 'cat'"):
        build_database(home / "scene.mp4", config)


def test_weights_of_a_tracker_are_no_detector(home):
    with pytest.raises(InputError, match="an object detector"):
        ModelDetector(home / "edgetam")


def test_the_apache_profile_names_no_ultralytics():
    config = load_profile("one-gpu-apache").prompting
    assert (config.detector, config.tracker) == ("transformers", "edgetam")
    assert "yolo" not in f"{config.detector_weights} {config.tracker_weights}".lower()


def test_silhouettes_keep_two_who_cross_apart(tmp_path):
    rng, frames, truth = np.random.default_rng(0), [], {}
    wall = rng.integers(90, 130, (96, 160, 1)) + np.array([8, 0, -8])
    for t in range(46):
        image = wall + rng.integers(-2, 3, wall.shape)
        image[30:70, max(3 * t - 8, 0) : max(3 * t + 8, 0)] = (220, 40, 50)
        image[34:74, max(132 - 3 * t, 0) : max(148 - 3 * t, 0)] = (40, 70, 220)
        frames.append(image.clip(0, 255).astype(np.uint8))
        boxes = dict(red=[3 * t - 8, 30, 3 * t + 8, 70], blue=[132 - 3 * t, 34, 148 - 3 * t, 74])
        clipped = {name: np.clip(box, 0, [160, 96, 160, 96]) for name, box in boxes.items()}
        truth[t] = {name: box.astype(float) for name, box in clipped.items() if box[2] > box[0]}
    write_video(tmp_path / "crossing.mp4", frames, 10)
    config = variant(detector="motion", tracker="silhouettes")
    db, _ = build_database(tmp_path / "crossing.mp4", config)
    assert db.config["tracker"] == "silhouettes"
    found = {t: {i: mask_box(m) for i, m in db.at(t).items()} for t in range(46)}
    score = id_scores(truth, found)
    assert score["recall"] > 0.8 and score["idf1"] > 0.7, score
    with pytest.raises(InputError, match="needs the detector 'motion'"):
        build_database(tmp_path / "crossing.mp4", config, detector=lambda frames: [])
