"""The page's table of scores has what an output means beside `joint`, and runs older than that
are read as they are."""

from copy import deepcopy
from typing import Any

import pytest
from pages import words
from synthetic_run import synthetic_rows, synthetic_summary

from steerlab.analysis.results import result
from steerlab.studies.html import environment
from steerlab.studies.main.page.sentences import answer
from steerlab.studies.main.page.tables import headline, outcomes

NEW = {"faithful": [0.1, 0.05, 0.15], "chrfpp": [31.2, 29.0, 33.4], "ceiling": [0.98, 0.97, 0.99]}
NEW |= {"echo": [0.2, 0.1, 0.3], "loop": [0.04, 0.0, 0.1], "truncated": [0.3, 0.2, 0.4]}
NEW |= {"empty_share": [0.01, 0.0, 0.02]}


@pytest.fixture(scope="module")
def summary() -> dict[str, Any]:
    made = deepcopy(synthetic_summary())
    for one in made["results"].values():
        one |= NEW | {"joint_of_ceiling": [value / 0.98 for value in one["joint"]]}
    return made


def test_the_table_has_meaning_beside_recognition(summary: dict[str, Any]) -> None:
    table = headline(summary)
    assert [column.heading for column in table.columns[:4]] == [
        "Of the ceiling",
        "Of the prompt's",
        "Faithful",
        "ChrF++",
    ]
    row = table.methods[0]
    assert row.joint is not None
    ceiling, prompted, faithful, chrfpp, *_ = row.scores
    assert ceiling is not None
    assert prompted is not None
    assert ceiling.value == pytest.approx(row.joint.value / 0.98)
    assert prompted.value == pytest.approx(
        row.joint.value / summary["results"]["prompt"]["joint"][0]
    )
    assert list(faithful or ()) == NEW["faithful"]
    assert list(chrfpp or ()) == NEW["chrfpp"]
    assert (
        len(table.digits) == len(table.columns) - 1 == len(row.scores)
    )  # the setting is no number


def test_what_became_of_the_outputs_is_a_table_of_its_own(summary: dict[str, Any]) -> None:
    table = outcomes(summary)
    assert table is not None
    assert table.columns == ["Copies of the source", "Loops", "Cut off at the limit", "Empty"]
    name, shares = table.rows[0]
    assert name == "DiffMean"
    expected = [NEW[key] for key in ("echo", "loop", "truncated", "empty_share")]
    assert [list(share or ()) for share in shares] == expected


def test_the_page_says_it(summary: dict[str, Any]) -> None:
    template = environment("steerlab.studies.main.page").get_template("headline.html.jinja")
    text = words(template.render(headline=headline(summary), outcomes=outcomes(summary)))
    assert "Joint right language, own sentence recognised" in text
    assert "31.2 [29.0, 33.4]" in text
    assert "the identifier names the language of 98 % [97, 99] of them" in text
    assert "What became of the outputs" in text
    said = answer(summary)
    assert said is not None
    assert list(said.faithful or ()) == NEW["faithful"]


def test_a_run_older_than_these_is_read() -> None:
    old = synthetic_summary()
    table = headline(old)
    headings = [column.heading for column in table.columns]
    assert headings[0] == "Of the prompt's"
    assert not {"Faithful", "ChrF++", "Of the ceiling"} & set(headings)
    assert outcomes(old) is None
    assert table.ceiling is None
    said = answer(old)
    assert said is not None
    assert said.faithful is None


def test_a_share_of_the_ceiling_is_of_the_references_own() -> None:
    rows = synthetic_rows()
    rows = rows[(rows["method"] == "diffmean") & (rows["split"] == "test")]
    assert "joint_of_ceiling" not in result(rows)
    found = result(rows.assign(ceiling=rows["target"] != "bg"))
    assert found["ceiling"][0] == pytest.approx(14 / 15)
    assert found["joint_of_ceiling"] == pytest.approx(
        [value / found["ceiling"][0] for value in found["joint"]]
    )
