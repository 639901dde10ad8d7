"""External axes: what scores of words plant is found, and what they do not is not."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.decomposition import FastICA
from sklearn.linear_model import RidgeCV
from sklearn.preprocessing import StandardScaler

from steerlab.analysis.matched_pairs import matched_by
from steerlab.core.errors import SteerlabError
from steerlab.core.word_vectors import WordVectors
from steerlab.engine.collect_words import collect_words
from steerlab.estimate.axis import ALPHAS, axis, independent, log_frequency, read_axes

WIDTH = 12


def planted(count: int = 200, seed: int = 0) -> tuple[WordVectors, dict[str, float], torch.Tensor]:
    """Vectors of words that grow along a direction with their score; dimensions differ in scale."""
    random = torch.Generator().manual_seed(seed)
    score = torch.randn(count, generator=random)
    along = torch.nn.functional.normalize(torch.randn(2, WIDTH, generator=random), dim=-1)
    noise = torch.randn(count, 2, WIDTH, generator=random) * torch.linspace(0.1, 1, WIDTH)
    vectors = 5 + noise + 3 * score[:, None, None] * along
    words = tuple(f"word{number}" for number in range(count))
    made = WordVectors(words, vectors, torch.ones(count).long(), (1, 4))
    return made, dict(zip(words, score.tolist(), strict=True)), along


def test_a_planted_axis_is_found_and_shuffled_scores_are_not() -> None:
    made, scores, along = planted()
    found = axis(made, scores)
    step = found.between("low", "high")
    assert (found.langs, found.layers, found.estimator) == (("low", "high"), (1, 4), "axis")
    torch.testing.assert_close(step.unit.norm(dim=-1), torch.ones(2))
    # The means of the words below and above the median lie apart along the planted direction, and
    # the axis leads from one to the other.
    across = (found.means[1] - found.means[0]).double()
    cosine = torch.nn.functional.cosine_similarity(across, along.double(), dim=-1)
    assert bool((cosine > 0.95).all())
    assert bool(((step.unit * along).sum(-1) > 0.3).all())
    assert min(found.provenance["settings"]["r"]) > 0.9
    values = np.random.default_rng(0).permutation(list(scores.values()))
    shuffled = axis(made, dict(zip(scores, values.tolist(), strict=True)))
    assert max(map(abs, shuffled.provenance["settings"]["r"])) < 0.4


def test_the_ridge_is_scikit_learns() -> None:
    """In the space of the activations the gradient is coefficients over deviations; the released
    code multiplies."""
    made, scores, _ = planted(60)
    from sklearn.model_selection import train_test_split

    train, test = train_test_split(np.arange(60), test_size=0.2, random_state=0)
    x, y = made.vectors[:, 1].double().numpy(), np.array(list(scores.values()))
    scaler = StandardScaler().fit(x[train])
    ridge = RidgeCV(alphas=ALPHAS).fit(scaler.transform(x[train]), y[train])
    r = np.corrcoef(ridge.predict(scaler.transform(x[test])), y[test])[0, 1]
    for published, wanted in (
        (False, ridge.coef_ / scaler.scale_),
        (True, ridge.coef_ * scaler.scale_),
    ):
        found = axis(made, scores, published=published)
        unit = found.between("low", "high").unit[1].double().numpy()
        np.testing.assert_allclose(unit, wanted / np.linalg.norm(wanted), atol=1e-5)
        assert found.provenance["settings"]["r"][1] == pytest.approx(r)


def test_components_are_scikit_learns() -> None:
    random = np.random.default_rng(0)
    sources = random.laplace(size=(300, 3))
    table = pd.DataFrame(
        sources @ random.normal(size=(3, 3)),
        index=[f"w{n}" for n in range(300)],
        columns=list("abc"),
    )
    found = independent(table)
    wanted = FastICA(3, random_state=0, whiten="unit-variance", max_iter=1000).fit_transform(table)
    np.testing.assert_allclose(found.to_numpy(), wanted)
    # Each source is one of the components, up to sign and order; of the scores none is.
    match = np.abs(np.corrcoef(found.to_numpy().T, sources.T)[:3, 3:])
    assert match.max(0).min() > 0.95
    assert np.abs(np.corrcoef(table.to_numpy().T, sources.T)[:3, 3:]).max(0).min() < 0.95
    with pytest.raises(SteerlabError, match="4 components of 3 scores of 300 words"):
        independent(table, components=4)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"word0": float("nan")}, "the scores hold NaN or infinity"),
        ({f"word{n}": 1.0 for n in range(200)}, "all words have one score"),
    ],
)
def test_scores_that_make_no_axis_are_told(change: dict[str, float], told: str) -> None:
    made, scores, _ = planted()
    with pytest.raises(SteerlabError, match=told):
        axis(made, scores | change)


def test_too_few_words_are_told() -> None:
    made, scores, _ = planted()
    with pytest.raises(
        SteerlabError, match="9 of 9 words with a score were read; an axis needs 10"
    ):
        axis(made, {word: scores[word] for word in list(scores)[:9]})
    with pytest.raises(SteerlabError, match="0 of 2 words with a score were read"):
        axis(made, {"a": 1.0, "b": 2.0})
    with pytest.raises(SteerlabError, match="held_out is 1.0"):
        axis(made, scores, held_out=1.0)


# ------------------------------------------------------------------------------ words and tables


def test_words_are_averaged_over_their_tokens(polyglot: Any) -> None:
    """Against the model's own states: each token of each place once, whatever its capitals."""
    texts = ["The weather is nice.", "Nice weather, the weathering of a stone.", "Nothing here."]
    found = collect_words(polyglot, ["weather", "NICE", "xylophone"], texts, layers=[2])
    assert (found.words, found.absent) == (("weather", "nice"), ("xylophone",))
    tokenizer = polyglot.tokenizer
    sums, count = torch.zeros(2, polyglot.width), [0, 0]
    for text in texts:
        given = tokenizer(text, return_offsets_mapping=True, add_special_tokens=False)
        ids = torch.tensor([[tokenizer.bos_token_id, *given.input_ids]])
        with torch.no_grad():
            states = polyglot.hf(ids, output_hidden_states=True).hidden_states[3][0, 1:]
        spans = {
            0: [(4, 11)]
            if text.startswith("The")
            else [(5, 12)]
            if text.startswith("Nice")
            else [],
            1: [(15, 19)]
            if text.startswith("The")
            else [(0, 4)]
            if text.startswith("Nice")
            else [],
        }
        for word, places in spans.items():
            for first, last in places:
                for place, (start, end) in enumerate(given.offset_mapping):
                    if end > first and start < last and text[start:end].strip():
                        sums[word] += states[place]
                        count[word] += 1
    assert found.count.tolist() == count
    torch.testing.assert_close(
        found.vectors[:, 0], sums / torch.tensor(count)[:, None], atol=1e-4, rtol=1e-4
    )


def test_a_list_that_no_text_holds_is_told(polyglot: Any) -> None:
    with pytest.raises(SteerlabError, match="no text holds any of the words xylophone, zither"):
        collect_words(polyglot, ["xylophone", "zither"], ["The weather is nice."], layers=[2])
    with pytest.raises(SteerlabError, match="there are no words"):
        collect_words(polyglot, [], ["The weather is nice."], layers=[2])


def test_log_frequency_counts_words() -> None:
    found = log_frequency(["The dog and the cat.", "the end"], least=1)
    assert found["the"] == pytest.approx(np.log(3))
    assert found["cat"] == 0
    assert set(log_frequency(["a a b"])) == {"a"}
    with pytest.raises(SteerlabError, match="no word stands 5 times"):
        log_frequency(["a b c"], least=5)


def test_a_users_table_is_read(tmp_path: Path) -> None:
    file = tmp_path / "atlas.csv"
    file.write_text("word,alpha,beta\nDog,1.5,2\ncat,0,-1\n", "utf-8")
    table = read_axes(file)
    assert table["alpha"].to_dict() == {"dog": 1.5, "cat": 0.0}
    assert list(table) == ["alpha", "beta"]
    for text, told in (
        ("word,alpha\ndog,1\nDog,2\n", "'dog' stands twice"),
        ("word,alpha\ndog,much\n", "could not convert string to float"),
        ("word,alpha\ndog,\n", "has a word without a number"),
        ("word\ndog\n", "has 1 columns"),
    ):
        file.write_text(text, "utf-8")
        with pytest.raises(SteerlabError, match=told):
            read_axes(file)
    with pytest.raises(SteerlabError, match="there is no file"):
        read_axes(tmp_path / "none.csv")


# ------------------------------------------------------------------------------ equal cost


def test_a_difference_that_is_all_cost_vanishes_at_equal_cost() -> None:
    """A value that only follows the cost does not differ within pairs of equal cost; one of its own
    does."""
    random = np.random.default_rng(0)
    rows = pd.DataFrame({"group": ["low"] * 80 + ["high"] * 80})
    rows["bits"] = random.normal(size=160) + 1.5 * (rows["group"] == "high")
    rows["follows"] = rows["bits"] + 0.1 * random.normal(size=160)
    rows["own"] = (rows["group"] == "high") + 0.1 * random.normal(size=160)
    near = rows[rows["bits"].between(0.3, 1.2)]
    followed = matched_by(near, by="bits", group="group", value="follows", within=0.2)
    assert abs(followed["gap"]) < 0.1
    assert 10 < followed["pairs"] < near["group"].value_counts().min()
    assert abs(followed["difference"]) < 0.2
    plain = rows.groupby("group")["follows"].mean()
    assert plain["high"] - plain["low"] > 1
    own = matched_by(near, by="bits", group="group", value="own")
    assert own["high"] < 0 < -own["difference"], "the second group by name less the first"
    assert own["pairs"] == near["group"].value_counts().min()
    with pytest.raises(SteerlabError, match="no two outputs are within 0.0 in bits"):
        matched_by(near, by="bits", group="group", value="own", within=0.0)
    with pytest.raises(SteerlabError, match="have no column 'nats'"):
        matched_by(rows, by="nats", group="group", value="own")
    with pytest.raises(SteerlabError, match="group has 1 groups"):
        matched_by(rows[:80], by="bits", group="group", value="own")
