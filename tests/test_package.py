"""The wheel, installed into an empty folder and used from another: it holds all that it reads."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from email.parser import HeaderParser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HCSTVG = ROOT / "tests/data/hcstvg"
BUILT_FROM = ("stvg_nb", "pyproject.toml", "README.md", "LICENSE", "LICENSES", "NOTICE")
# what the package does without: packages of the extras
EXTRAS = (
    "trl accelerate datasets tensorboard ultralytics jupyterlab papermill nbdev ipywidgets psutil"
)

pytestmark = pytest.mark.slow


def pip(*arguments):
    command = [sys.executable, "-m", "pip", *map(str, arguments), "--quiet", "--no-deps"]
    subprocess.run([*command, "--no-index", "--disable-pip-version-check"], check=True)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    "Built from a copy, so that no build/ is left in the checkout."
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in BUILT_FROM:
        if (ROOT / name).is_dir():
            shutil.copytree(
                ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__")
            )
        else:
            shutil.copy(ROOT / name, source)
    pip("wheel", "--no-build-isolation", "--wheel-dir", out, source)
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    folder = tmp_path_factory.mktemp("an empty folder")
    pip("install", "--target", folder, wheel)
    return folder


@pytest.fixture(scope="module")
def run(installed, tmp_path_factory):
    "Run Python with that folder alone in front, from a folder that is no checkout."
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("STVG_")}
    environment["PYTHONPATH"] = str(installed)

    def run(*arguments):
        command = [sys.executable, *map(str, arguments)]
        out = subprocess.run(
            command, cwd=elsewhere, env=environment, capture_output=True, text=True
        )
        assert out.returncode == 0, out.stderr
        return out.stdout

    return run


def metadata(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [n for n in archive.namelist() if n.endswith(".dist-info/METADATA")]
        return HeaderParser().parsestr(archive.read(name).decode())


def test_the_wheel_holds_every_file_of_the_package(installed):
    ours = {
        p.relative_to(ROOT): p.read_bytes()
        for p in (ROOT / "stvg_nb").rglob("*")
        if p.is_file() and "__pycache__" not in p.parts
    }
    assert len(ours) > 100
    assert [n for n, content in ours.items() if (installed / n).read_bytes() != content] == []


def test_the_wheel_says_under_which_licences_it_is(wheel):
    told = metadata(wheel)
    assert told["License-Expression"] == "Apache-2.0 AND AGPL-3.0-only"
    texts = {"LICENSE", "NOTICE", "LICENSES/AGPL-3.0-only.txt"}
    assert set(told.get_all("License-File")) == texts
    with zipfile.ZipFile(wheel) as archive:
        names = {n.partition(".dist-info/licenses/")[2] for n in archive.namelist()}
    assert texts <= names


def test_import_profiles_weights_and_reported_numbers(run, installed):
    code = """
import json, stvg_nb
from stvg_nb.core import load_profile, package_dir, profiles
print(json.dumps({
    "file": stvg_nb.__file__,
    "profiles": {name: load_profile(name).name for name in profiles()},
    "weights": sorted(p.parent.name for p in (package_dir() / "weights").glob("*/provenance.json")),
    "reported": (package_dir() / "data/reported.csv").read_text(encoding="utf-8"),
    "typed": (package_dir() / "py.typed").is_file(),
}))
"""
    told = json.loads(run("-c", code))
    assert Path(told["file"]).is_relative_to(installed) and told["typed"]
    assert {"smoke", "tiny", "one-gpu", "a100", "a100-dry"} <= set(told["profiles"])
    assert all(k == v for k, v in told["profiles"].items())
    assert "policy-base" in told["weights"] and len(told["weights"]) > 15
    assert told["reported"] == (ROOT / "papers/reported.csv").read_text(encoding="utf-8")


def test_the_package_imports_without_its_extras(run):
    code = f"""
import importlib, pkgutil, sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {EXTRAS.split()}:
            raise ImportError(name)
sys.meta_path.insert(0, Missing())
import stvg_nb
names = [m.name for m in pkgutil.walk_packages(stvg_nb.__path__, "stvg_nb.")]
for name in names:
    if name != "stvg_nb.video_trainers":  # TRL's own trainer is its base class
        importlib.import_module(name)
print(len(names))
"""
    assert int(run("-c", code)) > 20


def test_the_command_line_outside_a_checkout(run, installed, tmp_path):
    stvg = installed / "bin/stvg"
    assert "usage: stvg" in run(stvg, "--help")
    boxes = json.loads((HCSTVG / "predictions_all_frames_0based_xyxy.json").read_text())
    lines = [{"schema": "stvg.predictions/1", "benchmark": "hcstvg", "task": "stvg"}]
    for key, found in boxes.items():
        start, end = found["sted"]
        line = dict(key=key, start_frame=start, end_frame=end)
        lines.append(line | {"boxes": {str(k): box for k, box in enumerate(found["boxes"])}})
    predictions = tmp_path / "predictions.jsonl"
    predictions.write_text("".join(json.dumps(line) + "\n" for line in lines))
    command = ["evaluate", "--benchmark", "hcstvg", "--annotations", HCSTVG / "v1_test.json"]
    out = run(stvg, *command, "--predictions", predictions, "--json", "--quiet")
    expected = json.loads((HCSTVG / "expected_clean.json").read_text())["metrics"]
    measured = json.loads(out)["metrics"]
    shared = set(measured) & set(expected)
    assert {"m_tiou", "m_viou"} <= shared
    assert {k: measured[k] for k in shared} == pytest.approx(
        {k: expected[k] for k in shared}, abs=1e-9
    )
