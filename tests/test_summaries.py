"""A choice is made on dev alone and by `joint`; results, comparisons and curves are those of the
rows."""

import numpy as np
import pandas as pd
import pytest

from steerlab.analysis.choices import at, at_each, choose, choose_each, held_out
from steerlab.analysis.comparisons import against, by_language, comparisons, together, two_best
from steerlab.analysis.dose import along, common_range, dose_curve, equal
from steerlab.analysis.results import curve, difference, outputs, result, stronger
from steerlab.analysis.tests import ALPHA, sentences_needed
from steerlab.core.errors import SteerlabError

SHARES = ("joint", "in_language", "relevant")


def rows(
    method: str, *, layer: int = 5, strength: float = 1.0, split: str = "dev", **told: float
) -> pd.DataFrame:
    """Forty sentences in two targets; of the scores in SHARES that share of sentences has them,
    in both targets."""
    numbers = np.repeat(np.arange(40), 2)
    table = pd.DataFrame(
        {"sentence": numbers, "target": ["de", "es"] * 40, "output": "Ja.", "operator": "add"}
    )
    values = (
        dict.fromkeys(SHARES, 0.5)
        | {"dose": 0.4, "repetition": 0.1, "bits_per_byte_ratio": 1.5}
        | told
    )
    scores = {
        name: numbers < value * 40 if name in SHARES else value for name, value in values.items()
    }
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
    assert all(
        type(layer) is int and type(strength) is float for layer, strength in chosen.values()
    )


def test_ties_go_to_lfs_then_to_the_smaller_dose() -> None:
    first = rows("lda", layer=1, joint=0.5, in_language=0.6, dose=0.9)
    second = rows("lda", layer=2, joint=0.5, in_language=0.8, dose=0.8)
    third = rows("lda", layer=3, joint=0.5, in_language=0.8, dose=0.3)
    for order in ([first, second, third], [third, second, first]):
        assert choose(pd.concat(order)) == {"lda": (3, 1.0)}
    assert choose(pd.concat([first, second])) == {"lda": (2, 1.0)}


def test_a_choice_never_sees_test_rows() -> None:
    dev, test = rows("lda"), rows("lda", split="test", joint=1.0)
    with pytest.raises(
        SteerlabError, match=r"a choice is made on dev rows only, not on \['dev', 'test'\]"
    ):
        choose(pd.concat([dev, test]))
    with pytest.raises(SteerlabError, match=r"not on \['test'\]"):
        choose(test)
    with pytest.raises(SteerlabError, match=r"not on \[\]"):
        choose(dev.iloc[:0])


def test_at_takes_the_rows_of_one_setting() -> None:
    table = pd.concat(
        [rows("lda", strength=1.0), rows("lda", strength=1.5), rows("pca", strength=1.5)]
    )
    found = at(table, "lda", (5, 1.5))
    assert (len(found), set(found["method"]), set(found["strength"])) == (80, {"lda"}, {1.5})
    assert at(table, "lda", (4, 1.5)).empty


def languages_apart(rng: np.random.Generator, rates: dict[str, dict[float, float]]) -> pd.DataFrame:
    """Dev rows of one method at layer 5, 24 sentences: the share that is joint by target and
    strength."""
    table = [
        {
            "target": target,
            "strength": strength,
            "sentence": sentence,
            "joint": bool(rng.random() < rate),
        }
        for target, row in rates.items()
        for strength, rate in row.items()
        for sentence in range(24)
    ]
    rows = pd.DataFrame(table).assign(
        method="lda", layer=5, split="dev", operator="add", output="Ja."
    )
    return rows.assign(
        in_language=rows["joint"], relevant=rows["joint"], dose=rows["strength"] / 2, repetition=0.0
    )


def test_a_choice_for_each_language_takes_its_own_best() -> None:
    dev = languages_apart(
        np.random.default_rng(0), {"de": {1.0: 0.9, 2.0: 0.1}, "ja": {1.0: 0.0, 2.0: 0.7}}
    )
    assert choose(dev) == {"lda": (5, 1.0)}
    chosen = choose_each(dev)
    assert chosen == {"lda": {"de": (5, 1.0), "ja": (5, 2.0)}}
    assert choose_each(dev, by="operator") == {"lda": {"add": (5, 1.0)}}
    found = at_each(dev, "lda", chosen["lda"])
    assert found.groupby("target")["strength"].unique().map(list).to_dict() == {
        "de": [1.0],
        "ja": [2.0],
    }
    with pytest.raises(
        SteerlabError,
        match="there is no column 'tongue' to choose by; the rows have target, strength",
    ):
        choose_each(dev, by="tongue")
    with pytest.raises(SteerlabError, match="no column 'tongue' to choose by"):
        at_each(dev, "lda", {}, by="tongue")
    with pytest.raises(SteerlabError, match="a choice is made on dev rows only"):
        choose_each(dev.assign(split="test"))


def test_what_is_held_out_had_no_part_in_its_own_choice() -> None:
    """In noise alone the best of many settings looks good where it was chosen, and like chance
    where it was not."""
    rng, seen, unseen = np.random.default_rng(1), [], []
    noise = dict.fromkeys(np.arange(1.0, 11.0), 0.2)
    for _ in range(7):
        dev = languages_apart(rng, dict.fromkeys(("de", "ja"), noise))
        seen.append(at_each(dev, "lda", choose_each(dev)["lda"])["joint"].mean())
        once, each = held_out(dev)
        unseen.append(each["joint"].mean())
        assert len(once) == len(each) == 48
        assert not each.duplicated(["target", "sentence"]).any()
    assert np.mean(seen) > 0.3
    assert np.mean(unseen) == pytest.approx(0.2, abs=0.05)
    with pytest.raises(SteerlabError, match="24 sentences cannot be dealt into 25 folds"):
        held_out(dev, folds=25)


def test_choosing_for_each_language_gains_where_they_differ_and_nothing_where_not() -> None:
    rng = np.random.default_rng(2)
    apart = languages_apart(rng, {"de": {1.0: 0.8, 2.0: 0.1}, "ja": {1.0: 0.1, 2.0: 0.8}})
    alike = languages_apart(rng, {"de": {1.0: 0.8, 2.0: 0.1}, "ja": {1.0: 0.8, 2.0: 0.1}})
    gain, none = (by_language(dev, ["lda"])["methods"]["lda"] for dev in (apart, alike))
    assert gain["test"]["difference"] == pytest.approx(
        gain["per method and language"][0] - gain["per method"][0]
    )
    assert gain["test"]["difference"] > 0.2
    assert gain["test"]["p_holm"] < 0.01
    assert gain["choices"] == {"de": [5, 1.0], "ja": [5, 2.0]}
    assert none["test"]["difference"] == 0
    assert none["test"]["p_holm"] == 1


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


def test_half_copies_and_half_gibberish_score_no_joint_and_a_high_harmonic_mean() -> None:
    table = rows("lda")
    copies = table["sentence"] % 2 == 0
    table = table.assign(relevant=copies, in_language=~copies, joint=False)
    found = result(table)
    assert found["score"][0] == pytest.approx(0.5)
    assert found["score"][1] > 0.3
    assert found["joint"][:2] == [0, 0]
    assert 0 < found["joint"][2] < 0.1


@pytest.mark.parametrize("outcome", [0.0, 1.0])
def test_a_share_of_none_or_all_has_an_exact_interval(outcome: float) -> None:
    found = result(rows("lda", joint=outcome))["joint"]
    assert np.isfinite(found).all()
    assert found[2] - found[1] == pytest.approx(1 - 0.025 ** (1 / 40))


def test_sampling_seeds_are_averaged_within_a_sentence() -> None:
    """A sentence that was sampled more often must not count for more, and luck is not another
    sentence."""
    once = rows("lda", joint=0.5)
    often = once[once["sentence"] < 10]
    assert result(pd.concat([once, often, often]))["joint"] == pytest.approx(result(once)["joint"])
    assert result(pd.concat([once, often, often]))["n"] == 80 + 2 * 20
    other = once.assign(joint=once["sentence"] >= 20)
    assert outputs(pd.concat([once, other]))["joint"].tolist() == [0.5] * 80
    # The seeds of a control are no samples: they stay apart.
    seeds = pd.concat([once.assign(seed=0), other.assign(seed=1)])
    assert len(outputs(seeds)) == 160
    assert outputs(once) is once
    rng = np.random.default_rng(3)
    luck = pd.concat([once.assign(joint=rng.random(80) < 0.5, draw=draw) for draw in range(16)])
    width = [np.diff(result(table)["joint"][1:])[0] for table in (luck[luck["draw"] == 0], luck)]
    assert width[1] < 0.4 * width[0]


def test_languages_without_common_sentences_are_strata_of_a_result() -> None:
    table = rows("lda")
    german = table["target"] == "de"
    own = table.assign(
        sentence=table["sentence"] + 100 * german,
        joint=german & (table["sentence"] < 38) | (table["sentence"] < 2),
    )
    shuffled = own.assign(target=np.random.default_rng(4).permutation(own["target"]))
    widths = [np.diff(result(each)["joint"][1:])[0] for each in (own, shuffled)]
    assert widths[0] < 0.6 * widths[1], "which languages were read is no accident"


# Differences


def test_a_planted_difference_is_found_and_none_is_not() -> None:
    method, control = (
        rows("lda", joint=0.6, in_language=0.9),
        rows("random", joint=0.2, in_language=0.9),
    )
    found = difference(method, control)
    assert found["joint"][0] == pytest.approx(0.4)
    assert 0.2 < found["joint"][1] < 0.4 < found["joint"][2] < 0.6
    assert found["lfs"][0] == 0
    assert found["lfs"][1] <= 0 <= found["lfs"][2]
    back = difference(control, method)["joint"]
    assert back == pytest.approx(
        [-found["joint"][0], -found["joint"][2], -found["joint"][1]], abs=0.02
    )


def test_differences_are_paired_by_sentence() -> None:
    """Both succeed on the same sentences but for a few: the difference is far surer than either
    mean."""
    method, control = rows("lda", joint=0.55), rows("random", joint=0.5)
    low, high = difference(method, control)["joint"][1:]
    assert high - low < 0.5 * np.diff(result(method)["joint"][1:])[0]
    with pytest.raises(SteerlabError, match="the same sentences on both sides"):
        difference(method, control[control["sentence"] > 3])


def test_the_stronger_control_has_more_joint_then_more_lfs() -> None:
    weak, strong, sure = (
        rows("a", joint=0.1),
        rows("b", joint=0.3),
        rows("c", joint=0.3, in_language=0.8),
    )
    assert stronger({"weak": weak, "strong": strong})[0] == "strong"
    name, table = stronger({"sure": sure, "strong": strong, "weak": weak})
    assert (name, len(table)) == ("sure", 80)


def test_a_curve_has_a_point_for_each_place_of_each_line() -> None:
    table = pd.concat(
        [rows(m, strength=s, joint=s / 2) for m in ("lda", "pca") for s in (0.5, 1.0, 1.5)]
    )
    found = curve(table, x="strength", value="joint", by="method")
    assert found["by"].tolist() == ["lda"] * 3 + ["pca"] * 3
    assert found["x"].tolist() == [0.5, 1.0, 1.5] * 2
    np.testing.assert_allclose(found["value"], [0.25, 0.5, 0.75] * 2)
    assert (found["low"] < found["value"]).all()
    assert (found["value"] < found["high"]).all()
    assert set(found["n"]) == {80}


# Comparisons


def test_a_table_is_one_family() -> None:
    """Two good methods, one control; the third comparison is between two that hardly differ."""
    tables = {
        "diffmean": rows("diffmean", joint=0.6),
        "lda": rows("lda", joint=0.625),
        "random": rows("random", joint=0.1),
    }
    found = against(tables, ["diffmean", "lda"], ["random"], main="diffmean")
    pairs = found["pairs"]
    assert {a: list(item) for a, item in pairs.items()} == {
        "diffmean": ["random"],
        "lda": ["random", "diffmean"],
    }
    assert (found["comparisons"], found["sentences"], found["score"]) == (3, 40, "joint")
    assert found["family"] == "2 methods less 1 controls, and the 1 other methods less the main one"
    sure, close = pairs["diffmean"]["random"], pairs["lda"]["diffmean"]
    assert sure["difference"] == pytest.approx(0.5)
    assert found["least"] <= sure["p"] < sure["p_holm"] == pytest.approx(3 * sure["p"])
    assert sure["p_holm"] < ALPHA < close["p"] <= close["p_holm"]
    assert close["difference"] == pytest.approx(0.025)
    for item in (sure, close):
        assert item["detects"] < item["detects_holm"] < 2 * item["detects"]
    assert sure["detects"] < 0.5, "what was found could be seen"


def test_the_two_best_methods_are_told_apart_by_so_many_sentences() -> None:
    tables = {
        "diffmean": rows("diffmean", joint=0.5),
        "lda": rows("lda", joint=0.625),
        # With the same texts and scores it is no other method, and no third to be told apart.
        "twin": rows("lda", joint=0.625),
        "random": rows("random", joint=0.9),
    }
    methods = ["diffmean", "lda", "twin"]
    found = against(tables, methods, ["random"], main="diffmean")["two_best"]
    assert (found["best"], found["next"]) == ("lda", "diffmean")
    assert found["difference"] == pytest.approx(0.125)
    # Of 40 sentences 5 differ by 1.
    assert found["needed"] == sentences_needed(0.125, float(np.std([1] * 5 + [0] * 35, ddof=1)))
    assert 40 < found["needed"] < 80
    assert two_best(tables, ["lda", "twin"]) is None
    assert two_best({"a": tables["lda"]}, ["a"]) is None
    # The mean decides, and not how many outputs there are of a sentence.
    more = pd.concat([tables["diffmean"], tables["diffmean"].assign(target="fr")])
    by_mean = two_best({"a": more, "b": tables["lda"]}, ["a", "b"])
    assert by_mean is not None
    assert by_mean["best"] == "b"
    other = tables["lda"].assign(output="Nein.")
    same = two_best({"a": tables["lda"], "b": other}, ["a", "b"])
    assert same == {"best": "a", "next": "b", "difference": 0.0, "needed": None}


def test_a_family_of_small_tables_says_that_nothing_can_pass() -> None:
    few = {
        name: rows(name, joint=share).query("sentence in (0, 10, 20, 30)")
        for name, share in (("a", 0.6), ("b", 0.2))
    }
    found = comparisons(few, [("a", "b"), ("b", "a")], family="each less the other")
    assert found["least"] == 1 / 8
    assert found["pairs"]["a"]["b"]["detects"] is None
    same = comparisons(few, [("a", "a")], family="one less itself")["pairs"]["a"]["a"]
    assert (same["difference"], same["p"], same["detects"]) == (0, 1, None)
    with pytest.raises(SteerlabError, match="family without a pair"):
        comparisons(few, [], family="none")
    with pytest.raises(SteerlabError, match="two sentences or more, it was given 1"):
        comparisons({"a": few["a"].iloc[:2]}, [("a", "a")], family="one sentence")


def test_targets_that_succeed_together_are_worth_one_output_a_sentence() -> None:
    assert together(rows("lda"))["effective"] == pytest.approx(40)
    apart = rows("lda").assign(joint=np.random.default_rng(5).random(80) < 0.5)
    assert together(apart)["effective"] == pytest.approx(80, rel=0.3)
    assert together(rows("lda", joint=0.0))["effective"] is None


# Along the dose


def strengths(
    method: str, doses: list[float], joint: list[float], spoken: list[float] | None = None
) -> pd.DataFrame:
    """Dev rows of a method at layer 5, a strength for each dose."""
    spoken = joint if spoken is None else spoken
    parts = zip(doses, joint, spoken, strict=True)
    return pd.concat(
        [
            rows(method, strength=i / 2, joint=b, in_language=c, dose=a)
            for i, (a, b, c) in enumerate(parts, start=1)
        ]
    )


def test_the_least_dose_is_where_the_line_crosses() -> None:
    dev = strengths("lda", [0.2, 0.4, 0.8], [0.0, 0.1, 0.2], [0.5, 0.8, 1.0])
    spoken = dose_curve(dev, "lda", 5, value="in_language")
    assert spoken.means.tolist() == pytest.approx([0.5, 0.8, 1.0])
    least = spoken.least()
    assert least.dose == pytest.approx(0.6)
    assert (least.said, least.highest) == ("interpolated", 1.0)
    assert spoken.least(0.65).dose == pytest.approx(0.3)
    assert spoken.least(0.5).said == spoken.least(0.4).said == "at the smallest dose"
    assert spoken.least(0.4).dose == pytest.approx(0.2)
    never = dose_curve(dev, "lda", 5).least()
    assert np.isnan(never.dose)
    assert never.said == "not reached"
    assert never.highest == pytest.approx(0.2)
    falls = strengths("lda", [0.2, 0.4, 0.8], [0.5, 1.0, 0.2])
    assert dose_curve(falls, "lda", 5).least(0.75).dose == pytest.approx(0.3), (
        "the first crossing counts"
    )


def test_the_area_is_that_of_the_trapezoids() -> None:
    found = dose_curve(strengths("lda", [0.2, 0.4, 0.8], [0.2, 0.6, 0.4]), "lda", 5)
    value, low, high = found.area(0.2, 0.8)
    assert value == pytest.approx((0.2 * 0.4 + 0.4 * 0.5) / 0.6)
    assert low < value < high
    assert found.area(0.3, 0.6)[0] == pytest.approx((0.1 * 0.5 + 0.2 * 0.55) / 0.3)
    assert found.area(0.2, 0.4)[0] == pytest.approx(0.4)
    assert found.at(0.6)[0] == pytest.approx(0.5)
    assert list(found.at(0.4)) == pytest.approx(result(rows("lda", joint=0.6))["joint"])
    level = dose_curve(strengths("lda", [0.2, 0.4, 0.8], [0.3, 0.3, 0.3]), "lda", 5)
    assert level.area(0.25, 0.7) == pytest.approx(level.at(0.5))
    with pytest.raises(
        SteerlabError, match=r"read at doses from 0\.2 to 0\.8, not at 0\.1 to 0\.5"
    ):
        found.area(0.1, 0.5)
    with pytest.raises(SteerlabError, match="an area needs a range of doses, not 0.5 to 0.5"):
        found.area(0.5, 0.5)


def test_a_curve_needs_its_rows_and_doses() -> None:
    dev = strengths("lda", [0.2, 0.4], [0.2, 0.6])
    with pytest.raises(SteerlabError, match="no rows of 'pca' at layer 5; there are lda at 5"):
        dose_curve(dev, "pca", 5)
    with pytest.raises(SteerlabError, match="have no dose; compare it at equal fluency"):
        dose_curve(dev.assign(dose=np.nan), "lda", 5)
    raced = pd.concat([dev, rows("lda", strength=1.5, joint=1.0).iloc[:8]])
    assert dose_curve(raced, "lda", 5).strengths.tolist() == [0.5, 1.0], (
        "a race did not read it whole"
    )


def test_a_curve_runs_along_any_cost() -> None:
    dev = strengths("lda", [0.2, 0.4, 0.8], [0.2, 0.6, 0.4])
    with pytest.raises(SteerlabError, match="at layer 5 have no displacement; compare it at"):
        dose_curve(dev, "lda", 5, cost="displacement")
    moved = dev.assign(displacement=2 * dev["dose"])
    along_dose, along_end = (
        dose_curve(moved, "lda", 5, cost=cost) for cost in ("dose", "displacement")
    )
    assert along_end.doses.tolist() == pytest.approx((2 * along_dose.doses).tolist())
    assert along_end.at(0.6)[0] == pytest.approx(along_dose.at(0.3)[0]) == pytest.approx(0.4)


def test_methods_compare_over_the_doses_that_they_share() -> None:
    """Both curves lie on one line: equal at equal dose, though each was read at other doses and
    strengths."""
    near, far = (
        strengths("lda", [0.1, 0.3, 0.5], [0.1, 0.3, 0.5]),
        strengths("pca", [0.2, 0.6, 1.0], [0.2, 0.6, 1.0]),
    )
    found = along(pd.concat([near, far]), {"lda": (5, 1.0), "pca": (5, 1.0)}, main="lda")
    assert found["range"] == pytest.approx([0.2, 0.5])
    assert found["dose"] == pytest.approx(0.3)
    for item in found["curves"].values():
        assert item["at"][0] == pytest.approx(0.3)
        assert item["area"][0] == pytest.approx(0.35)
    assert found["curves"]["lda"]["least"] == {"dose": None, "said": "not reached", "highest": 0.5}
    assert found["curves"]["pca"]["least"]["dose"] == pytest.approx(0.9)
    beyond = along(pd.concat([near, far]), {"lda": (5, 1.0), "pca": (5, 1.0)}, main="pca")
    assert beyond["dose"] == pytest.approx(0.5), "0.6 is beyond the range: its end"


def test_doses_without_a_common_range_are_said() -> None:
    apart = strengths("lda", [0.1, 0.2], [0.1, 0.3]), strengths("pca", [0.4, 0.6], [0.2, 0.6])
    assert (
        common_range([dose_curve(rows, str(rows["method"].iloc[0]), 5) for rows in apart]) is None
    )
    found = along(pd.concat(apart), {"lda": (5, 1.0), "pca": (5, 1.0)}, main="lda")
    assert (found["range"], found["dose"]) == (None, None)
    assert all(item["area"] is item["at"] is None for item in found["curves"].values())


def test_strengths_of_equal_dose_or_equal_fluency() -> None:
    dev = pd.concat(
        [strengths("lda", [0.1, 0.3], [0.1, 0.3]), strengths("pca", [0.4, 0.8], [0.2, 0.6])]
    )
    layers = {"lda": 5, "pca": 5}
    low, high = equal(dev, layers, level=0.2), equal(dev, layers, level=0.6)
    assert low["lda"] == pytest.approx((5, 0.75))
    assert high["pca"] == pytest.approx((5, 0.75))
    assert low["pca"] == (5, 0.5), "it costs more at its smallest strength"
    assert high["lda"] is None, "it costs less at its largest"
    costly = dev.assign(
        bits_per_byte_ratio=dev["strength"] * np.where(dev["method"] == "lda", 1.0, 2.0)
    )
    found = equal(costly.assign(dose=np.nan), layers, cost="bits_per_byte_ratio", level=1.0)
    assert found == {"lda": (5, 1.0), "pca": (5, 0.5)}
    # What a dose comes to at the end of the model may order methods the other way round.
    moved = dev.assign(displacement=dev["dose"] / np.where(dev["method"] == "lda", 0.5, 2.0))
    found = equal(moved, layers, cost="displacement", level=0.3)
    assert found == {"lda": pytest.approx((5, 0.625)), "pca": pytest.approx((5, 0.75))}
    with pytest.raises(
        SteerlabError,
        match="dev rows have no 'bits_per_byte_ratio' to compare at; run them with it",
    ):
        equal(dev.assign(bits_per_byte_ratio=np.nan), layers, cost="bits_per_byte_ratio", level=1.0)
    with pytest.raises(SteerlabError, match="found on dev rows only"):
        equal(dev.assign(split="test"), layers, level=0.2)
    with pytest.raises(SteerlabError, match="no rows of 'probe' at layer 5"):
        equal(dev, {"probe": 5}, level=0.2)
