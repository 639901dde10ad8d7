"""What a choice of setting costs an interval, and lines that chose a layer do not show it."""

import numpy as np
import pandas as pd
import pytest

from steerlab.analysis.choices import choice_stability, choose, halves
from steerlab.analysis.dose import along, along_held_out
from steerlab.analysis.intervals import by_sentence
from steerlab.core.errors import SteerlabError

LAYERS = (2, 4, 6)


def split(
    rng: np.random.Generator, name: str, shares: tuple[float, ...], sentences: int
) -> pd.DataFrame:
    """Rows of one method at three layers and two strengths; the larger does nothing more."""
    parts = []
    for layer, share in zip(LAYERS, shares, strict=True):
        for strength in (0.5, 1.0):
            hits = (rng.random(sentences) < share * strength).astype(float)
            part = pd.DataFrame({"sentence": np.arange(sentences), "joint": hits})
            part["in_language"] = hits
            parts.append(part.assign(layer=layer, strength=strength, dose=strength))
    rows = pd.concat(parts, ignore_index=True)
    return rows.assign(split=name, method="diffmean", target="es")


def test_a_plain_winner_is_chosen_always_and_its_interval_is_the_usual_one() -> None:
    rng = np.random.default_rng(0)
    dev, test = (split(rng, name, (0.05, 0.6, 0.05), 80) for name in ("dev", "test"))
    found = choice_stability(dev, test, "diffmean")
    assert found.setting == choose(dev)["diffmean"] == (4, 1.0)
    assert found.same > 0.99
    own = test[(test["layer"] == 4) & (test["strength"] == 1.0)]
    value, low, high = by_sentence(own["joint"].to_numpy(), own["sentence"].to_numpy())
    assert found.value == value
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.03)


def test_settings_that_hardly_differ_are_chosen_by_luck() -> None:
    rng = np.random.default_rng(1)
    dev = split(rng, "dev", (0.5, 0.52, 0.48), 30)
    # On test one of the three does nothing: the choice decides the score.
    test = split(rng, "test", (0.5, 0.5, 0.0), 60)
    found = choice_stability(dev, test, "diffmean")
    assert found.same < 0.9
    assert len(found.picks) > 1
    assert sum(found.picks.values()) == pytest.approx(1)
    assert list(found.picks.values()) == sorted(found.picks.values(), reverse=True)
    fixed = test[(test["layer"] == found.setting[0]) & (test["strength"] == found.setting[1])]
    _, low, high = by_sentence(fixed["joint"].to_numpy(), fixed["sentence"].to_numpy())
    assert found.high - found.low > high - low


def test_the_interval_with_the_choice_inside_covers_the_procedure() -> None:
    """The truth is the mean over all choices that dev lines make; at a fixed setting the interval
    of the chosen one misses it."""
    rng = np.random.default_rng(2)
    shares = (0.55, 0.5, 0.45)
    truths = dict(zip(LAYERS, (0.7, 0.5, 0.1), strict=True))
    chosen = [choose(split(rng, "dev", shares, 20))["diffmean"] for _ in range(80)]
    truth = float(np.mean([truths[layer] * strength for layer, strength in chosen]))
    inside, fixed = 0, 0
    for _ in range(40):
        dev = split(rng, "dev", shares, 20)
        test = split(rng, "test", (0.7, 0.5, 0.1), 60)
        found = choice_stability(dev, test, "diffmean", resamples=200)
        inside += found.low <= truth <= found.high
        own = test[(test["layer"] == found.setting[0]) & (test["strength"] == found.setting[1])]
        _, low, high = by_sentence(own["joint"].to_numpy(), own["sentence"].to_numpy())
        fixed += low <= truth <= high
    assert inside / 40 > 0.85
    assert fixed / 40 < 0.7, "the negative control: the choice left out"


def test_ties_go_as_ranking_has_them() -> None:
    rows = split(np.random.default_rng(3), "dev", (1.0, 1.0, 1.0), 10)
    rows[["joint", "in_language"]] = 1.0  # equal everywhere: the least dose, the lowest layer
    found = choice_stability(rows, rows, "diffmean", resamples=50)
    assert found.setting == (2, 0.5)
    assert found.same == 1.0
    assert found.low == found.value == found.high == 1.0


def test_what_was_not_read_is_said() -> None:
    rng = np.random.default_rng(4)
    dev, test = split(rng, "dev", (0.5, 0.5, 0.5), 20), split(rng, "test", (0.5, 0.5, 0.5), 20)
    with pytest.raises(SteerlabError, match=r"lack \d settings that dev may choose.*read test"):
        choice_stability(dev, test[test["layer"] == 2], "diffmean")
    with pytest.raises(SteerlabError, match="no dev rows of 'lda'; there are rows of diffmean"):
        choice_stability(dev, test, "lda")
    with pytest.raises(SteerlabError, match="dev rows only"):
        choice_stability(test, test, "diffmean")
    with pytest.raises(SteerlabError, match="two sentences or more"):
        choice_stability(dev[dev["sentence"] == 0], test, "diffmean")
    # Two sentences on each side are enough.
    few_dev, few_test = (rows[rows["sentence"] < 2] for rows in (dev, test))
    assert 0 <= choice_stability(few_dev, few_test, "diffmean", resamples=20).same <= 1


def test_curves_are_read_on_lines_that_did_not_choose_the_layer() -> None:
    """Layers of pure chance: the best of many is lucky on the lines that chose it, there alone."""
    rng = np.random.default_rng(5)
    lucky, fair = [], []
    for _ in range(40):
        dev = split(rng, "dev", (0.5, 0.5, 0.5), 16)
        dev["dose"] = dev["strength"]
        found = along_held_out(dev, ["diffmean"], main="diffmean")
        same = along(dev, choose(dev), main="diffmean")
        fair.append(found["curves"]["diffmean"]["least"]["highest"])
        lucky.append(same["curves"]["diffmean"]["least"]["highest"])
    assert np.mean(lucky) > 0.57, "the negative control"
    assert abs(np.mean(fair) - 0.5) < 0.06


def test_which_lines_did_what_is_said() -> None:
    dev = split(np.random.default_rng(6), "dev", (0.2, 0.9, 0.2), 9)
    found = along_held_out(dev, ["diffmean"], main="diffmean")
    assert found["held out"]
    assert found["sentences"] == {"chosen on": 4, "read on": 5}
    assert found["curves"]["diffmean"]["layer"] == 4
    one, other = halves(dev)
    assert not set(one["sentence"]) & set(other["sentence"])
    few = along_held_out(dev[dev["sentence"] < 3], ["diffmean"], main="diffmean")
    assert not few["held out"]
    assert few["sentences"] == {"chosen on": 3, "read on": 3}
