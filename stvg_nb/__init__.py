__version__ = "0.2.0"

from .foundations.lazy import offer

offer(
    __name__,
    ground="stvg_nb.front.ground",
    number="stvg_nb.front.number",
    predict="stvg_nb.front.predict",
    evaluate="stvg_nb.front.evaluate",
    explore="stvg_nb.front.explore",
)
