"""The page on language identifiers: its calibration error by hand, and its texts."""

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from steerlab.core.corpus import corpus
from steerlab.scores.langid import identifier

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    """The functions of `experiments/identifiers.py`, which writes docs/identifiers.md."""
    return runpy.run_path(str(ROOT / "experiments" / "identifiers.py"))


def test_calibration_error_by_hand(script: dict[str, Any]) -> None:
    error = script["calibration_error"]
    # Two bins: .9 and .94 with one of two right, .2 with none of two.
    p, right = np.array([0.90, 0.94, 0.2, 0.2]), np.array([1.0, 0.0, 0.0, 0.0])
    assert error(p, right) == pytest.approx(0.5 * abs(0.92 - 0.5) + 0.5 * 0.2)
    assert error(np.array([1.0, 1.0]), np.array([1.0, 1.0])) == 0
    # In one bin too much and too little make up for one another.
    assert error(np.array([0.85, 0.85]), np.array([1.0, 0.7])) == pytest.approx(0)


def test_a_calibrated_judge_has_little_error_and_a_boaster_much(script: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    p = rng.uniform(0, 1, 20_000)
    right = (rng.random(len(p)) < p).astype(float)
    assert script["calibration_error"](p, right) < 0.02
    assert script["calibration_error"](np.sqrt(p), right) > 0.1


def test_prefixes(script: dict[str, Any]) -> None:
    prefix = script["prefix"]
    assert prefix("one two three", 2, "en") == "one two"
    assert prefix("one two", 16, "en") == "one two"
    assert prefix("one two", None, "en") == "one two"
    assert prefix("日本語の文", 2, "ja") == "日本語の"
    assert prefix("日本語の文", None, "ja") == "日本語の文"


def test_longer_texts_are_named_better(script: dict[str, Any]) -> None:
    texts = corpus(langs=["de", "es", "pt"]).split("test").take(20)
    rows = script["answers"](identifier(), texts, texts.langs)
    assert len(rows) == 20 * 3 * 6
    right = rows.groupby("words")["right"].mean()
    assert right["1"] < right["4"] < right["whole line"]
    whole = rows[rows["words"] == "whole line"]
    named = identifier().identify([*texts["de"], *texts["es"], *texts["pt"]])
    assert whole["named"].tolist() == named
    assert "| German |" in script["by_language"](rows, "right")
