"""Power laws: how a score grows with tokens, width or the number of parallel languages, how sure
that is, and where it fails."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from steerlab.analysis.sentences import Interval, expanded_tails
from steerlab.core.errors import SteerlabError

_FLOORS = 200  # candidates of the constant, when there is one


@dataclass(frozen=True)
class PowerLaw:
    """y = scale · x^exponent + floor, with 95 % intervals over seeds.

    Args:
        scale: the factor, with its interval.
        exponent: the power, with its interval; below 0 where y falls.
        floor: what remains at infinite x; 0 unless it was fitted.
        r2: the share of the variance of log(y - floor), over points, that the law explains.
        beats: by how much the law's squared error, on points left out, lies below that of the
            better of a constant and a straight line: 0 is no better, 1 is perfect.
        x: the smallest and largest x that it was fitted to.
        n: how many points, and seeds.
    """

    scale: Interval
    exponent: Interval
    floor: float
    r2: float
    beats: float
    x: tuple[float, float]
    n: tuple[int, int]

    def __call__(self, x: float) -> float:
        """The y of the law at x."""
        if x <= 0:
            raise SteerlabError(f"a power law is of positive numbers, not of {x}")
        return self.scale[0] * x ** self.exponent[0] + self.floor

    def needed(self, y: float) -> float:
        """The x at which the law has y; the inverse.

        Raises `SteerlabError` for a y that it never has.
        """
        share = (y - self.floor) / self.scale[0]
        if share <= 0 or self.exponent[0] == 0:
            raise SteerlabError(
                f"the law never has the value {y}: it lies beyond its floor of {self.floor:.4g}"
            )
        return float(share ** (1 / self.exponent[0]))

    def sentence(self, y: str = "the score", x: str = "size") -> str:
        """The law in words, with what speaks against it."""
        value, low, high = self.exponent
        points = f"{self.n[0]} points" + (f" of {self.n[1]} seeds" if self.n[1] else "")
        said = (
            f"{y} goes with {x} to the power {value:.3f} (95 % interval {low:.3f} to {high:.3f}; "
            f"{points}, R² {self.r2:.2f}) from {_size(self.x[0])} to {_size(self.x[1])}"
        )
        if low <= 0 <= high:
            return f"{said}; the interval holds 0, so that no growth is shown."
        if not self.beats > 0:
            return f"{said}; on points left out a constant or a straight line does as well."
        return f"{said}; on points left out its squared error is {1 - self.beats:.0%} of theirs."


def power_law(
    x: Sequence[float] | np.ndarray,
    y: Sequence[float] | np.ndarray,
    *,
    seeds: Sequence[Any] | np.ndarray | None = None,
    floor: bool = False,
    resamples: int = 2000,
    seed: int = 0,
) -> PowerLaw:
    """Fit y = scale · x^exponent (+ floor) by least squares of logarithms.

    The interval is the expanded percentiles of fits to resampled seeds, each with all its points;
    without seeds, of resampled points. With three seeds there are ten different resamples only.
    Sources of the form: Kaplan et al. 2020 (arXiv 2001.08361); with the number of parallel
    languages as x, Yang et al. 2025 (arXiv 2510.02272). Raises `SteerlabError` for numbers
    that are not positive and finite, and for fewer than three different x.

    Args:
        x: the size, such as tokens seen or the number of languages, [point].
        y: what was measured there, [point].
        seeds: which training run each point is of, [point].
        floor: whether to fit a constant that remains; needs four different x.
        resamples: how many resamples.
        seed: decides them.
    """
    a, b = np.asarray(x, float), np.asarray(y, float)
    runs = _runs(a, seeds)
    _check(a, b, runs, least=4 if floor else 3)
    constant, scale, exponent = _fit(a, b, floor=floor)
    draws = []
    for taken in _resampled(runs, resamples, seed):
        # A resample of fewer than two different x has no slope.
        if len(np.unique(a[taken])) >= (3 if floor else 2):
            draws.append(_fit(a[taken], b[taken], floor=floor)[1:])
    ends = np.quantile(np.array(draws), _tails(runs), axis=0) if runs.any() else None
    logs = np.log(b - constant)
    rest = logs - (math.log(scale) + exponent * np.log(a))
    spread = float(((logs - logs.mean()) ** 2).sum())
    return PowerLaw(
        scale=_with_ends(scale, ends, 0),
        exponent=_with_ends(exponent, ends, 1),
        floor=constant,
        r2=1 - float((rest**2).sum()) / spread if spread else math.nan,
        beats=_beats(a, b, floor=floor),
        x=(float(a.min()), float(a.max())),
        n=(len(a), 0 if seeds is None else len(np.unique(runs))),
    )


def gap_at_one(
    x: Sequence[float] | np.ndarray,
    y: Sequence[float] | np.ndarray,
    *,
    seeds: Sequence[Any] | np.ndarray | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """The law of x > 1, continued to x = 1, less what was measured there: (value, low, high).

    With the number of parallel languages as x it is the *monolingual generalisation gap*: above 0,
    one language alone does less well than the law of several says. Source: Yang et al. 2025 (arXiv
    2510.02272). The interval resamples seeds, each with its points on both sides. Raises
    `SteerlabError` where nothing was measured at 1, or at fewer than three numbers above it.

    Args:
        x: such as the number of parallel languages, [point].
        y: what was measured there, [point].
        seeds: which training run each point is of, [point].
        resamples: how many resamples.
        seed: decides them.
    """
    a, b = np.asarray(x, float), np.asarray(y, float)
    runs = _runs(a, seeds)
    _check(a[a > 1], b[a > 1], runs[a > 1])
    if not (a == 1).any():
        raise SteerlabError("nothing was measured at x = 1; the gap is between that and the law")

    def gap(taken: np.ndarray) -> float:
        one = a[taken] == 1
        _, scale, _ = _fit(a[taken][~one], b[taken][~one])
        return scale - float(b[taken][one].mean())

    draws = []
    for taken in _resampled(runs, resamples, seed):
        if (a[taken] == 1).any() and len(np.unique(a[taken][a[taken] > 1])) > 1:
            draws.append(gap(taken))
    value = gap(np.arange(len(a)))
    if not runs.any():
        return value, math.nan, math.nan
    low, high = np.quantile(draws, _tails(runs))
    return value, float(low), float(high)


def transferability(
    before: Float[np.ndarray, " _"], after: Float[np.ndarray, " _"], trained: int = 0
) -> float:
    """How much of a gain in the trained language the others got: mean relative gain over theirs.

    mean over the others of (after - before) / before, divided by the same of the trained language:
    1 where all gain alike, 0 where the gain stays at home, below 0 where the others lose. Source:
    after the transferability index of Yang et al. 2025 (arXiv 2510.02272), of which this is our
    reading. Raises `SteerlabError` where the trained language gained nothing, or a score before is
    not above 0.

    Args:
        before: the score of each language before training.
        after: the same after it.
        trained: the place of the language that was trained on.
    """
    before, after = np.asarray(before, float), np.asarray(after, float)
    if before.shape != after.shape or before.ndim != 1 or len(before) < 2:
        raise SteerlabError(
            f"the scores have shapes {before.shape} and {after.shape}; give one number for each of "
            "two or more languages, before and after"
        )
    if not (before > 0).all() or not np.isfinite(after).all():
        raise SteerlabError("a relative gain needs a finite score above 0 of each language before")
    gains = after / before - 1
    if gains[trained] <= 0:
        raise SteerlabError(
            f"the trained language gained {gains[trained]:+.3g}: there is no gain to transfer"
        )
    return float(np.delete(gains, trained).mean() / gains[trained])


def token_efficiency(law: PowerLaw, perplexity: float, seen: float) -> float:
    """How many tokens of one language alone would give this perplexity, per token that was seen.

    Above 1, the other languages helped; 1 is no help. Source: TEff of Schäfer et al. 2024 (arXiv
    2404.07982): `law` is fitted to runs on one language, perplexity against tokens seen.
    """
    if not seen > 0:
        raise SteerlabError(f"the tokens seen are {seen}; they have to be above 0")
    return law.needed(perplexity) / seen


def _size(x: float) -> str:
    return f"{x:,.0f}" if x >= 1000 else f"{x:g}"


def _runs(x: np.ndarray, seeds: Sequence[Any] | np.ndarray | None) -> np.ndarray:
    """The training run of each point, as a number; each its own where no seeds are given."""
    if seeds is None:
        return np.arange(len(x))
    return np.unique(np.asarray(seeds), return_inverse=True)[1]


def _resampled(runs: np.ndarray, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Points of runs that are drawn with replacement, each with all its points."""
    members = [np.flatnonzero(runs == run) for run in range(runs.max() + 1)]
    random = np.random.default_rng(seed)
    for _ in range(resamples):
        drawn = random.integers(len(members), size=len(members))
        yield np.concatenate([members[i] for i in drawn])


def _tails(runs: np.ndarray) -> tuple[float, float]:
    """The quantiles of a 95 % interval, wider the fewer runs there are."""
    return expanded_tails(int(runs.max()) + 1, 1, 0.95)


def _check(x: np.ndarray, y: np.ndarray, runs: np.ndarray, least: int = 3) -> None:
    """Raise for points that no power law can be fitted to."""
    if not len(x) == len(y) == len(runs) or x.ndim != 1:
        raise SteerlabError(
            f"{len(x)} x, {len(y)} y and {len(runs)} seeds; give one of each a point"
        )
    if not (np.isfinite(x).all() and np.isfinite(y).all() and (x > 0).all() and (y > 0).all()):
        raise SteerlabError("a power law is of positive, finite numbers; leave the others out")
    if len(np.unique(x)) < least:
        raise SteerlabError(
            f"there are {len(np.unique(x))} different x; the fit needs {least} or more"
        )


def _fit(x: np.ndarray, y: np.ndarray, *, floor: bool = False) -> tuple[float, float, float]:
    """(floor, scale, exponent) with the least squared error of logarithms."""
    if not floor:
        return (0.0, *_line(np.log(x), np.log(y)))
    # The error in the constant has several minima: try constants below the least y on a grid that
    # grows dense towards it, where the fit is sensitive.
    constants = (1 - np.geomspace(1e-4, 1, _FLOORS)) * y.min()
    logs = np.log(y - constants[:, None])
    centred = np.log(x) - np.log(x).mean()
    slopes = logs @ centred / max(float(centred @ centred), 1e-30)
    scales = np.exp(logs.mean(1) - slopes * np.log(x).mean())
    # Logarithms of numbers near 0 are worth less: the error is taken of y itself.
    guesses = constants[:, None] + scales[:, None] * x ** slopes[:, None]
    best = int(((y - guesses) ** 2).sum(1).argmin())
    return float(constants[best]), float(scales[best]), float(slopes[best])


def _line(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """(exp of the intercept, slope) of a straight line."""
    centred = x - x.mean()
    spread = float(centred @ centred)
    slope = float(centred @ y) / spread if spread else 0.0
    intercept = float(y.mean() - slope * x.mean())
    return math.exp(intercept), slope


def _beats(x: np.ndarray, y: np.ndarray, *, floor: bool) -> float:
    """1 - squared error of the law / that of the better of constant and line, each x left out."""
    errors = np.zeros(3)
    for value in np.unique(x):
        out = x == value
        a, b = x[~out], y[~out]
        if len(np.unique(a)) < (3 if floor else 2):
            return math.nan
        constant, scale, exponent = _fit(a, b, floor=floor)
        slope, intercept = np.polyfit(a, b, 1)
        guesses = (scale * value**exponent + constant, b.mean(), slope * value + intercept)
        errors += [float(((y[out] - guess) ** 2).sum()) for guess in guesses]
    least = float(min(errors[1:]))
    return 1 - float(errors[0]) / least if least else math.nan


def _with_ends(value: float, ends: np.ndarray | None, column: int) -> Interval:
    """A value with its interval; NaN where nothing could be resampled."""
    if ends is None:
        return value, math.nan, math.nan
    return value, float(ends[0, column]), float(ends[1, column])
