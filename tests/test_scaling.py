"""Power laws: planted ones are found within their intervals; what is none is said to be none."""

import math

import numpy as np
import pytest
from scipy.optimize import curve_fit

from steerlab.analysis.scaling import (
    gap_at_one,
    power_law,
    token_efficiency,
    transferability,
)
from steerlab.core.errors import SteerlabError

SIZES = np.array([1.0, 2, 4, 8, 16, 32])


def planted(seed: int, exponent: float, *, noise: float = 0.05, seeds: int = 5, floor: float = 0.0):  # type: ignore[no-untyped-def]
    random = np.random.default_rng(seed)
    x = np.tile(SIZES, seeds)
    run = np.repeat(np.arange(seeds), len(SIZES))
    each = 1 + noise * random.standard_normal(seeds)
    y = floor + 2 * each[run] * x**exponent * np.exp(noise * random.standard_normal(len(x)))
    return x, y, run


def test_an_exact_law_is_found_exactly() -> None:
    law = power_law(SIZES, 3 * SIZES**-0.4)
    assert law.scale[0] == pytest.approx(3)
    assert law.exponent[0] == pytest.approx(-0.4)
    assert law.r2 == pytest.approx(1)
    assert law.beats == pytest.approx(1)
    assert law(5) == pytest.approx(3 * 5**-0.4)
    assert law.needed(law(7.5)) == pytest.approx(7.5)


def test_the_fit_is_that_of_scipy() -> None:
    x, y, _ = planted(0, 0.3)
    best, _ = curve_fit(lambda a, b, c: b + c * a, np.log(x), np.log(y))
    law = power_law(x, y)
    assert [math.log(law.scale[0]), law.exponent[0]] == pytest.approx(best.tolist(), rel=1e-5)


def test_the_interval_holds_the_planted_exponent_about_as_often_as_it_says() -> None:
    held = 0
    for seed in range(60):
        x, y, run = planted(seed, 0.3, seeds=10)
        _, low, high = power_law(x, y, seeds=run, resamples=100).exponent
        held += low <= 0.3 <= high
    assert held >= 51  # of 60; ten seeds


def test_a_floor_is_found() -> None:
    law = power_law(SIZES, 1.5 + 2 * SIZES**-1.0, floor=True)
    assert law.floor == pytest.approx(1.5, abs=0.02)
    assert law.exponent[0] == pytest.approx(-1, abs=0.05)
    with pytest.raises(SteerlabError, match="never has the value 1"):
        law.needed(1.0)


def test_what_is_no_growth_is_said_to_be_none() -> None:
    x, y, run = planted(4, 0.0, seeds=10)
    law = power_law(x, y, seeds=run, resamples=200)
    assert law.exponent[1] <= 0 <= law.exponent[2]
    assert "no growth is shown" in law.sentence("joint", "width")
    line = power_law(SIZES, 5 + 3 * SIZES)
    assert line.beats < 0
    assert "does as well" in line.sentence()
    assert "squared error is" in power_law(*planted(0, 0.4)[:2]).sentence()


def test_a_single_seed_has_no_interval() -> None:
    law = power_law(SIZES, SIZES**0.5, seeds=["a"] * 6)
    assert all(map(math.isnan, law.exponent[1:]))
    assert law.n == (6, 1)


def test_the_gap_at_one_is_what_one_language_lacks() -> None:
    x, y, run = planted(0, 0.3, noise=0.01)
    assert gap_at_one(x, y, seeds=run, resamples=200)[0] == pytest.approx(0, abs=0.05)
    y = np.where(x == 1, y - 0.5, y)
    value, low, high = gap_at_one(x, y, seeds=run, resamples=200)
    assert value == pytest.approx(0.5, abs=0.05)
    assert 0 < low < value < high
    with pytest.raises(SteerlabError, match="nothing was measured at x = 1"):
        gap_at_one(SIZES[1:], SIZES[1:] ** 0.2)


def test_transferability_and_token_efficiency_by_hand() -> None:
    before, after = np.array([0.5, 0.4, 0.2]), np.array([0.75, 0.5, 0.2])
    # English gains 50 %; the others 25 % and nothing.
    assert transferability(before, after) == pytest.approx(0.25)
    with pytest.raises(SteerlabError, match="gained -0.5"):
        transferability(before, before * 0.5)
    law = power_law([1e6, 1e7, 1e8], [100, 50, 25])
    assert token_efficiency(law, 50, 5e6) == pytest.approx(2)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        ([1, 2], [1, 2], "2 different x"),
        ([1, 2, 3], [1, 2], "3 x, 2 y"),
        ([1, 2, 3], [1, -2, 3], "positive"),
        ([1, 2, math.inf], [1, 2, 3], "positive, finite"),
    ],
)
def test_points_that_have_no_law_raise(x: list[float], y: list[float], message: str) -> None:
    with pytest.raises(SteerlabError, match=message):
        power_law(x, y)
