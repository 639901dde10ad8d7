"""Tables for a paper: each score is the one of `result`, with its interval; settings are never
averaged; what LaTeX would obey is escaped."""

import re
from typing import Any

import numpy as np
import pandas as pd
import pytest

import steerlab as sl
from steerlab.analysis.intervals import by_sentence
from steerlab.analysis.results import result
from steerlab.analysis.tables import spelled
from steerlab.analysis.written import table
from steerlab.core.errors import SteerlabError


def rows() -> pd.DataFrame:
    """Two methods at one layer and two strengths, ten sentences of two targets."""
    random = np.random.default_rng(0)
    index = pd.MultiIndex.from_product(
        [["diffmean", "random_100%"], [1.0, 1.5], ["de", "es"], range(10)],
        names=["method", "strength", "target", "sentence"],
    )
    made = index.to_frame(index=False)
    scores: dict[str, Any] = {
        name: random.random(len(made)) < 0.6 for name in ("joint", "in_language", "relevant")
    }
    return made.assign(
        **scores,
        repetition=random.random(len(made)),
        operator="add",
        layer=5,
        split="test",
        source="en",
        dose=0.5,
        output="Ja.",
    )


def test_each_line_is_the_result_of_its_rows() -> None:
    given = rows()
    frame = table(given, "frame")
    assert len(frame) == 4
    for _, line in frame.iterrows():
        same = (given["method"] == line["method"]) & (given["strength"] == line["strength"])
        found = result(given[same])
        for column, key in (("joint", "joint"), ("in_language", "lfs")):
            values = [line[column], line[f"{column}_low"], line[f"{column}_high"]]
            assert values == pytest.approx(found[key])
        assert line["n"] == 20


@pytest.mark.parametrize("kind", ["latex", "markdown", "html"])
def test_every_kind_has_the_same_numbers(kind: str) -> None:
    given = rows()
    text = sl.table(given, kind)
    frame = table(given, "frame")
    for _, line in frame.iterrows():
        cell = spelled([line["joint"], line["joint_low"], line["joint_high"]])
        assert cell in text
    assert "n = 10 sentences" in text
    assert "layer 5" in text, "what all share is in the caption"
    assert re.search("Strength", text), "what differs is a column"
    assert "Operator" not in text


def test_latex_is_escaped_and_balanced() -> None:
    text = table(rows(), "latex")
    assert r"random\_100\%" in text
    assert text.count(r"\begin{") == text.count(r"\end{") == 2
    body = text[text.index(r"\midrule") : text.index(r"\bottomrule")]
    columns = re.search(r"tabular\}\{([lc]+)\}", text)
    assert columns
    for line in body.splitlines()[1:]:
        assert line.replace(r"\&", "").count("&") == len(columns[1]) - 1
        assert line.endswith(r" \\")
    assert not re.search(r"(?<!\\)[%#_]", text)


def test_what_is_no_one_result_is_refused() -> None:
    given = rows()
    mixed = pd.concat([given, given.assign(split="dev")])
    with pytest.raises(SteerlabError, match=r"several values of split .* rows\[rows\['split'\]"):
        table(mixed)
    with pytest.raises(SteerlabError, match="no kind 'word'"):
        table(given, "word")
    with pytest.raises(SteerlabError, match="there is no score 'jointt'"):
        table(given, scores=["jointt"])
    with pytest.raises(SteerlabError, match="no rows"):
        table(given.head(0))
    with pytest.raises(SteerlabError, match="needs the column 'layer'"):
        table(given.drop(columns="layer"))


def own_rows() -> pd.DataFrame:
    """Rows with two scores of a user's: a number that grows with strength, and a truth."""
    made = rows().assign(split="dev")
    noise = np.random.default_rng(1).random(len(made))
    made["polite"] = made["strength"] + noise
    made["asks"] = (noise > 0.5).astype(float)
    made.attrs["scorers"] = ["polite", "asks"]
    return made


def test_a_users_scores_are_shown_each_with_its_interval() -> None:
    given = own_rows()
    frame = table(given, "frame")
    line = frame.iloc[1]
    of_line = given[(given["method"] == line["method"]) & (given["strength"] == line["strength"])]
    by_hand = by_sentence(
        of_line["polite"].to_numpy(), of_line["sentence"].to_numpy(), share=False,
        strata=of_line["target"].to_numpy(),
    )  # fmt: skip
    assert [line["polite"], line["polite_low"], line["polite_high"]] == pytest.approx(by_hand)
    shares = by_sentence(
        of_line["asks"].to_numpy(), of_line["sentence"].to_numpy(), share=True,
        strata=of_line["target"].to_numpy(),
    )  # fmt: skip
    assert [line["asks"], line["asks_low"], line["asks_high"]] == pytest.approx(shares)
    assert "| Polite | Asks |" in table(given)
    # One that no attribute names is shown where it is asked for.
    given.attrs = {}
    assert "polite" not in table(given, "frame")
    assert "polite" in table(given, "frame", scores=["polite"])


def test_samples_of_a_sentence_are_one_output_of_a_users_score() -> None:
    given = own_rows()
    twice = pd.concat([given.assign(draw=0), given.assign(draw=1, polite=given["polite"] + 1)])
    once = table(given.assign(polite=given["polite"] + 0.5), "frame", scores=["polite"])
    mean = table(twice, "frame", scores=["polite"])
    columns = ["polite", "polite_low", "polite_high"]
    np.testing.assert_allclose(mean[columns], once[columns])


def test_the_best_setting_of_each_method_by_a_users_score() -> None:
    given = own_rows()
    frame = table(given, "frame", best="polite")
    assert frame["strength"].tolist() == [1.5, 1.5]
    less = given.assign(polite=-given["polite"])
    assert table(less, "frame", best="polite")["strength"].tolist() == [1.0, 1.0]
    assert "its best setting by polite on these rows" in table(given, best="polite")
    given.attrs = {}
    assert "polite" in table(given, "frame", best="polite"), "what chose is shown"
    with pytest.raises(SteerlabError, match="a choice is made on dev rows only"):
        table(given.assign(split="test"), best="polite")


def test_a_score_that_is_not_there_is_named_with_the_columns_that_are() -> None:
    given = own_rows()
    with pytest.raises(
        SteerlabError, match=r"no score 'rude'; the rows have joint, .*numbers: polite, asks"
    ):
        table(given, scores=["rude"])
    with pytest.raises(SteerlabError, match=r"no score 'output'"):
        table(given, scores=["output"])  # which is no number
    with pytest.raises(SteerlabError, match=r"no score 'rude'; their numbers are .*polite"):
        table(given, best="rude")
