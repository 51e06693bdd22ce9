"""Detectors and trackers of transformers through `stvg prompt`, without network or ultralytics."""

import subprocess
import sys

import pytest

import small_models
from stvg_nb.foundations.files import InputError
from stvg_nb.foundations.masks import MaskDatabase
from stvg_nb.foundations.prompting_config import variant
from stvg_nb.foundations.settings import load_profile
from stvg_nb.foundations.video import write_video
from stvg_nb.model_detectors import ModelDetector
from stvg_nb.prompting import build_database, report_path
from stvg_nb.sessions import textured_scene

FRAMES, _ = textured_scene(20)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("eyes")
    write_video(folder / "scene.mp4", FRAMES, 10)
    for name in ("rf_detr", "edgetam", "sam3"):
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


def test_rf_detr_and_edgetam_number_a_video(home):
    parts = dict(detector_weights=home / "rf_detr", tracker_weights=home / "edgetam")
    db, said = prompt(home, "apache", **parts, confidence=0.0, classes="all", new_iou=0.9)
    assert "detector transformers:rf_detr@" in said and "tracker edgetam:edgetam@" in said
    assert len(db) and {o["label"] for o in db.objects.values()} <= {"Person", "dog"}


def test_sam3_numbers_a_video_from_words(home):
    parts = dict(tracker="sam3", tracker_weights=home / "sam3", classes="'dog, person'")
    db, said = prompt(home, "words", **parts)
    assert "detector none: sam3 finds what it tracks" in said and "tracker sam3:sam3@" in said
    assert len(db) and {o["label"] for o in db.objects.values()} <= {"dog", "person"}
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
