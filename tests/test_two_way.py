"""Intervals over sentences and the seeds of a control: they cover other seeds, and those over
sentences alone do not."""

import numpy as np
import pandas as pd
import pytest

from steerlab.analysis.clustered import clustered_mean
from steerlab.analysis.comparisons import comparisons
from steerlab.analysis.intervals import by_sentence, harmonic_by_sentence, paired_difference
from steerlab.analysis.results import difference, outputs, result
from steerlab.analysis.tests import over_seeds, paired_test
from steerlab.core.errors import SteerlabError

SENTENCES, TARGETS, SEEDS, SHARE = 60, 4, 5, 0.3
ROWS = np.repeat(np.arange(SENTENCES), TARGETS)
SEED = ROWS % SEEDS  # sentence i takes seed i mod n


def control(rng: np.random.Generator, spread: float) -> np.ndarray:
    """Zeros and ones `[row]`: half of each chance is its sentence's, half its seed's."""
    easy = rng.beta(4 * SHARE, 4 * (1 - SHARE), SENTENCES)
    good = np.full(SEEDS, SHARE)
    if spread:
        good = rng.beta(SHARE / spread, (1 - SHARE) / spread, SEEDS)
    return rng.random(len(ROWS)) < (easy[ROWS] + good[SEED]) / 2


def covers(interval: tuple[float, float, float], truth: float) -> bool:
    return interval[1] <= truth <= interval[2]


def test_the_interval_covers_other_seeds_and_sentences_alone_do_not() -> None:
    rng = np.random.default_rng(0)
    both, alone, paired, harmonic = [], [], [], []
    for _ in range(250):
        values = control(rng, 0.2)
        method = rng.random(len(ROWS)) < 0.6
        alone.append(covers(by_sentence(values, ROWS), SHARE))
        both.append(covers(by_sentence(values, ROWS, control_seeds=SEED), SHARE))
        less = paired_difference(method, ROWS, values, ROWS, b_seeds=SEED)
        paired.append(covers(less, 0.6 - SHARE))
        combined = harmonic_by_sentence(values, method, ROWS, control_seeds=SEED)
        harmonic.append(covers(combined, 2 * 0.6 * SHARE / (0.6 + SHARE)))
    assert np.mean(alone) < 0.85, "the negative control: sentences alone"
    assert np.mean(both) > 0.92
    assert np.mean(paired) > 0.92
    assert np.mean(harmonic) > 0.92


def test_p_covers_other_seeds_and_signs_of_sentences_do_not() -> None:
    """A control that over all seeds is as good as the method: its five seeds are by luck not."""
    rng = np.random.default_rng(3)
    alone, both = [], []
    for _ in range(150):
        values, method = control(rng, 0.2), rng.random(len(ROWS)) < SHARE
        sides = (method, ROWS, values, ROWS)
        alone.append(paired_test(*sides, draws=199).p)
        both.append(paired_test(*sides, b_seeds=SEED, draws=199).p)
        assert both[-1] >= alone[-1]
        assert paired_test(values, ROWS, method, ROWS, a_seeds=SEED, draws=199).p >= both[-1] - 0.1
    assert np.mean(np.array(alone) <= 0.05) > 0.15, "the negative control: signs of sentences"
    assert np.mean(np.array(both) <= 0.05) < 0.08


def test_a_method_far_above_a_control_of_seeds_is_still_found() -> None:
    rng = np.random.default_rng(4)
    values, method = control(rng, 0.05), rng.random(len(ROWS)) < 0.9
    assert paired_test(method, ROWS, values, ROWS, b_seeds=SEED).p < 0.005


def test_one_seed_leaves_p_as_it_is() -> None:
    rng = np.random.default_rng(5)
    values, method = control(rng, 0.2), rng.random(len(ROWS)) < SHARE
    sides = (method, ROWS, values, ROWS)
    plain = paired_test(*sides, draws=199)
    one = np.zeros(len(ROWS), int)
    assert paired_test(*sides, a_seeds=one, b_seeds=one, draws=199) == plain
    flat = np.ones(len(ROWS))
    assert paired_test(flat, ROWS, flat, ROWS, b_seeds=SEED, draws=199).p == 1.0


def test_the_p_over_seeds_is_that_of_the_interval() -> None:
    """The 1 - p interval of Student's t ends at 0."""
    rng = np.random.default_rng(6)
    values, method = control(rng, 0.2) * 3.0, rng.random(len(ROWS)) * 2
    first = clustered_mean(method, ROWS)
    second = clustered_mean(values, ROWS, control_seeds=SEED)
    p = over_seeds(first, second)
    interval = paired_difference(method, ROWS, values, ROWS, b_seeds=SEED, level=1 - p)
    assert min(abs(end) for end in interval[1:]) == pytest.approx(0, abs=1e-9)
    assert over_seeds(first, first) == 0.0


def test_comparisons_take_the_seeds_of_their_rows() -> None:
    rng = np.random.default_rng(7)
    table = pd.DataFrame({"sentence": ROWS, "target": np.tile(list("abcd"), SENTENCES)})
    method = table.assign(seed=0, joint=rng.random(len(ROWS)) < 0.45)
    seeded = table.assign(seed=SEED, joint=control(rng, 0.2))
    with_seeds = comparisons({"m": method, "c": seeded}, [("m", "c")], family="one")
    without = comparisons({"m": method, "c": seeded.assign(seed=0)}, [("m", "c")], family="one")
    p = with_seeds["pairs"]["m"]["c"]["p"]
    assert p > without["pairs"]["m"]["c"]["p"]
    first = clustered_mean(method["joint"].to_numpy(), ROWS)
    second = clustered_mean(seeded["joint"].to_numpy(), ROWS, control_seeds=SEED)
    assert p == over_seeds(first, second)


def test_seeds_that_do_not_differ_cost_little() -> None:
    rng = np.random.default_rng(1)
    widths = []
    for _ in range(100):
        values = control(rng, 0)
        _, low, high = by_sentence(values, ROWS)
        _, least, most = by_sentence(values, ROWS, control_seeds=SEED)
        assert most - least >= high - low - 1e-12
        widths.append((most - least) / (high - low))
    assert np.median(widths) < 1.5


def test_one_seed_is_no_seed_and_the_names_of_seeds_say_nothing() -> None:
    values = control(np.random.default_rng(2), 0.4)
    plain = by_sentence(values, ROWS)
    assert by_sentence(values, ROWS, control_seeds=np.zeros_like(SEED)) == plain
    several = by_sentence(values, ROWS, control_seeds=SEED)
    assert several != plain
    names = np.array(list("dbeca"))[SEED]
    assert by_sentence(values, ROWS, control_seeds=names) == pytest.approx(several)


def test_the_variance_of_two_ways_by_hand() -> None:
    """Numbers beyond 0 and 1 get Student's interval of the larger way, here that of seeds."""
    values = np.array([0.0, 1, 0, 5, 6, 5, 9, 9, 8])
    seeds = np.repeat([0, 1, 2], 3)
    value, low, high = by_sentence(values, np.arange(9), control_seeds=seeds)
    sums = np.array([(values[seeds == each] - values.mean()).sum() / 9 for each in range(3)])
    half = 4.302653 * np.sqrt(3 / 2 * (sums**2).sum())  # t of 2 degrees of freedom
    assert (value, low, high) == pytest.approx((values.mean(), value - half, value + half))


def test_every_sentence_under_every_seed_is_crossed() -> None:
    """Ten seeds of each sentence: what seeds add is beyond the noise of single rows."""
    rng = np.random.default_rng(3)
    sentences, seeds = np.repeat(np.arange(30), 10), np.tile(np.arange(10), 30)
    noise = rng.random(300) < 0.4
    with_seeds = by_sentence(noise, sentences, control_seeds=seeds)
    without = by_sentence(noise, sentences)
    assert with_seeds[2] - with_seeds[1] < 1.5 * (without[2] - without[1])
    good = rng.random(10)[seeds] > 0.5
    assert np.ptp(by_sentence(good, sentences, control_seeds=seeds)[1:]) > 0.5


def test_results_and_differences_take_the_column_of_seeds() -> None:
    rng = np.random.default_rng(4)
    hits = control(rng, 0.4).astype(float)
    rows = pd.DataFrame(
        {
            "operator": "add",
            "layer": 1,
            "strength": 1.0,
            "dose": 1.0,
            "output": "x",
            "target": np.tile(list("abcd"), SENTENCES),
            "sentence": ROWS,
            "seed": SEED,
            "joint": hits,
            "in_language": hits,
            "relevant": hits,
        }
    )
    single = rows.assign(seed=0)
    expected = by_sentence(hits, ROWS, control_seeds=SEED)
    assert result(rows)["joint"] == pytest.approx(list(expected))
    assert result(single)["joint"] == pytest.approx(list(by_sentence(hits, ROWS)))
    method = single.assign(joint=1.0 - hits)
    wide, narrow = difference(method, rows)["joint"], difference(method, single)["joint"]
    assert wide[0] == narrow[0]
    assert wide[2] - wide[1] > narrow[2] - narrow[1]
    twice = pd.concat([rows, rows.assign(joint=0.0)])  # two samples of each output
    assert len(outputs(twice)) == len(rows), "samples are averaged"
    assert outputs(twice)["seed"].nunique() == SEEDS, "and seeds stay"


def test_seeds_of_other_rows_are_refused() -> None:
    with pytest.raises(SteerlabError, match=r"seeds have shape \(2,\), sentences \(3,\)"):
        by_sentence(np.ones(3), np.arange(3), control_seeds=np.arange(2))
