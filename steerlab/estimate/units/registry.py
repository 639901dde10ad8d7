"""Every method that chooses units, by the name that tables and sweeps call it.

A module of `steerlab.estimate.units` that exports `RECORDS`, a dict of names and `Method` records,
adds its methods; nothing else has to be told of them.
"""

from steerlab.core.discovery import exported
from steerlab.estimate.units.record import NEURONS, Method


def _order(method: Method) -> bool:
    """First what chooses features, then what chooses neurons."""
    return method.operators == NEURONS


METHODS: dict[str, Method] = dict(
    sorted(exported("steerlab.estimate.units", "RECORDS").items(), key=lambda item: _order(item[1]))
)
