"""Scores along the dose: the least dose that suffices, the area under a curve, methods at one
dose or one cost."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from steerlab.analysis.choices import Setting, whole
from steerlab.analysis.intervals import Interval, by_sentence
from steerlab.core.errors import SteerlabError

ENOUGH = 0.9  # LFS at which a language counts as spoken
_ROUNDING = 1e-9  # of a mean dose


@dataclass(frozen=True)
class Least:
    """The least dose at which a curve reaches a level, NaN if it does not; `highest` is the most
    that it reaches.

    `said`: "interpolated" between two strengths, "at the smallest dose" already (so that the least
    may be less), or "not reached".
    """

    dose: float
    said: str
    highest: float


@dataclass(frozen=True)
class DoseCurve:
    """One method's score along its strengths at one layer, by rising dose; straight lines between
    the points.

    A dose is the mean over all rows of a strength, so that a value at a dose, or an area, is a
    weighted sum of each sentence's own scores and has an interval by resampling sentences.
    """

    strengths: Float[np.ndarray, " point"]
    doses: Float[np.ndarray, " point"]
    scores: Float[np.ndarray, "sentence point"]
    sentences: np.ndarray

    @property
    def means(self) -> Float[np.ndarray, " point"]:
        return self.scores.mean(axis=0)

    def least(self, level: float = ENOUGH) -> Least:
        """Where the curve first reaches a level."""
        place, said = _crossing(self.doses, self.means, level)
        return Least(place, said, float(self.means.max()))

    def at(self, dose: float, *, seed: int = 0) -> Interval:
        """The score at a dose between the smallest and the largest, with its 95 % interval."""
        self._need(dose, dose)
        return self._weighted(self._values(np.array([dose]))[0], seed)

    def area(self, low: float, high: float, *, seed: int = 0) -> Interval:
        """The area under the curve between two doses over their distance, a mean score, with its 95
        % interval.

        By the trapezoid rule, which is exact for straight lines between the points.
        """
        self._need(low, high)
        if not low < high:
            raise SteerlabError(
                f"an area needs a range of doses, not {low:g} to {high:g}; give a low below a high"
            )
        between = self.doses[(self.doses > low) & (self.doses < high)]
        places = np.array([low, *between, high])
        weights = np.trapezoid(self._values(places), places, axis=0) / (high - low)
        return self._weighted(weights, seed)

    def _values(self, places: Float[np.ndarray, " place"]) -> Float[np.ndarray, "place point"]:
        """How much each point has in the value at each place."""
        return np.stack(
            [np.interp(places, self.doses, one) for one in np.eye(len(self.doses))], axis=1
        )

    def _weighted(self, weights: Float[np.ndarray, " point"], seed: int) -> Interval:
        return by_sentence(self.scores @ weights, self.sentences, seed=seed)

    def _need(self, low: float, high: float) -> None:
        least, most = float(self.doses[0]), float(self.doses[-1])
        if low < least - _ROUNDING or high > most + _ROUNDING:
            raise SteerlabError(
                f"this method was read at doses from {least:.3g} to {most:.3g}, not at {low:.3g} "
                f"to {high:.3g}: "
                "give doses in between, or more strengths"
            )


def dose_curve(rows: pd.DataFrame, method: str, layer: int, *, value: str = "joint") -> DoseCurve:
    """A method's score along its strengths at one layer, of the sentences that every strength read.

    Raises where the rows have no such method at this layer, and where rows of it have no dose.
    """
    found = whole(rows[(rows["method"] == method) & (rows["layer"] == layer)])
    if found.empty:
        raise SteerlabError(f"no rows of {method!r} at layer {layer}; there are {_places(rows)}")
    if not np.isfinite(found["dose"].to_numpy(float)).all():
        raise SteerlabError(
            f"rows of {method!r} at layer {layer} have no dose; compare it at equal fluency instead"
        )
    doses = found.groupby("strength")["dose"].mean().sort_values()
    by = (
        found.assign(score=found[value].astype(float))
        .groupby(["sentence", "strength"])["score"]
        .mean()
        .unstack()
    )
    scores = by[doses.index].dropna()
    return DoseCurve(
        doses.index.to_numpy(float),
        doses.to_numpy(float),
        scores.to_numpy(float),
        scores.index.to_numpy(),
    )


def common_range(curves: Sequence[DoseCurve]) -> tuple[float, float] | None:
    """The doses that every curve has, (low, high); None where the curves have no range in
    common."""
    low, high = (
        max(float(curve.doses[0]) for curve in curves),
        min(float(curve.doses[-1]) for curve in curves),
    )
    return (low, high) if low < high else None


def along(
    dev: pd.DataFrame, settings: Mapping[str, Setting], *, main: str, seed: int = 0
) -> dict[str, Any]:
    """Methods along the dose on dev, each at the layer of its setting: what a table shows.

    Gives {"level", "range", "dose", "curves": {method: {"layer", "doses", "least", "area", "at"}}}:
    the least dose for that LFS, the area under `joint` over the range of doses that all methods
    have, `joint` at one dose in it (the main method's own, or the nearest). The range is None, and
    so are area and dose, where the doses have none in common.
    """
    joint = {method: dose_curve(dev, method, layer) for method, (layer, _) in settings.items()}
    spoken = {
        method: dose_curve(dev, method, layer, value="in_language")
        for method, (layer, _) in settings.items()
    }
    shared = common_range(list(joint.values()))
    own = joint[main]
    dose = shared and float(np.clip(own.doses[own.strengths == settings[main][1]][0], *shared))
    curves = {}
    for method, curve in joint.items():
        least = spoken[method].least()
        curves[method] = {
            "layer": settings[method][0],
            "doses": curve.doses.tolist(),
            "least": asdict(least) | {"dose": None if math.isnan(least.dose) else least.dose},
            "area": shared and list(curve.area(*shared, seed=seed)),
            "at": None if dose is None else list(curve.at(dose, seed=seed)),
        }
    return {"level": ENOUGH, "range": shared and list(shared), "dose": dose, "curves": curves}


def equal(
    dev: pd.DataFrame, layers: Mapping[str, int], *, cost: str = "dose", level: float
) -> dict[str, Setting | None]:
    """Each method's layer and the strength at which it costs as much as the others, to be run
    there; None if none does.

    `layers` method → layer. `cost` is a column of the dev rows: the dose, or what an operator
    without one has, such as bits_per_byte_ratio (run dev with fluency). The strength is
    interpolated where the mean cost, by rising strength, first reaches `level`; a method that costs
    more at its smallest strength is taken there, and one that costs less at its largest has none.
    """
    if set(dev["split"]) != {"dev"}:
        raise SteerlabError(
            "strengths of equal cost are found on dev rows only, not on "
            f"{sorted(set(dev['split']))}"
        )
    if cost not in dev.columns or not np.isfinite(dev[cost].to_numpy(float)).any():
        raise SteerlabError(
            f"dev rows have no {cost!r} to compare at; run them with it (fluency) or choose 'dose'"
        )
    found: dict[str, Setting | None] = {}
    for method, layer in layers.items():
        rows = dev[(dev["method"] == method) & (dev["layer"] == layer)]
        if rows.empty:
            raise SteerlabError(f"no rows of {method!r} at layer {layer}; there are {_places(dev)}")
        costs = whole(rows).groupby("strength")[cost].mean().sort_index()
        strength, _ = _crossing(costs.index.to_numpy(float), costs.to_numpy(float), level)
        found[method] = None if math.isnan(strength) else (layer, strength)
    return found


def _crossing(
    places: Float[np.ndarray, " point"], values: Float[np.ndarray, " point"], level: float
) -> tuple[float, str]:
    """The first place at which straight lines between the points reach a level, and how it was
    found."""
    over = np.flatnonzero(values >= level)
    if not len(over):
        return math.nan, "not reached"
    after = int(over[0])
    if after == 0:
        return float(places[0]), "at the smallest dose"
    before = slice(after - 1, after + 1)
    return float(np.interp(level, values[before], places[before])), "interpolated"


def _places(rows: pd.DataFrame) -> str:
    pairs = rows[["method", "layer"]].drop_duplicates().itertuples(index=False)
    return ", ".join(f"{method} at {layer}" for method, layer in pairs) or "none at all"
