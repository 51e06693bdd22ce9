"""`import stvg_nb`: what it costs, what it offers, and that it needs no package of the extras."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HEAVY = ("torch", "cv2", "av", "pandas", "matplotlib", "transformers", "numpy")
OFFERED = ("evaluate", "explore", "ground", "number", "predict")
# the AGPL packages, and the workbench
BLOCKED = ("ultralytics", "jupyterlab", "notebook", "ipywidgets", "papermill", "nbdev")


def python(code, *argv, folder=ROOT, blocked=()):
    "What a fresh interpreter prints, some packages hidden from it."
    hide = f"""
import sys
class Without:
    def __init__(self, finder):
        self.finder = finder
    def __getattr__(self, name):  # the names of installed distributions
        return getattr(self.finder, name)
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in {blocked!r}:
            return self.finder.find_spec(name, path, target)
sys.meta_path[:] = map(Without, sys.meta_path)
"""
    env = os.environ | {"PYTHONPATH": str(ROOT), "STVG_RUNS": str(Path(folder) / "runs")}
    command = [sys.executable, "-c", (hide if blocked else "") + code, *map(str, argv)]
    out = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=env)
    assert out.returncode == 0, out.stderr
    return out.stdout


def test_the_import_is_light():
    code = f"import sys, stvg_nb; print([m for m in {HEAVY} if m in sys.modules], len(sys.modules))"
    heavy, count = python(code).rsplit(" ", 1)
    assert heavy == "[]" and int(count) < 350


def test_what_is_offered_can_be_called_and_needs_no_torch_to_be_named():
    code = f"""import inspect, sys, stvg_nb
print(sorted(n for n in dir(stvg_nb) if n in {OFFERED}))
print([list(inspect.signature(getattr(stvg_nb, n)).parameters)[0] for n in {OFFERED}])
print("torch" in sys.modules, stvg_nb.ground.render_answer.__name__)"""
    listed, first, light = python(code).splitlines()
    assert listed == str(list(OFFERED))
    assert first == "['benchmark', 'benchmark', 'video', 'video', 'output']"
    assert light == "False render_answer"


def test_the_modules_keep_their_names():
    code = """import stvg_nb.predict as module
from stvg_nb.predict import predict, predict_files
print(module.predict is predict, callable(module), module.__name__)"""
    assert python(code) == "True True stvg_nb.predict\n"


@pytest.mark.slow
def test_numbering_and_asking_need_neither_ultralytics_nor_jupyter(tmp_path):
    code = """import sys
from stvg_nb.cli import main
small = ["--set", "sampling.longer_side=56", "--set", "sampling.max_frames=4", "--quiet"]
weightless = ["--set", "prompting.detector=motion", "--set", "prompting.tracker=flow"]
made = ["puppets", "--output", "clips", "--count", "1", "--quiet"]
clip = "clips/videos/puppets_stage_test_00000.mp4"
asked = ["ground", clip, "The puppet waves.", "--model", "embedded:grpo-0", "--output", "a.jsonl"]
asked += ["--database", "clip.masks.json.gz", "--profile", "smoke", *weightless, *small]
print(main(made), main(asked), [m for m in BLOCKED if m in sys.modules])"""
    shown = python(f"BLOCKED = {BLOCKED}\n" + code, folder=tmp_path, blocked=BLOCKED)
    assert shown.splitlines()[-1] == "0 0 []"
    assert (tmp_path / "clip.masks.json.gz").is_file() and (tmp_path / "a.jsonl").is_file()


def test_a_first_look_through_a_detector_says_nothing_of_its_own(tmp_path, monkeypatch):
    "Ultralytics greets whoever has no settings file of it; an answer on stdout stays alone there."
    for name in ("YOLO_VERBOSE", "YOLO_CONFIG_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    code = """import numpy as np
from stvg_nb.foundations.files import package_dir
from stvg_nb.detectors import YoloDetector
eye = YoloDetector(package_dir() / "weights/puppets-yolo12n.pt")
print(len(eye([np.zeros((64, 64, 3), np.uint8)])))"""
    assert python(code) == "1\n"
    assert [*tmp_path.rglob("settings.json")], "ultralytics made none: the test shows nothing"
