"""Each registered part has the shape that its protocol states: methods, arguments, their order."""

import inspect

import pytest

from stvg_nb.foundations import registries as shapes
from stvg_nb.foundations.prompting_config import DETECTORS, TRACKERS
from stvg_nb.foundations.registries import misfits, named_object
from stvg_nb.foundations.sources import SOURCES
from stvg_nb.models import POLICIES, Policy
from stvg_nb.rewards import VARIANTS, reward_paths
from stvg_nb.rows import VIEWS
from stvg_nb.sessions import Session


def made_by(maker):
    "The class that a maker says it returns."
    return inspect.get_annotations(maker, eval_str=True)["return"]


@pytest.mark.parametrize("name", sorted(DETECTORS))
def test_detectors(name):
    assert misfits(DETECTORS[name], shapes.PartMaker) == []
    assert misfits(made_by(DETECTORS[name]), shapes.Detector) == []


@pytest.mark.parametrize("name", sorted(TRACKERS))
def test_trackers(name):
    assert misfits(TRACKERS[name], shapes.PartMaker) == []
    assert misfits(made_by(TRACKERS[name]), shapes.Tracker) == []


def test_every_session():
    from stvg_nb.flow_tracker import FlowSession
    from stvg_nb.sam2_tracker import Sam2Session

    for kind in (Session, FlowSession, Sam2Session):
        assert misfits(kind, shapes.Session) == []


def test_policies():
    assert misfits(Policy, shapes.Policy) == []
    for name in POLICIES:
        first, *others = inspect.signature(POLICIES[name]).parameters.values()
        assert all(p.default is not p.empty for p in others), name


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_sources(name):
    assert misfits(SOURCES[name], shapes.Source) == []


@pytest.mark.parametrize("name", sorted(VIEWS))
def test_views(name):
    assert misfits(VIEWS[name], shapes.View) == []


@pytest.mark.parametrize("path", sorted({p for v in VARIANTS for p in reward_paths(v)}))
def test_rewards(path):
    assert misfits(named_object(path), shapes.Reward) == []


def test_a_part_of_another_shape_is_told():
    class Old:
        def open(self, path, info):
            pass

    said = misfits(Old, shapes.Tracker)
    assert said[0] == "argument 1 is not 'frames'" and "asks for 'path' too" in said
