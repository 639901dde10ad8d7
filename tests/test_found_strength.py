"""A strength that is found; answers that begin anew; latents of answers to other questions."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import beta

from steerlab.analysis.calibration import calibrate
from steerlab.core.errors import SteerlabError
from steerlab.core.firing import Firing
from steerlab.estimate.units.off_topic import deranged_pairs, off_topic
from steerlab.scores.restarts import attempts, exact, restarts


def curve(strength: float, *, middle: float = 1.3, slope: float = 4.0) -> float:
    return float(1 / (1 + np.exp(-slope * (strength - middle))))


def outputs(seed: int, *, texts: int = 24, rising: bool = True) -> Callable[[float], np.ndarray]:
    """A run whose outputs are judged 0 or 1, at a planted rate."""
    random = np.random.default_rng(seed)

    def run(strength: float) -> np.ndarray:
        rate = curve(strength)
        return (random.random(texts) < (rate if rising else 1 - rate)).astype(float)

    return run


@pytest.mark.parametrize("rising", [True, False])
@pytest.mark.parametrize("target", [0.3, 0.6])
def test_the_planted_dose_is_within_its_interval(target: float, rising: bool) -> None:
    """Of 100 runs with judgements at random, at least as many as the interval says."""
    share = target if rising else 1 - target
    true = 1.3 + np.log(share / (1 - share)) / 4
    found = [
        calibrate(outputs(seed, rising=rising), target=target, rising=rising, points=2000)
        for seed in range(100)
    ]
    inside = sum(each.low <= true <= each.high for each in found)
    assert inside >= 90
    assert np.median([abs(each.strength - true) for each in found]) < 0.12
    assert np.mean([each.high - each.low for each in found]) < 1.0


def test_more_trials_narrow_the_interval() -> None:
    few, many = (
        calibrate(outputs(1), target=0.5, trials=trials, points=2000) for trials in (4, 40)
    )
    assert many.high - many.low < few.high - few.low
    assert len(many.trials) == 40
    assert list(many.trials) == ["strength", "score", "scores", "chance"]


def test_one_trial_by_hand() -> None:
    """The first is at the median; the chance is of a Beta, and splits what is likely."""
    given = iter([0.9, 0.4])
    found = calibrate(lambda strength: next(given), target=0.5, high=2.0, trials=2, points=2001)
    first, second = found.trials.to_dict("records")
    assert first["strength"] == pytest.approx(1.0, abs=2e-3)
    below = beta.cdf(0.5, 0.5 + 5 * 0.9, 0.5 + 5 * 0.1)
    assert first["chance"] == pytest.approx(below)
    # A share of 1 - below lies evenly from 0 to 1: so does the median within it.
    assert second["strength"] == pytest.approx(0.5 / (1 - below), abs=5e-3)


def test_rows_of_a_sweep_are_trials() -> None:
    random = np.random.default_rng(0)
    rows = pd.DataFrame(
        [
            {"strength": strength, "joint": float(random.random() < curve(strength))}
            for strength in (0.5, 0.9, 1.3, 1.7, 2.1)
            for _ in range(40)
        ]
    )
    found = calibrate(rows, target=0.5, points=2000)
    assert found.low <= 1.3 <= found.high
    assert found.trials["strength"].tolist() == [0.5, 0.9, 1.3, 1.7, 2.1]
    prior = calibrate(rows, target=0.5, points=2000, prior=(1.0, 0.05))
    assert prior.strength < found.strength
    with pytest.raises(SteerlabError, match="the rows have no column 'chrf'; name the scores"):
        calibrate(rows, target=0.5, value="chrf")
    with pytest.raises(SteerlabError, match="no row has a strength from 5.0 to 6.0"):
        calibrate(rows, target=0.5, low=5.0, high=6.0)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"target": 0.0}, "target 0.0 and level 0.95 have to lie between 0 and 1"),
        ({"target": 0.5, "low": 2.0, "high": 1.0}, "strengths from 2.0 to 1.0 are none"),
        ({"target": 0.5, "trials": 0}, "trials is 0"),
        ({"target": 0.5, "high": 0.5}, "is not reached between the strengths 0.0 and 0.5.* at hi"),
        ({"target": 0.5, "low": 2.5}, "is not reached between .* lies at low"),
    ],
)
def test_what_cannot_be_found_is_told(options: dict, told: str) -> None:
    with pytest.raises(SteerlabError, match=told):
        calibrate(outputs(0), **options)


@pytest.mark.parametrize("score", [float("nan"), 1.5, -0.1, []])
def test_scores_are_from_0_to_1(score: object) -> None:
    with pytest.raises(SteerlabError, match="give one score or several, from 0 to 1"):
        calibrate(lambda strength: score, target=0.5)


# ------------------------------------------------------------------------------ answers anew

PLAIN = [
    "A bridge carries its load to the ground by its piers.",
    "Wait for the train at the platform, and let it stop before you board.",
    "No, but thank you. I am sorry that you are ill.",
    "You should let me know. The tyre is off. Again and again it rains.",
]
ANEW = [
    "A bridge is a kind of body position. Wait, that is not about bridges. It carries a load.",
    "Spiders have eight legs.\nLet me start over. An engine burns fuel.",
    "Tea comes from China. I got off topic. Boil the water first.",
    "It is a fruit. Sorry, I went astray there. It is a metal. Scratch that. It is a salt.",
]


@pytest.mark.parametrize("text", PLAIN)
def test_no_attempt_where_none_begins(text: str) -> None:
    assert attempts(text) == [text]


def test_attempts_are_split_where_one_begins() -> None:
    assert [len(attempts(text)) for text in ANEW] == [2, 2, 2, 3]
    assert attempts(ANEW[1]) == [
        "Spiders have eight legs.",
        "Let me start over. An engine burns fuel.",
    ]
    assert attempts("Wait, what?") == ["Wait, what?"], "nothing comes before it"


def test_rates_of_scripted_answers() -> None:
    """The protocol of the measure: words first, then the judge; exact intervals of each."""
    texts = PLAIN * 10 + ANEW + ["so so so so so so it goes"]
    keyed = {"load": 90, "fuel": 80, "Boil": 70}
    table = restarts(
        texts,
        judge=lambda text: "Tea" not in text,
        score=lambda part: max(
            (value for word, value in keyed.items() if word in part), default=10
        ),
    ).set_index("measure")
    assert table.attrs["degenerate"] == 1
    assert table["count"].to_dict() == {
        "multi-attempt": 4,
        "confirmed": 3,
        "recovered": 2,
        "improved": 2,
    }
    assert table["of"].to_dict() == {
        "multi-attempt": 44,
        "confirmed": 44,
        "recovered": 44,
        "improved": 3,
    }
    row = table.loc["multi-attempt"]
    assert row["rate"] == 4 / 44
    # Clopper and Pearson, by their Beta quantiles.
    assert row["low"] == pytest.approx(beta.ppf(0.025, 4, 41))
    assert row["high"] == pytest.approx(beta.ppf(0.975, 5, 40))


def test_of_no_event_the_upper_end_is_known() -> None:
    assert exact(0, 760)[:2] == (0.0, 0.0)
    assert exact(0, 760)[2] == pytest.approx(1 - 0.025 ** (1 / 760))
    assert exact(1, 760)[2] == pytest.approx(0.0073, abs=1e-4)
    assert exact(0, 0)[1:] == (0.0, 1.0)
    with pytest.raises(SteerlabError, match="repeat one word five times"):
        restarts(["no no no no no"])


# ------------------------------------------------------------------------------ off topic


def firing(share: list[list[float]], texts: int = 20) -> Firing:
    """Units on in these shares of the texts, at one layer of one language."""
    made = Firing(("en",), (0,), len(share[0]), 8, site="resid_post")
    made.tokens += 100
    made.texts += texts
    made.texts_on += torch.tensor([share]).double() * texts
    return made


def test_off_topic_latents_are_on_in_deranged_pairs_alone() -> None:
    answered = firing([[0.0, 0.0, 0.5, 0.0]])
    deranged = firing([[0.9, 0.5, 1.0, 0.8]])
    found = off_topic(answered, deranged)
    assert found.chosen[0, 0].tolist() == [True, False, False, True]
    torch.testing.assert_close(found.score[0, 0, 0].double(), torch.tensor(0.9).double())
    with pytest.raises(SteerlabError, match=r"no latent is on in 95% .* at most=0.2 there would"):
        off_topic(answered, deranged, consistency=0.95)
    with pytest.raises(SteerlabError, match="derange the same pairs"):
        off_topic(answered, firing([[0.9, 0.5, 1.0, 0.8]], texts=19))
    with pytest.raises(SteerlabError, match="no latent is on"):
        off_topic(answered, answered)


def test_no_question_keeps_its_answer() -> None:
    questions, answers = [f"q{n}" for n in range(9)], [f"a{n}" for n in range(9)]
    made = deranged_pairs(questions, answers, seed=3)
    assert sorted(text.split()[1] for text in made) == answers
    assert all(text.split()[0][1:] != text.split()[1][1:] for text in made)
    lines = deranged_pairs(questions, answers, between="\n", seed=3)
    assert lines == [text.replace(" ", "\n") for text in made]
    with pytest.raises(SteerlabError, match="give two or more pairs"):
        deranged_pairs(["q"], ["a"])
