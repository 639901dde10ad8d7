"""Every method that chooses units, by the name that tables and sweeps call it.

A module of `steerlab.estimate.units` that exports `RECORDS`, a dict of names and `Method` records,
adds its methods; nothing else has to be changed.
"""

from steerlab.core.discovery import exported
from steerlab.estimate.units.record import Method


def _chooses_neurons(item: tuple[str, Method]) -> bool:
    _, method = item
    return "saes" not in method.needs


# First what chooses features, then what chooses neurons; within each the order of the modules.
METHODS: dict[str, Method] = dict(
    sorted(exported("steerlab.estimate.units", "RECORDS").items(), key=_chooses_neurons)
)
