"Memory of numbering does not grow with the length of a video, and is a few frames of a large one."

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import small_models
from stvg_nb.foundations.video import write_video

MEASURE = """
import sys
from stvg_nb.cli import main
from stvg_nb.foundations.files import peak_bytes
assert main(sys.argv[1:]) == 0
print(peak_bytes(), file=sys.stderr)
"""


def _video(path, n_frames, height=48, width=64):
    def frames():
        for t in range(n_frames):
            image = np.full((height, width, 3), 90, np.uint8)
            x = int((width - 12) * (0.5 + 0.5 * np.sin(t / 20)))
            image[14 : height - 14, x : x + 10] = (200, 40, 40)
            yield image

    return write_video(path, frames(), 10, preset="ultrafast")


def _peak(folder, n_frames, size=(48, 64), **settings):
    "MiB that `stvg prompt` holds at most."
    _video(folder / f"{n_frames}.mp4", n_frames, *size)
    argv = ["prompt", folder / f"{n_frames}.mp4", "--output", folder / f"{n_frames}-out.mp4"]
    argv += ["--quiet"]
    for key, value in (dict(tracker="small_budget.make") | settings).items():
        argv += ["--set", f"prompting.{key}={value}"]
    paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | dict(PYTHONPATH=os.pathsep.join(filter(None, paths)))
    command = [sys.executable, "-c", MEASURE, *map(str, argv)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder)
    assert done.returncode == 0, done.stderr
    return int(done.stderr.split()[-1]) / 2**20


@pytest.mark.slow
def test_memory_of_numbering_does_not_grow_with_the_video(tmp_path, monkeypatch):
    monkeypatch.setenv("STVG_RUNS", str(tmp_path / "runs"))
    short, long = _peak(tmp_path, 120), _peak(tmp_path, 1200)
    kept = 1080 * 48 * 64 * 3 / 2**20  # MiB: the frames themselves, were they all held
    assert long - short < kept, (short, long)


@pytest.mark.slow
def test_memory_of_an_8k_video_is_that_of_a_few_frames(tmp_path, monkeypatch):
    monkeypatch.setenv("STVG_RUNS", str(tmp_path / "runs"))
    frame = 4320 * 7680 * 3 / 2**20  # MiB; a model of the background at this size takes 33 of them
    assert _peak(tmp_path, 3, (4320, 7680)) - _peak(tmp_path, 4) < 16 * frame


@pytest.mark.slow
@pytest.mark.parametrize("name", ["edgetam", "sam3"])
def test_memory_of_models_does_not_grow_with_the_video(name, tmp_path, monkeypatch):
    monkeypatch.setenv("STVG_RUNS", str(tmp_path / "runs"))
    tracker, size = getattr(small_models, name)(tmp_path / name), (240, 320)
    parts = dict(tracker=f"small_budget.{name}", tracker_weights=tracker)
    if name == "edgetam":
        eye = small_models.rf_detr(tmp_path / "rf_detr")
        parts |= dict(detector="transformers", detector_weights=eye, confidence=0.0)
        parts |= dict(redetect_every=0)  # with random weights each look finds more objects
    short, long = (_peak(tmp_path, n, size, **parts) for n in (60, 240))
    kept = 180 * size[0] * size[1] * 3 / 2**20  # MiB: the frames themselves, were they all held
    print(f"{name}: {short:.0f} MiB at 60 frames, {long:.0f} at 240; the frames are {kept:.0f}")
    assert long - short < kept / 2
