"""Agreement between judges, judging again, and the words that name a judge."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import cohen_kappa_score

from steerlab.analysis.intervals import by_sentence, statistic_by_sentence
from steerlab.core.errors import SteerlabError
from steerlab.scores.judges import (
    Embeddings,
    Endpoint,
    Instruct,
    Judge,
    Likelihood,
    Retrieval,
    agreement,
    judge_from,
    rejudge,
)
from steerlab.scores.judges.agreement import kappa, spearman


@dataclass(frozen=True)
class Given:
    """Rates what it is given."""

    ratings: tuple[float, ...]
    name: str = "given"

    def rate(self, answers):
        return {"rating": np.array(self.ratings), "more": [answer.output for answer in answers]}


def rows(count, **columns):
    told = {
        "output": [f"o{i}" for i in range(count)],
        "prompt": "p",
        "question": "q",
        "sentence": np.arange(count) // 2,
    }
    return pd.DataFrame(
        told | {"source": "en", "target": "de", "language": "de", "in_language": True} | columns
    )


def drawn(seed, levels, count=200, noise=0.4):
    random_ = np.random.default_rng(seed)
    a = random_.choice(levels, count)
    b = np.where(random_.random(count) < noise, random_.choice(levels, count), a)
    return a, b


LEVELS = [(0, 0.5, 1), (0, 1), (0, 1 / 3, 2 / 3, 1), (0, 0.25, 1), (0.5, 0.7), (-1, 0, 3)]


@pytest.mark.parametrize("levels", LEVELS)
def test_kappa_keeps_the_distances_of_ratings(levels):
    """The moments' form of the quadratic kappa knows no classes."""
    a, b = drawn(0, levels)
    expected = a.var() + b.var() + (a.mean() - b.mean()) ** 2
    assert kappa(a, b) == pytest.approx(1 - ((a - b) ** 2).mean() / expected)
    places = np.searchsorted(levels, a), np.searchsorted(levels, b)
    by_place = cohen_kappa_score(*places, weights="quadratic")
    apart = np.allclose(np.diff(levels), levels[1] - levels[0])
    assert (kappa(a, b) == pytest.approx(by_place)) == apart, "classes that are not equally far"
    if len(levels) == 2:
        plain = cohen_kappa_score(*places)
        assert kappa(a, b) == pytest.approx(plain), "of two classes the weights say nothing"


def test_kappa_of_ratings_of_any_value_is_near_their_moments():
    random_ = np.random.default_rng(3)
    a = random_.random(500)
    b = np.clip(a + 0.2 * random_.normal(size=500), 0, 1)
    expected = 1 - ((a - b) ** 2).mean() / (a.var() + b.var() + (a.mean() - b.mean()) ** 2)
    assert kappa(a, b) == pytest.approx(expected, abs=0.005)


def test_spearman_is_the_correlation_of_shared_ranks():
    a, b = drawn(0, (0, 0.5, 1))
    first, second = ([np.flatnonzero(np.sort(x) == one).mean() for one in x] for x in (a, b))
    assert spearman(a, b) == pytest.approx(np.corrcoef(first, second)[0, 1])
    assert spearman(a, b) == pytest.approx(spearman(a**3, b)), "of ranks, not of values"


@pytest.mark.filterwarnings("error")
def test_the_measures_of_what_does_not_vary():
    one, varied, none = np.ones(4), np.array([0, 1, 1, 0.5]), np.array([])
    assert np.isnan([kappa(one, one), kappa(none, none)]).all()
    assert np.isnan([spearman(one, one), spearman(one, varied), spearman(none, none)]).all()
    assert kappa(one, varied) == 0, "one judge alone does not vary: no more than chance"
    assert kappa(one, 0 * one) == 0
    assert np.isnan(spearman(one[:1], varied[:1]))


def test_the_intervals_draw_what_the_tables_draw():
    a, b = drawn(5, (0, 1))
    judges, given = {"a": Given(tuple(a)), "b": Given(tuple(b))}, rows(200)
    own = given.assign(
        target=["de", "es"] * 100, sentence=np.arange(200)
    )  # two languages that share none
    for table in (given, own):
        found = agreement(table, judges, resamples=100, seed=2).iloc[0]
        strata = {"strata": table["target"].to_numpy(), "resamples": 100, "seed": 2}
        sentences = table["sentence"].to_numpy()
        equal = by_sentence(a == b, sentences, **strata)
        assert (found["equal"], found["equal_low"], found["equal_high"]) == equal
        by_kappa = statistic_by_sentence(kappa, (a, b), sentences, **strata)
        assert (found["kappa"], found["kappa_low"], found["kappa_high"]) == by_kappa
        strata["seed"] = 3
        assert statistic_by_sentence(kappa, (a, b), sentences, **strata) != by_kappa


def test_one_sentence_has_no_interval():
    table = agreement(
        rows(4, sentence=7), {"a": Given((0, 1, 1, 0)), "b": Given((0, 1, 0, 0))}
    ).iloc[0]
    assert table.kappa == pytest.approx(0.5)
    assert np.isnan([table.kappa_low, table.kappa_high]).all()


def test_equal_judges_agree_and_independent_ones_do_not():
    a, b = drawn(1, (0, 0.5, 1), noise=1.0)
    judges = {"a": Given(tuple(a)), "same": Given(tuple(a)), "other": Given(tuple(b))}
    table = agreement(rows(200), judges, resamples=200)
    assert list(zip(table.a, table.b, strict=True)) == [
        ("a", "same"),
        ("a", "other"),
        ("same", "other"),
    ]
    same, other = table.iloc[0], table.iloc[1]
    assert (same.equal, same.kappa, same.spearman) == (1, 1, pytest.approx(1))
    assert other.kappa_low < 0 < other.kappa_high
    assert other.spearman_low < 0 < other.spearman_high
    assert other.equal_low < 1 / 3 < other.equal_high


def test_intervals_cover_a_planted_kappa():
    """Ratings shared with chance 0.6 have kappa 0.6; eight rows that repeat each other are one
    sentence."""
    covered, one_by_one = 0, 0
    for seed in range(25):
        a, b = (np.repeat(values, 8) for values in drawn(seed, (0, 1), count=60))
        for sentences in (np.arange(480) // 8, np.arange(480)):
            _, low, high = statistic_by_sentence(kappa, (a, b), sentences, resamples=100)
            if len(set(sentences)) == 60:
                covered += low <= 0.6 <= high
            else:
                one_by_one += low <= 0.6 <= high
    assert covered >= 20
    assert one_by_one <= 17, "the control: rows taken one by one make the interval too narrow"


def test_what_cannot_be_read_is_counted_and_left_out():
    nan = float("nan")
    table = agreement(
        rows(5), {"a": Given((1, nan, 0, nan, 1)), "b": Given((1, 0, nan, 1, 0))}, resamples=20
    ).iloc[0]
    assert (table.n, table.unreadable_a, table.unreadable_b, table.equal) == (2, 2, 1, 0.5)
    empty = agreement(rows(2), {"a": Given((nan, nan)), "b": Given((1, 0))}).iloc[0]
    assert (empty.n, empty.unreadable_a) == (0, 2)
    assert np.isnan([empty.equal, empty.kappa, empty.spearman]).all()


def test_where_nothing_varies_there_is_no_kappa():
    table = agreement(rows(4), {"a": Given((1,) * 4), "b": Given((1,) * 4)}).iloc[0]
    assert table.equal == 1
    assert np.isnan([table.kappa, table.spearman, table.kappa_low]).all()


def test_rows_are_judged_again_beside_or_in_place_of_what_is_there():
    given = rows(3, rating=0.0, relevant=False, joint=False, in_language=[True, False, True])
    judge = Given((1, 1, float("nan")))
    beside = rejudge(given, judge, prefix="new_")
    assert beside["new_relevant"].tolist() == [True, True, False]
    assert beside["new_joint"].tolist() == [True, False, False]
    assert not beside["relevant"].any()
    assert beside["new_more"].tolist() == ["o0", "o1", "o2"]
    instead = rejudge(given, judge)
    assert instead["relevant"].tolist() == [True, True, False]
    assert list(instead["output"]) == list(given["output"])
    assert "rating" not in rejudge(given.drop(columns="rating"), judge, prefix="x_")


def test_rows_without_a_column_and_a_single_judge_are_refused():
    with pytest.raises(SteerlabError, match="need the column 'question'; they have output, prompt"):
        rejudge(rows(2).drop(columns="question"), Given((1, 1)))
    with pytest.raises(SteerlabError, match="two judges or more; 1 were given"):
        agreement(rows(2), {"a": Given((1, 1))})


def test_retrieval_and_likelihood_agree_on_gold_and_shuffled_outputs(polyglot, lines):
    dev, made = lines.split("dev").take(40), []
    for other in (0, 7):
        for place in range(12):
            text = dev["en"][place]
            made.append(
                (dev["es"][place + other], text + "\n", text, dev.numbers[place], "en", "es", "es")
            )
    names = ["output", "prompt", "question", "sentence", "source", "target", "language"]
    table = pd.DataFrame(made, columns=names)
    judges: dict[str, Judge] = {
        "retrieval": Retrieval(dev),
        "likelihood": Likelihood(dev, polyglot, distractors=5),
    }
    found = agreement(table, judges, resamples=100).iloc[0]
    assert found.n == 24
    assert found.kappa > 0.6
    assert found.kappa_low > 0.3


def test_words_for_judges(lines, tmp_path):
    dev = lines.split("dev")
    assert judge_from("retrieval", references=dev) == Retrieval(dev)
    assert judge_from("likelihood", references=dev, model="polyglot") == Likelihood(dev, "polyglot")
    assert judge_from("model:some/model") == Instruct("some/model")
    assert judge_from("embeddings:a/b", references=dev) == Embeddings(dev, "a/b")
    url = "http://127.0.0.1:8000/v1"
    assert judge_from(url, judge_model="m", cache=tmp_path) == Endpoint(url, "m", cache=tmp_path)


@pytest.mark.parametrize(
    ("word", "options", "told"),
    [
        (
            "gpt",
            {},
            "no judge 'gpt'; the judges are retrieval, likelihood, model:ID_OR_FOLDER, http",
        ),
        ("model:", {}, "no judge 'model:'"),
        ("embeddings", {}, "no judge 'embeddings'"),
        ("retrieval", {}, "compares with other sentences; give references"),
        ("likelihood", {}, "compares with other sentences"),
        ("model:a/b", {"judge_model": "m"}, "is named for a URL only; the judge is 'model:a/b'"),
        ("http://127.0.0.1/v1", {}, "needs the name of a model; give --judge-model NAME"),
    ],
)
def test_words_that_name_no_judge(word, options, told):
    with pytest.raises(SteerlabError, match=told):
        judge_from(word, **options)
