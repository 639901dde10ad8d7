"""Every estimator and variant by a name of its own, as tables and sweeps call them.

A module of `steerlab.estimate` that exports `RECORDS`, a dict of names and `Estimator` records,
adds its estimators; nothing else has to be changed.
"""

from steerlab.core.directions import Directions
from steerlab.core.discovery import exported
from steerlab.core.errors import SteerlabError
from steerlab.core.moments import Moments
from steerlab.estimate.record import Estimator

# A fit's `estimator` is its name here.
VARIANTS: dict[str, Estimator] = exported("steerlab.estimate", "RECORDS")


def variant(name: str) -> Estimator:
    """The record of this name; any other name raises, with the list of those that there are."""
    if name not in VARIANTS:
        raise SteerlabError(f"there is no estimator {name!r}; there are {', '.join(VARIANTS)}")
    return VARIANTS[name]


def fit(name: str, moments: Moments, *, source: str = "en") -> Directions:
    """Estimate directions by an estimator's or a variant's name.

    Args:
        name: a key of `VARIANTS`.
        moments: what is estimated from.
        source: the source language, for estimators that set the target against others.
    """
    return variant(name).fit(moments, source=source)
