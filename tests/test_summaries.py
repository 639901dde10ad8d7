"""A choice is made on dev alone and by `joint`; results and differences are those of the rows."""

import numpy as np
import pandas as pd
import pytest

from steerlab.summaries import at, choose, curve, difference, result, stronger
from steerlab.terms import SteerlabError

SHARES = ("joint", "in_language", "relevant")


def rows(method: str, *, layer: int = 5, strength: float = 1.0, split: str = "dev", **told: float) -> pd.DataFrame:
    """Forty sentences in two targets; of the scores in SHARES that share of sentences has them, in both targets."""
    numbers = np.repeat(np.arange(40), 2)
    table = pd.DataFrame({"sentence": numbers, "target": ["de", "es"] * 40, "output": "Ja.", "operator": "add"})
    values = dict.fromkeys(SHARES, 0.5) | {"dose": 0.4, "repetition": 0.1, "bits_per_byte_ratio": 1.5} | told
    scores = {name: numbers < value * 40 if name in SHARES else value for name, value in values.items()}
    return table.assign(method=method, layer=layer, strength=strength, split=split, **scores)


# The choice


def test_each_method_gets_its_own_best_setting() -> None:
    dev = pd.concat(
        [
            rows("diffmean", layer=3, strength=1.0, joint=0.2, in_language=1.0),
            rows("diffmean", layer=5, strength=1.5, joint=0.6, in_language=0.7),
            rows("random", layer=3, strength=2.0, joint=0.1),
            rows("random", layer=5, strength=1.0, joint=0.05),
        ]
    )
    chosen = choose(dev)
    assert chosen == {"diffmean": (5, 1.5), "random": (3, 2.0)}
    assert all(type(layer) is int and type(strength) is float for layer, strength in chosen.values())


def test_ties_go_to_lfs_then_to_the_smaller_dose() -> None:
    first = rows("lda", layer=1, joint=0.5, in_language=0.6, dose=0.9)
    second = rows("lda", layer=2, joint=0.5, in_language=0.8, dose=0.8)
    third = rows("lda", layer=3, joint=0.5, in_language=0.8, dose=0.3)
    for order in ([first, second, third], [third, second, first]):
        assert choose(pd.concat(order)) == {"lda": (3, 1.0)}
    assert choose(pd.concat([first, second])) == {"lda": (2, 1.0)}


def test_a_choice_never_sees_test_rows() -> None:
    dev, test = rows("lda"), rows("lda", split="test", joint=1.0)
    with pytest.raises(SteerlabError, match=r"a choice is made on dev rows only, not on \['dev', 'test'\]"):
        choose(pd.concat([dev, test]))
    with pytest.raises(SteerlabError, match=r"not on \['test'\]"):
        choose(test)
    with pytest.raises(SteerlabError, match=r"not on \[\]"):
        choose(dev.iloc[:0])


def test_at_takes_the_rows_of_one_setting() -> None:
    table = pd.concat([rows("lda", strength=1.0), rows("lda", strength=1.5), rows("pca", strength=1.5)])
    found = at(table, "lda", (5, 1.5))
    assert (len(found), set(found["method"]), set(found["strength"])) == (80, {"lda"}, {1.5})
    assert at(table, "lda", (4, 1.5)).empty


# Results


def test_a_result_is_the_mean_of_the_rows_with_its_interval() -> None:
    found = result(rows("lda", joint=0.25, in_language=0.75, relevant=0.5))
    assert {name: found[name] for name in ("operator", "layer", "strength", "n", "empty")} == {
        "operator": "add",
        "layer": 5,
        "strength": 1.0,
        "n": 80,
        "empty": 0,
    }
    assert (type(found["layer"]), type(found["strength"])) == (int, float)
    assert found["dose"] == pytest.approx(0.4)
    for name, value in {"joint": 0.25, "lfs": 0.75, "relevance": 0.5, "score": 0.6}.items():
        middle, low, high = found[name]
        assert middle == pytest.approx(value)
        assert low < value < high
        assert high - low == pytest.approx(4 * np.sqrt(value * (1 - value) / 40), rel=0.4), name
    assert found["bits_per_byte_ratio"] == pytest.approx([1.5, 1.5, 1.5])
    assert found["repetition"][0] == pytest.approx(0.1)


def test_the_interval_knows_that_targets_of_a_sentence_go_together() -> None:
    together = rows("lda", joint=0.5)
    apart = together.assign(sentence=np.arange(80))
    width = lambda table: np.diff(result(table)["joint"][1:])[0]  # noqa: E731
    assert width(together) > 1.2 * width(apart)


def test_outputs_without_bits_per_byte_are_left_out_and_counted() -> None:
    table = rows("lda", bits_per_byte_ratio=2.0)
    table.loc[table.index[:4], "output"] = ""
    table.loc[table.index[:4], "bits_per_byte_ratio"] = np.nan
    found = result(table)
    assert (found["empty"], found["n"]) == (4, 80)
    assert found["bits_per_byte_ratio"][0] == pytest.approx(2.0)
    assert "bits_per_byte_ratio" not in result(table.assign(bits_per_byte_ratio=np.nan))


def test_no_rows_are_no_result() -> None:
    with pytest.raises(SteerlabError, match="there are no rows to summarise; the cell was not run"):
        result(rows("lda").iloc[:0])


# Differences


def test_a_planted_difference_is_found_and_none_is_not() -> None:
    method, control = rows("lda", joint=0.6, in_language=0.9), rows("random", joint=0.2, in_language=0.9)
    found = difference(method, control)
    assert found["joint"][0] == pytest.approx(0.4)
    assert 0.2 < found["joint"][1] < 0.4 < found["joint"][2] < 0.6
    assert found["lfs"][0] == 0
    assert found["lfs"][1] <= 0 <= found["lfs"][2]
    back = difference(control, method)["joint"]
    assert back == pytest.approx([-found["joint"][0], -found["joint"][2], -found["joint"][1]], abs=0.02)


def test_differences_are_paired_by_sentence() -> None:
    """Both succeed on the same sentences but for a few: the difference is far surer than either mean."""
    method, control = rows("lda", joint=0.55), rows("random", joint=0.5)
    low, high = difference(method, control)["joint"][1:]
    assert high - low < 0.5 * np.diff(result(method)["joint"][1:])[0]
    with pytest.raises(SteerlabError, match="the same sentences on both sides"):
        difference(method, control[control["sentence"] > 3])


def test_the_stronger_control_has_more_joint_then_more_lfs() -> None:
    weak, strong, sure = rows("a", joint=0.1), rows("b", joint=0.3), rows("c", joint=0.3, in_language=0.8)
    assert stronger({"weak": weak, "strong": strong})[0] == "strong"
    name, table = stronger({"sure": sure, "strong": strong, "weak": weak})
    assert (name, len(table)) == ("sure", 80)


def test_a_curve_has_a_point_for_each_place_of_each_line() -> None:
    table = pd.concat([rows(m, strength=s, joint=s / 2) for m in ("lda", "pca") for s in (0.5, 1.0, 1.5)])
    found = curve(table, x="strength", value="joint", by="method")
    assert found["by"].tolist() == ["lda"] * 3 + ["pca"] * 3
    assert found["x"].tolist() == [0.5, 1.0, 1.5] * 2
    np.testing.assert_allclose(found["value"], [0.25, 0.5, 0.75] * 2)
    assert (found["low"] < found["value"]).all()
    assert (found["value"] < found["high"]).all()
    assert set(found["n"]) == {80}
