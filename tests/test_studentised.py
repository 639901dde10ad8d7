"""What paired tests assume: sign flips symmetry, the studentised bootstrap none."""

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from steerlab.analysis.tests import paired_test, sign_flips, studentised_bootstrap
from steerlab.core.errors import SteerlabError


def test_studentised_sign_flips_are_the_plain_ones() -> None:
    """Flips leave the sum of squares as it is, so t orders the patterns as the mean does."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        differences = rng.exponential(size=9) - rng.random()
        signs = np.array(np.meshgrid(*[[-1, 1]] * 9)).reshape(9, -1).T
        patterns = signs * differences
        statistic = patterns.mean(1) / patterns.std(1, ddof=1)
        observed = differences.mean() / differences.std(ddof=1)
        p = (np.abs(statistic) >= abs(observed) - 1e-12).mean()
        assert sign_flips(differences) == pytest.approx(p)


def test_skewed_differences_of_mean_zero_are_found_too_often_by_flips_alone() -> None:
    rng = np.random.default_rng(1)
    samples = rng.lognormal(size=(400, 16)) - np.exp(0.5)
    flips = np.mean([sign_flips(each, draws=299) <= 0.05 for each in samples])
    bootstrap = np.mean([studentised_bootstrap(each, draws=299) <= 0.05 for each in samples])
    assert flips > 0.11, "the negative control"
    assert bootstrap < flips - 0.03


def test_symmetric_differences_keep_their_level_and_a_real_one_is_found() -> None:
    rng = np.random.default_rng(2)
    nothing = [studentised_bootstrap(rng.normal(size=30), draws=299) for _ in range(400)]
    assert 0.02 < np.mean(np.array(nothing) <= 0.05) < 0.085
    real = [studentised_bootstrap(rng.normal(0.8, 1, size=30), draws=299) for _ in range(40)]
    assert np.mean(np.array(real) <= 0.05) > 0.9


def test_many_normal_differences_give_students_p() -> None:
    differences = np.random.default_rng(3).normal(0.1, 1, size=300)
    assert studentised_bootstrap(differences) == pytest.approx(
        ttest_1samp(differences, 0).pvalue, abs=0.02
    )


def test_the_order_of_sides_and_the_scale_say_nothing() -> None:
    rng = np.random.default_rng(4)
    a, b = rng.random(25), rng.random(25) * 0.8
    rows = np.arange(25)
    forward = paired_test(a, rows, b, rows, studentised=True)
    assert paired_test(b, rows, a, rows, studentised=True).p == pytest.approx(forward.p, abs=0.02)
    assert paired_test(4 * a, rows, 4 * b, rows, studentised=True).p == forward.p
    assert paired_test(a, rows, b, rows, studentised=True, seed=1).p != forward.p
    assert paired_test(a, rows, b, rows).p != forward.p, "it is no sign flip"


def test_differences_without_spread_and_without_sense() -> None:
    assert studentised_bootstrap(np.zeros(6)) == 1
    assert studentised_bootstrap(np.full(6, 0.2)) == sign_flips(np.full(6, 0.2)) == 2**-5
    with pytest.raises(SteerlabError, match="two sentences or more"):
        studentised_bootstrap(np.ones(1))
    with pytest.raises(SteerlabError, match="finite differences"):
        studentised_bootstrap(np.array([1.0, np.nan]))
