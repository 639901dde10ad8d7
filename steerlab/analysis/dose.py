"""Scores along the dose: the least dose that suffices, the area under a curve, methods at one
dose or one cost."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from steerlab.analysis.choices import Setting, choose, halves, whole
from steerlab.analysis.intervals import by_sentence
from steerlab.analysis.sentences import Interval
from steerlab.core.columns import is_share
from steerlab.core.errors import SteerlabError

ENOUGH = 0.9  # the share of outputs in a language from which on it counts as spoken
_HALVED = 4  # sentences of dev from which on it can be halved: an interval needs two
_ROUNDING = 1e-9  # a dose may be so far outside the range of the doses that were run


@dataclass(frozen=True)
class Least:
    """The least dose at which a curve reaches a level.

    Args:
        dose: the dose, NaN if the level is not reached.
        said: how it was found: "interpolated" between two strengths, "at the smallest dose"
            already (so that the least may be less), or "not reached".
        highest: the most that the curve reaches.
    """

    dose: float
    said: str
    highest: float


@dataclass(frozen=True)
class DoseCurve:
    """One method's score along its strengths at one layer: straight lines between points of rising
    dose.

    The dose of a point is the mean over all rows of its strength, the same for every sentence. So a
    score at a dose, or an area, is a weighted sum of each sentence's own scores, and has an
    interval over sentences.

    Args:
        strengths: of each point.
        doses: of each point, rising.
        scores: of each sentence at each point.
        sentences: which sentences these are.
        share: whether the score is a share, as for `by_sentence`.
    """

    strengths: Float[np.ndarray, " point"]
    doses: Float[np.ndarray, " point"]
    scores: Float[np.ndarray, "sentence point"]
    sentences: np.ndarray
    share: bool | None = None

    @property
    def means(self) -> Float[np.ndarray, " point"]:
        """The mean score at each point."""
        return self.scores.mean(axis=0)

    def least(self, level: float = ENOUGH) -> Least:
        """The least dose at which the mean score reaches a level."""
        dose, how = _crossing(self.doses, self.means, level)
        return Least(dose, how, float(self.means.max()))

    def at(self, dose: float, *, seed: int = 0) -> Interval:
        """The score at a dose, with its 95 % interval.

        Raises `SteerlabError` for a dose outside the range of those that were run.
        """
        self._need_range(dose, dose)
        weights = self._point_weights(np.array([dose]))[0]
        return self._weighted_score(weights, seed)

    def area(self, low: float, high: float, *, seed: int = 0) -> Interval:
        """The mean score between two doses, with its 95 % interval: the area under the curve over
        the distance of the doses.

        It is computed by the trapezoid rule, which is exact for straight lines between the points.
        Raises `SteerlabError` for doses outside the range of those that were run.
        """
        self._need_range(low, high)
        if not low < high:
            raise SteerlabError(
                f"an area needs a range of doses, not {low:g} to {high:g}; give a low below a high"
            )
        # The curve bends at its own points only, so these and the two ends are all it takes.
        between = self.doses[(self.doses > low) & (self.doses < high)]
        doses = np.array([low, *between, high])
        weights = np.trapezoid(self._point_weights(doses), doses, axis=0) / (high - low)
        return self._weighted_score(weights, seed)

    def _point_weights(self, doses: Float[np.ndarray, " dose"]) -> Float[np.ndarray, "dose point"]:
        """The weight of each point's score in the interpolated score at each dose.

        Interpolation is linear in the scores, so a point's weights are what interpolation gives for
        a curve that is 1 at this point and 0 at all others.
        """
        columns = [np.interp(doses, self.doses, unit) for unit in np.eye(len(self.doses))]
        return np.stack(columns, axis=1)

    def _weighted_score(self, weights: Float[np.ndarray, " point"], seed: int) -> Interval:
        return by_sentence(self.scores @ weights, self.sentences, share=self.share, seed=seed)

    def _need_range(self, low: float, high: float) -> None:
        """Raise where the doses lie outside those that were run: nothing is extrapolated."""
        least = float(self.doses[0])
        most = float(self.doses[-1])
        if low < least - _ROUNDING or high > most + _ROUNDING:
            raise SteerlabError(
                f"this method was read at doses from {least:.3g} to {most:.3g}, not at {low:.3g} "
                f"to {high:.3g}: give doses in between, or more strengths"
            )


def dose_curve(
    rows: pd.DataFrame, method: str, layer: int, *, value: str = "joint", cost: str = "dose"
) -> DoseCurve:
    """A method's score along its strengths at one layer, of the sentences that every strength read.

    Raises `SteerlabError` where the rows have no such method at this layer, and where rows of it
    have no dose.

    Args:
        rows: rows of any methods and settings.
        method: the method.
        layer: the layer.
        value: the column of the score.
        cost: the column that it runs along: the dose at the sites of the edit, the displacement of
            the last of the stream, or another that rises with the strength.
    """
    chosen = whole(rows[(rows["method"] == method) & (rows["layer"] == layer)])
    if chosen.empty:
        raise SteerlabError(
            f"no rows of {method!r} at layer {layer}; there are {_methods_and_layers(rows)}"
        )
    if cost not in chosen or not np.isfinite(chosen[cost].to_numpy(float)).all():
        raise SteerlabError(
            f"rows of {method!r} at layer {layer} have no {cost}; compare it at equal fluency "
            "instead"
        )
    # By dose, not by strength: interpolation needs rising x.
    doses = chosen.groupby("strength")[cost].mean().sort_values()
    # A table of sentences down and strengths across; a sentence may have several targets.
    scored = chosen.assign(score=chosen[value].astype(float))
    means = scored.groupby(["sentence", "strength"])["score"].mean()
    scores = means.unstack()[doses.index].dropna()
    return DoseCurve(
        strengths=doses.index.to_numpy(float),
        doses=doses.to_numpy(float),
        scores=scores.to_numpy(float),
        sentences=scores.index.to_numpy(),
        share=is_share(value),
    )


def common_range(curves: Sequence[DoseCurve]) -> tuple[float, float] | None:
    """The range of doses that every curve has, (low, high); None where there is none."""
    low = max(float(curve.doses[0]) for curve in curves)
    high = min(float(curve.doses[-1]) for curve in curves)
    return (low, high) if low < high else None


def along_held_out(
    dev: pd.DataFrame, methods: Sequence[str], *, main: str, seed: int = 0
) -> dict[str, Any]:
    """Methods along the dose on one half of dev's sentences, each at the layer that is best on the
    other half: what `along` gives, and which lines did what.

    A layer that was chosen on the lines that a curve is read on would show them at their luckiest.
    Test lines cannot help, for they were read at one strength. The result has besides:

    - "sentences": {"chosen on", "read on"}: how many sentences chose the layers, and how many the
      curves are of;
    - "held out": whether these are different ones. They are the same, all of dev, where dev has
      fewer than four sentences.

    Raises `SteerlabError` for rows of another split.

    Args:
        dev: rows of the dev split.
        methods: the methods to show.
        main: the method whose dose is taken.
        seed: decides the resampling of sentences.
    """
    rows = whole(dev[dev["method"].isin(methods)])
    held_out = rows["sentence"].nunique() >= _HALVED
    choosing, reading = halves(rows) if held_out else (rows, rows)
    chosen = choose(choosing)
    result = along(reading, {method: chosen[method] for method in methods}, main=main, seed=seed)
    counts = {
        "chosen on": int(choosing["sentence"].nunique()),
        "read on": int(reading["sentence"].nunique()),
    }
    return result | {"sentences": counts, "held out": bool(held_out)}


def along(
    dev: pd.DataFrame, settings: Mapping[str, Setting], *, main: str, seed: int = 0
) -> dict[str, Any]:
    """Methods along the dose on dev, each at the layer of its setting.

    The settings should come from other lines: `along_held_out` sees to it. The result has:

    - "level": the share of outputs in the language that "least" is for;
    - "range": the doses that all methods have, [low, high];
    - "dose": one dose in that range, the main method's own or the nearest;
    - "curves": {method: {"layer", "doses", "least", "area", "at"}}: the least dose that reaches the
      level, the mean `joint` over the range, and `joint` at the dose.

    Where the methods have no doses in common, "range", "dose", "area" and "at" are None.

    Args:
        dev: rows of the dev split.
        settings: the (layer, strength) of each method.
        main: the method whose dose is taken.
        seed: decides the resampling of sentences.
    """
    joint = {}
    spoken = {}
    for method, (layer, _) in settings.items():
        joint[method] = dose_curve(dev, method, layer)
        spoken[method] = dose_curve(dev, method, layer, value="in_language")
    shared = common_range(list(joint.values()))
    dose = None
    if shared is not None:
        own = joint[main]
        main_strength = settings[main][1]
        main_dose = own.doses[own.strengths == main_strength][0]
        # The main method's own dose may lie outside what the others have.
        dose = float(np.clip(main_dose, *shared))
    curves = {}
    for method, curve in joint.items():
        least = asdict(spoken[method].least())
        if math.isnan(least["dose"]):
            least["dose"] = None  # JSON has no NaN
        area = None
        score = None
        if shared is not None and dose is not None:
            area = list(curve.area(*shared, seed=seed))
            score = list(curve.at(dose, seed=seed))
        curves[method] = {
            "layer": settings[method][0],
            "doses": curve.doses.tolist(),
            "least": least,
            "area": area,
            "at": score,
        }
    dose_range = None if shared is None else list(shared)
    return {"level": ENOUGH, "range": dose_range, "dose": dose, "curves": curves}


def equal(
    dev: pd.DataFrame, layers: Mapping[str, int], *, cost: str = "dose", level: float
) -> dict[str, Setting | None]:
    """For each method, the strength at which it costs as much as the others: settings to be run.

    The strength is interpolated where the mean cost, by rising strength, first reaches `level`. A
    method that costs more at its smallest strength is taken there; one that costs less at its
    largest has no such strength, None. Raises `SteerlabError` for rows of another split, for rows
    without this cost, and for a method without rows at its layer.

    Args:
        dev: rows of the dev split.
        layers: the layer of each method.
        cost: the column of the cost: the dose at the edit's sites, the displacement of the last of
            the stream, or bits_per_byte_ratio (run dev with fluency).
        level: the cost that all methods shall have.
    """
    if set(dev["split"]) != {"dev"}:
        raise SteerlabError(
            "strengths of equal cost are found on dev rows only, not on "
            f"{sorted(set(dev['split']))}"
        )
    if cost not in dev.columns or not np.isfinite(dev[cost].to_numpy(float)).any():
        raise SteerlabError(
            f"dev rows have no {cost!r} to compare at; run them with it (fluency), or choose "
            "'dose' or 'displacement'"
        )
    settings: dict[str, Setting | None] = {}
    for method, layer in layers.items():
        rows = dev[(dev["method"] == method) & (dev["layer"] == layer)]
        if rows.empty:
            raise SteerlabError(
                f"no rows of {method!r} at layer {layer}; there are {_methods_and_layers(dev)}"
            )
        costs = whole(rows).groupby("strength")[cost].mean().sort_index()
        strength, _ = _crossing(costs.index.to_numpy(float), costs.to_numpy(float), level)
        settings[method] = None if math.isnan(strength) else (layer, strength)
    return settings


def _crossing(
    x: Float[np.ndarray, " point"], y: Float[np.ndarray, " point"], level: float
) -> tuple[float, str]:
    """The first x at which straight lines between the points reach a level, and how it was found.

    NaN where no point reaches it. The words of how are those of `Least.said`.
    """
    reaching = np.flatnonzero(y >= level)
    if not len(reaching):
        return math.nan, "not reached"
    after = int(reaching[0])
    if after == 0:
        return float(x[0]), "at the smallest dose"
    # The level is crossed between the first point that reaches it and the one before, where y
    # rises: so x can be read as a function of y.
    crossed = slice(after - 1, after + 1)
    return float(np.interp(level, y[crossed], x[crossed])), "interpolated"


def _methods_and_layers(rows: pd.DataFrame) -> str:
    """The methods of some rows with their layers, for a message."""
    pairs = rows[["method", "layer"]].drop_duplicates().itertuples(index=False)
    return ", ".join(f"{method} at {layer}" for method, layer in pairs) or "none at all"
