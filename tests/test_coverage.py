"""Intervals hold the truth where successes are rare and sentences few, and the percentile interval
that they took the place of does not."""

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest, norm, t

from steerlab.analysis.intervals import (
    by_sentence,
    harmonic_by_sentence,
    paired_difference,
)

ROOT = Path(__file__).parents[1]
SAMPLES = 300
LEAST = 0.92  # three standard errors of 300 samples below .95 is .912


@pytest.fixture(scope="module")
def coverage() -> dict[str, Any]:
    """The functions of `experiments/coverage.py`, which writes docs/coverage.md."""
    return runpy.run_path(str(ROOT / "experiments" / "coverage.py"))


@pytest.mark.parametrize(
    ("kind", "cells"),
    [
        ("shares", [(8, 15, 0.05, 0.1), (16, 15, 0.05, 0.3), (40, 4, 0.02, 0.3), (5, 4, 0.2, 0.1)]),
        ("differences", [(5, 15, (0.9, 0.6), 0.3), (16, 4, (0.05, 0.02), 0.1)]),
        ("harmonics", [(5, 15, (0.5, 0.5), 0.3), (16, 15, (0.05, 0.5), 0.3)]),
    ],
)
def test_the_interval_covers_and_the_percentile_interval_does_not(
    coverage: dict[str, Any], kind: str, cells: list[tuple[int, int, Any, float]]
) -> None:
    rng = np.random.default_rng(0)
    found = [
        coverage[kind](rng, SAMPLES, count, targets, p, icc) for count, targets, p, icc in cells
    ]
    assert min(cell.now for cell in found) > LEAST
    assert min(cell.before for cell in found) < 0.9, "the negative control"
    # Covering is no art for who is wide: the price is bounded.
    assert max(cell.width for cell in found) < 2.6


@pytest.mark.parametrize("hits", [1, 3, 10])
def test_one_row_each_is_wilsons_interval_with_a_t_quantile(hits: int) -> None:
    values = np.arange(20) < hits
    quantile = t.ppf(0.975, 19)
    level = 1 - 2 * norm.sf(quantile)  # at which Wilson's z is this t
    expected = binomtest(hits, 20).proportion_ci(level, method="wilson")
    assert by_sentence(values, np.arange(20))[1:] == pytest.approx((expected.low, expected.high))
    plain = binomtest(hits, 20).proportion_ci(0.95, method="wilson")
    assert by_sentence(values, np.arange(20))[1:] != pytest.approx((plain.low, plain.high))


def test_outputs_that_always_agree_are_one_output_each() -> None:
    """The effective sample size is the number of sentences, not of rows; nor is it more."""
    values, rows = np.arange(20) < 6, np.repeat(np.arange(20), 15)
    single = by_sentence(values, np.arange(20))
    assert by_sentence(values[rows], rows) == pytest.approx(single)
    mixed = np.tile(np.arange(15) < 5, 20)  # every sentence alike but one row
    mixed[0] = False
    width = np.ptp(by_sentence(mixed, rows)[1:])
    independent = np.ptp(by_sentence(mixed[:300], np.arange(300))[1:])
    assert independent < width < np.ptp(single[1:])


def test_many_sentences_bring_students_interval() -> None:
    rng = np.random.default_rng(1)
    rows = np.repeat(np.arange(4000), 4)
    a = rng.random(len(rows)) < rng.beta(1, 2, 4000)[rows]
    b = rng.random(len(rows)) < rng.beta(2, 1, 4000)[rows]
    means = [values.reshape(-1, 4).mean(1) for values in (a, b, a * 1.0 - b)]
    one, other = means[0].mean(), means[1].mean()
    # The derivatives of 2 / (1/a + 1/b).
    combined = 2 * (other**2 * means[0] + one**2 * means[1]) / (one + other) ** 2
    for interval, each in (
        (by_sentence(a, rows), means[0]),
        (paired_difference(a, rows, b, rows), means[2]),
        (harmonic_by_sentence(a, b, rows), combined),
    ):
        half = 1.96 * each.std(ddof=1) / np.sqrt(4000)
        assert interval[1:] == pytest.approx((interval[0] - half, interval[0] + half), abs=5e-4)


def test_failures_are_the_mirror_image_of_successes() -> None:
    rng = np.random.default_rng(2)
    rows = np.repeat(np.arange(12), 6)
    values = rng.random(72) < rng.beta(1, 3, 12)[rows]
    value, low, high = by_sentence(values, rows)
    assert by_sentence(~values, rows) == pytest.approx((1 - value, 1 - high, 1 - low))
    other = rng.random(72) < 0.7
    value, low, high = paired_difference(values, rows, other, rows)
    assert paired_difference(other, rows, values, rows) == pytest.approx((-value, -high, -low))
    assert paired_difference(~values, rows, ~other, rows) == pytest.approx((-value, -high, -low))
    assert harmonic_by_sentence(values, other, rows) == pytest.approx(
        harmonic_by_sentence(other, values, rows)
    )


def test_limits_stay_within_the_range_and_around_the_value() -> None:
    rng = np.random.default_rng(3)
    for _ in range(200):
        count = int(rng.integers(2, 9))
        rows = np.repeat(np.arange(count), rng.integers(1, 6, count))
        p = rng.choice([0.02, 0.3, 0.95], 2)
        a, b = rng.random(len(rows)) < p[0], rng.random(len(rows)) < p[1]
        for (value, low, high), least in (
            (by_sentence(a, rows), 0),
            (paired_difference(a, rows, b, rows), -1),
            (harmonic_by_sentence(a, b, rows), 0),
        ):
            assert least <= low <= value <= high <= 1
            assert high - low > 0.02, "no interval of a few sentences is a point"


def test_the_page_is_of_the_script(coverage: dict[str, Any]) -> None:
    """`python experiments/coverage.py` writes it: the head and one of its tables, done again."""
    page = (ROOT / "docs" / "coverage.md").read_text(encoding="utf-8")
    assert page.startswith(coverage["HEAD"].format(samples=coverage["SAMPLES"]))
    first = coverage["grid"](
        coverage["shares"], coverage["SHARES"][:1], [(1, 0.0)], coverage["SAMPLES"], "p"
    )
    # The first cell of the first line rests on the first draws of the same seed.
    assert first.splitlines()[2].rstrip(" |") in page
