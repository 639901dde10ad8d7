"""How a page writes numbers, and how it decides the verdict."""

from typing import Any

import pytest

from steerlab.studies.html.formats import (
    decimal,
    interval,
    language_name,
    number,
    percent,
    probability,
    share,
    signed,
)
from steerlab.studies.main.page.sentences import verdict
from steerlab.studies.main.page.values import setting


@pytest.mark.parametrize(
    ("joint", "lfs", "said"),
    [
        ([0.3, 0.2, 0.4], [0.9, 0.8, 1.0], "Yes."),
        (
            [0.03, 0.0, 0.06],
            [0.9, 0.8, 1.0],
            "The language, yes; its own sentence is not shown to be recognised.",
        ),
        (
            [0.0, -0.01, 0.01],
            [0.9, 0.8, 1.0],
            "The language, yes; its own sentence is not recognised.",
        ),
        ([0.0, -0.01, 0.01], [0.1, 0.0, 0.2], "No."),
        ([0.3, 0.2, 0.4], [0.5, 0.4, 0.6], "This run cannot tell."),
    ],
)
def test_verdict_follows_the_criterion(joint: list[float], lfs: list[float], said: str) -> None:
    strong = {"joint": [0.5, 0.4, 0.6], "lfs": [0.9, 0.8, 1.0]}
    prompt = {"joint": [-0.2, -0.3, -0.1], "lfs": [-0.1, -0.2, 0.0]}  # a yardstick, left out
    given = {"unsteered": strong, "shuffled": {"joint": joint, "lfs": lfs}, "prompt": prompt}
    assert verdict({"differences": given}) == said


def test_verdict_without_differences_cannot_tell() -> None:
    assert verdict({}) == "This run cannot tell."


def test_an_interval_is_read_from_a_number_or_three() -> None:
    assert interval([0.1, 0.0, 0.2]) == (0.1, 0.0, 0.2)
    assert interval(0) == (0, 0, 0)
    for nothing in ([0.1, None, 0.2], [0.1, 0.2], float("nan"), [0, 0, float("nan")], "0.1", None):
        assert interval(nothing) is None, nothing


def test_numbers_are_written_with_their_signs() -> None:
    assert [probability(p) for p in (0.0004, 0.0123, 0.456)] == [
        "<\xa00.001",
        "=\xa00.012",
        "=\xa00.46",
    ]
    assert share([0.931, 0.9, 0.96]) == "93\xa0% [90,\xa096]"
    assert share(0.5) == "50\xa0%"
    assert share(None) == "an unknown share"
    assert [number(value) for value in (0.03125, 1234.5, float("nan"), "1")] == [
        "0.0312",
        "1.23e+03",
        "–",
        "–",
    ]
    assert [decimal(-0.126), decimal(2.0, 1)] == ["−0.13", "2.0"]
    assert [signed(-0.126), signed(0.126)] == ["−0.13", "+0.13"]
    assert [percent(value) for value in (0.0, 0.00004, 0.0012, 0.123)] == [
        "0",
        "under 0.01 %",
        "0.12 %",
        "12.3 %",
    ]


def test_a_language_is_named_and_an_unknown_code_stays() -> None:
    assert language_name("de") == "German"
    assert language_name("<qq>") == "<qq>"


@pytest.mark.parametrize(
    ("result", "written"),
    [
        ({"operator": "add", "layer": 5, "strength": 1.0}, "add, layer 5, 1 natural gap"),
        ({"operator": "add", "layer": 5, "strength": 1.5}, "add, layer 5, 1.5 natural gaps"),
        ({"operator": "rotate", "layer": 5, "strength": 0.5}, "rotate, layer 5, 0.5 × the angle"),
        ({"operator": "ablate", "layer": 5, "strength": 1.0}, "ablate, layer 5, 1"),
        ({"operator": "none", "layer": -1}, ""),
        ({}, ""),
    ],
)
def test_a_setting_is_written_by_its_operator(result: dict[str, Any], written: str) -> None:
    assert setting(result) == written
