"Trackers that keep little in memory, named by their dotted paths in tests."

from stvg_nb.flow_tracker import FlowTracker
from stvg_nb.sam3 import make_sam3
from stvg_nb.video_models import make_edgetam

BUDGET = 1 << 20


def make(config, device="cpu"):
    return FlowTracker(release=config.release_after, budget=BUDGET)


def edgetam(config, device="cpu"):
    tracker = make_edgetam(config, device)
    tracker.budget = BUDGET
    return tracker


def sam3(config, device="cpu"):
    source = make_sam3(config, device)
    source.budget = BUDGET
    return source
