"""Shared by all tests: offline, one thread, real annotations and real videos where at hand."""

import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("YOLO_OFFLINE", "true")

import pytest
from hypothesis import settings

settings.register_profile("stvg", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("stvg")

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "tests/data"
OPENCV_DATA = Path("/usr/share/doc/opencv-doc/examples/data")
NO_ANNOTATIONS = "the benchmarks' own annotation files are not at hand (STVG_SHARED_DATA)"


def shared_data():
    "Folder that holds `annotations/` with the benchmarks' own files, or None."
    folder = Path(os.environ.get("STVG_SHARED_DATA") or ROOT.parent / "shared/data")
    return folder if (folder / "annotations").is_dir() else None


@pytest.fixture(scope="session")
def annotations():
    "Folder of real annotation files: test inputs that are not part of the project."
    if shared_data() is None:
        pytest.skip(NO_ANNOTATIONS)
    return shared_data() / "annotations"


@pytest.fixture(scope="session")
def opencv_data():
    "Real videos of Debian's package opencv-doc."
    if not (OPENCV_DATA / "vtest.avi").is_file():
        pytest.skip("Debian package opencv-doc is not installed")
    return OPENCV_DATA


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    "With STVG_NO_SKIP a skipped test has failed, unless it needs files that no clone can have."
    outcome = yield
    report = outcome.get_result()
    if os.environ.get("STVG_NO_SKIP") and report.skipped and not hasattr(report, "wasxfail"):
        reason = (
            str(report.longrepr[-1]) if isinstance(report.longrepr, tuple) else str(report.longrepr)
        )
        if NO_ANNOTATIONS in reason and shared_data() is None:
            return
        report.outcome, report.longrepr = "failed", f"skipped where nothing may be: {reason}"


def pytest_collection_modifyitems(config, items):
    "Ray's clusters, weights in parts, lmms-eval where they are asked for, by steps of .ci/run."
    steps = ("ray", "sharding", "lmms")
    apart = [name for name in steps if not os.environ.get(f"STVG_{name.upper()}")]
    asked = [item for item in items if not any(map(item.get_closest_marker, apart))]
    config.hook.pytest_deselected(items=[item for item in items if item not in asked])
    items[:] = asked
