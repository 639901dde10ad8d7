"""Transfer is directed: planted distances and effects are found, each from its own half."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy.stats import kstest

from steerlab.analysis.effects.learning import conflict, few_shot_curve, forgetting
from steerlab.analysis.effects.transfer import transfer, transfer_matrix, transfer_regression
from steerlab.core.errors import SteerlabError

COUNT = 9


def planted(seed: int, *, beta: float = 0.0) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """A directed matrix: source and target effects, beta times a skew distance, noise."""
    random = np.random.default_rng(seed)
    near, other = random.standard_normal((2, COUNT, COUNT))
    effects = 3 * random.standard_normal((COUNT, 1)) + 3 * random.standard_normal((1, COUNT))
    noise = random.standard_normal((COUNT, COUNT))
    return effects + beta * near + noise, {"near": near, "other": other}


def columns(matrix: np.ndarray) -> np.ndarray:
    return matrix[~np.eye(COUNT, dtype=bool)]


def test_regression_agrees_with_least_squares_with_dummies() -> None:
    matrix, distances = planted(0, beta=1.0)
    table: Any = transfer_regression(matrix, distances, permutations=50).set_index("distance")
    rows, cols = np.nonzero(~np.eye(COUNT, dtype=bool))
    standard = {
        name: (columns(m) - columns(m).mean()) / columns(m).std()
        for name, m in {"y": matrix, **distances}.items()
    }
    dummies = pd.get_dummies(pd.DataFrame({"a": rows, "b": cols}).astype(str), drop_first=True)
    design = dummies.astype(float).assign(near=standard["near"], other=standard["other"], one=1.0)
    fit = sm.OLS(standard["y"], design).fit()
    assert table["beta"].to_dict() == pytest.approx(fit.params[["near", "other"]].to_dict())
    assert table["r2"].iloc[0] == pytest.approx(fit.rsquared)
    effects = sm.OLS(standard["y"], design.drop(columns=["near", "other"])).fit()
    assert table["r2_effects"].iloc[0] == pytest.approx(effects.rsquared)
    # The partial correlation follows from the t value.
    t = fit.tvalues["near"]
    assert table.loc["near", "r"] == pytest.approx(t / np.sqrt(t**2 + fit.df_resid))
    assert table[["n", "pairs"]].iloc[0].tolist() == [COUNT, COUNT * (COUNT - 1)]


def test_a_planted_distance_is_found_and_the_other_is_not() -> None:
    table: Any = transfer_regression(*planted(1, beta=1.5), permutations=499).set_index("distance")
    assert table.loc["near", "p_corrected"] < 0.01
    assert table.loc["other", "p"] > 0.05


def test_both_halves_are_read() -> None:
    """A distance that holds in one half alone and is opposite in the other explains nothing when
    the two are averaged; here it is read as what it is."""
    random = np.random.default_rng(2)
    skew = random.standard_normal((COUNT, COUNT))
    skew = skew - skew.T
    matrix = skew + 0.3 * random.standard_normal((COUNT, COUNT))
    found: Any = transfer_regression(matrix, {"skew": skew}, permutations=199)
    assert found["p"].iloc[0] == pytest.approx(1 / 200)
    # The average of the halves has nothing of it.
    symmetric = (matrix + matrix.T) / 2
    assert abs(np.corrcoef(columns(symmetric), columns(skew))[0, 1]) < 1e-6
    turned = transfer_regression(matrix.T, {"skew": skew}, permutations=50)
    assert turned["beta"].iloc[0] == pytest.approx(-found["beta"].iloc[0])


def test_p_is_uniform_where_only_sources_and_targets_differ() -> None:
    found = []
    for seed in range(80):
        matrix, distances = planted(seed)
        # A distance that goes with good sources: with effects it is no evidence.
        distances["near"] += matrix.mean(1, keepdims=True)
        table = transfer_regression(matrix, distances, permutations=99, seed=seed)
        found.append(table["p"].iloc[0])
    assert kstest(found, "uniform").pvalue > 0.01
    # Without the effects the same distance is taken for a cause.
    matrix, distances = planted(0)
    distances["near"] += matrix.mean(1, keepdims=True)
    naive: Any = transfer_regression(matrix, distances, effects=False, permutations=99)
    assert naive["p"].iloc[0] < 0.05


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m, d: (m[:4, :4], {"near": d["near"][:4, :4]}), "4 languages"),
        (lambda m, d: (m[:, :5], d), "same languages on both sides"),
        (lambda m, d: (m, {}), "no distance"),
        (lambda m, d: (m, {"near": d["near"][:5, :5]}), "same languages in the same order"),
        (lambda m, d: (m, {"size": np.tile(np.arange(9.0)[:, None], 9)}), "no share of its own"),
        (lambda m, d: (m, {"one": np.ones((9, 9))}), "nothing to explain"),
        (lambda m, d: (np.where(m == m[0, 1], np.nan, m), d), "lacks the pairs 0 to 1"),
    ],
)
def test_matrices_that_cannot_be_read_raise(change, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(SteerlabError, match=message):
        transfer_regression(*change(*planted(0)), permutations=9)


def outputs(scores: dict[tuple[str, str], list[float]], **more: Any) -> pd.DataFrame:
    rows = []
    for (source, target), values in scores.items():
        for sentence, value in enumerate(values):
            rows.append((source, target, sentence, value))
    return pd.DataFrame(rows, columns=["source", "target", "sentence", "joint"]).assign(**more)


def test_transfer_is_a_mean_for_every_ordered_pair() -> None:
    rows = outputs({("de", "nl"): [1, 1, 0, 0], ("nl", "de"): [1, 1, 1, 0], ("de", "de"): [1] * 4})
    table: Any = transfer(rows)
    assert table[["source", "target", "own", "value", "n"]].to_numpy().tolist() == [
        ["de", "nl", False, 0.5, 4],
        ["nl", "de", False, 0.75, 4],
        ["de", "de", True, 1.0, 4],
    ]
    assert (table["low"] <= table["value"]).all()
    assert (table["value"] <= table["high"]).all()
    langs, matrix = transfer_matrix(table)
    assert langs == ["de", "nl"]
    assert matrix[0].tolist() == [1.0, 0.5]
    assert matrix[1, 0] == 0.75
    assert np.isnan(matrix[1, 1])


def test_transfer_of_several_settings_raises() -> None:
    rows = outputs({("de", "nl"): [1, 0]}, layer=3)
    both = pd.concat([rows, rows.assign(layer=4)])
    with pytest.raises(SteerlabError, match="several values of 'layer'"):
        transfer(both)


def test_a_curve_gains_over_the_fewest_examples() -> None:
    random = np.random.default_rng(0)
    parts = []
    for shots, share in ((0, 0.2), (2, 0.5), (8, 0.9)):
        for sentence in range(200):
            parts.append(("de", shots, sentence, float(random.random() < share)))
    rows = pd.DataFrame(parts, columns=["target", "shots", "sentence", "joint"])
    curve: Any = few_shot_curve(rows)
    assert curve["shots"].tolist() == [0, 2, 8]
    means = rows.groupby("shots")["joint"].mean()
    assert curve["gain"].tolist()[1:] == pytest.approx([means[2] - means[0], means[8] - means[0]])
    assert curve["gain_low"].iloc[2] > 0.5
    assert np.isnan(curve["gain"].iloc[0])
    assert curve["reached"].tolist() == pytest.approx([means[0] / means[8], means[2] / means[8], 1])
    with pytest.raises(SteerlabError, match="one number of examples"):
        few_shot_curve(rows[rows["shots"] == 2])


def perplexities(seed: int, rise: dict[str, float]) -> tuple[pd.DataFrame, pd.DataFrame]:
    random = np.random.default_rng(seed)
    rows = [(lang, i, random.normal(2, 0.3)) for lang in rise for i in range(40)]
    before = pd.DataFrame(rows, columns=["language", "sentence", "bits_per_byte"])
    after = before.copy()
    after["bits_per_byte"] += before["language"].map(rise) + random.normal(0, 0.05, len(before))
    return before, after


def test_forgetting_finds_what_was_planted_language_by_language() -> None:
    rise = {"de": -0.3, "ru": 0.2, "ja": 0.0}
    before, after = perplexities(0, rise)
    table: Any = forgetting(before, after, learned=["de"]).set_index("language")
    assert table["change"].to_dict() == pytest.approx(rise, abs=0.03)
    assert table["learned"].to_dict() == {"de": True, "ru": False, "ja": False}
    assert (table.loc[["de", "ru"], "p_holm"] < 0.01).all()
    assert table.loc["ja", "p_holm"] > 0.05
    assert table.loc["ru", "change_low"] > 0 > table.loc["de", "change_high"]
    with pytest.raises(SteerlabError, match="ja stand on one side only"):
        forgetting(before, after[after["language"] != "ja"])
    with pytest.raises(SteerlabError):  # another sentence after
        forgetting(before, after.assign(sentence=after["sentence"] + 1))


def test_conflict_is_the_cost_of_fitting_together() -> None:
    random = np.random.default_rng(0)
    scores = {
        (a, b): (random.random(100) < 0.8).astype(float) for a, b in (("en", "de"), ("de", "en"))
    }
    separate = outputs({pair: list(v) for pair, v in scores.items()}, fitted="separate")
    worse = {
        pair: v * (np.arange(100) % 2 if pair == ("en", "de") else 1) for pair, v in scores.items()
    }
    joint = outputs({pair: list(v) for pair, v in worse.items()}, fitted="joint")
    table: Any = conflict(pd.concat([separate, joint])).set_index(["source", "target"])
    lost = worse["en", "de"].mean() - scores["en", "de"].mean()
    assert table.loc[("en", "de"), "difference"] == pytest.approx(lost)
    assert table.loc[("en", "de"), "p_holm"] < 0.01
    assert table.loc[("de", "en"), "difference"] == 0
    assert table.loc[("de", "en"), "back"] == pytest.approx(lost)
    with pytest.raises(SteerlabError, match="'joint' and 'separate'"):
        conflict(separate)
    with pytest.raises(SteerlabError, match="en to de was fitted in one way only"):
        conflict(pd.concat([separate, joint[joint["source"] == "de"]]))
