"""Steer2Edit by its name: what heads or neurons write along, as it was read."""

from steerlab.core.directions import Directions
from steerlab.estimate.units.record import Method


def _as_read(read: Directions, *, source: str) -> Directions:
    return read


RECORDS = {
    "steer2edit": Method(
        _as_read, ("writing_neurons",), ("write_along",), cites=("sun2026steer2edit",)
    ),
    "steer2edit heads": Method(
        _as_read, ("writing_heads",), ("write_along",), cites=("sun2026steer2edit",)
    ),
}
