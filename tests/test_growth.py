"""The experiment on scaling: what the small models read is what the recipe says, they learn it, and
the page holds what was recorded."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "experiments" / "growth"))

import grow
import growing
import growth_page
from data import VOCABULARY
from growing import LENGTH, ROWS, Reader, Recipe, grown
from text import LANGS, Text

from steerlab.models.loading import PACKAGED

RECIPE = Recipe(width=64, parallel=2, seed=0, points=(2 * ROWS * LENGTH,))
LINES, GROUPS = 4, 12  # of each language alone; of translations


@pytest.fixture(scope="module")
def text() -> Text:
    """Lines of two tokens whose first says which line it is, and a line break's place."""
    alone = len(LANGS) * LINES
    count = alone + len(LANGS) * GROUPS
    tokens = np.stack([np.arange(count) + 100, np.full(count, 5)], 1).reshape(-1)
    groups = alone + np.arange(len(LANGS) * GROUPS).reshape(GROUPS, len(LANGS))
    return Text(
        tokens.astype(np.uint16),
        2 * np.arange(1, count + 1, dtype=np.int32),
        np.arange(0, alone + 1, LINES, dtype=np.int32),
        groups.astype(np.int32),
    )


def documents(text: Text, recipe: Recipe) -> list[tuple[list[int], list[float]]]:
    """The lines and the weights of some documents."""
    tokens, weights, numbers = Reader(text, recipe, "cpu").pool()
    found = []
    for number in range(300):
        here = numbers == number
        ids, weight = tokens[here].tolist(), weights[here].tolist()
        assert ids[0] == 1, "BOS"
        found.append(([each - 100 for each in ids[1::2]], weight[1::2]))
    return found


def test_only_what_is_taught_is_read_as_translations(text: Text) -> None:
    alone = len(LANGS) * LINES
    taught = {0, *(LANGS.index(lang) for lang in RECIPE.taught)}
    assert len(taught) == 3
    read: set[int] = set()
    single = 0
    for lines, weights in documents(text, RECIPE):
        if lines[0] < alone:
            single += 1
            assert 3 <= len(lines) <= 8
            assert len({line // LINES for line in lines}) == 1, "one language"
            assert set(weights) == {1.0}
        else:
            group, lang = np.divmod(np.array(lines) - alone, len(LANGS))
            assert len(set(group)) == 1, "lines that say the same"
            assert len(set(lang)) == len(lang)
            assert 0 in lang[:2], "English is one of the first two"
            assert set(lang) <= taught
            assert weights == pytest.approx([growing.GIVEN, *[1.0] * (len(lines) - 1)])
            read |= set(lang)
    assert read == taught
    assert single / 300 == pytest.approx(growing.ALONE, abs=0.1)


def test_without_parallel_languages_each_document_is_in_one(text: Text) -> None:
    for lines, _ in documents(text, replace(RECIPE, parallel=0)):
        assert max(lines) < len(LANGS) * LINES


def test_rows_begin_as_prompts_do_and_a_seed_decides_them(text: Text) -> None:
    def first(seed: int) -> torch.Tensor:
        return next(Reader(text, replace(RECIPE, seed=seed), "cpu").rows())[0]

    assert first(0).shape == (ROWS, LENGTH)
    assert (first(0)[:, 0] == 1).all()
    assert torch.equal(first(0), first(0))
    assert not torch.equal(first(0), first(1))


def test_a_document_sees_itself_alone(text: Text) -> None:
    """Another document before it changes nothing of its loss."""
    hf = growing.new_model(RECIPE).eval()
    own = torch.tensor([[1, 100, 5, 101, 5]])
    other = torch.tensor([[1, 200, 5, 1, 100, 5, 101, 5]])
    ones, number = torch.ones(own.shape), torch.zeros(own.shape)
    alone = growing.loss_of(hf, own, ones, number)
    weight = torch.tensor([[0.0, 0, 0, 1, 1, 1, 1, 1]])
    packed = growing.loss_of(hf, other, weight, torch.tensor([[0, 0, 0, 1, 1, 1, 1, 1]]))
    torch.testing.assert_close(packed, alone, atol=1e-5, rtol=1e-5)


def test_it_learns(text: Text, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growing, "ROWS", 4)
    monkeypatch.setattr(growing, "WARM_UP_STEPS", 4)
    size = 4 * LENGTH
    points = tuple(grown(text, replace(RECIPE, points=(2 * size, 30 * size)), "cpu"))
    assert [seen for seen, _, _ in points] == [2 * size, 30 * size]
    assert points[1][1] < points[0][1] - 3, "nats a token; a line is its number and a line break"


def test_a_run_is_recorded_and_reported(
    text: Text, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files of runs are what the page reads; a law that nothing supports is said to be none."""
    monkeypatch.setattr(growing, "ROWS", 2)
    monkeypatch.setattr(growth_page, "RECORDED", tmp_path)
    monkeypatch.setattr(growth_page, "WIDTH", 64)
    monkeypatch.setattr(growth_page, "AT", 4 * LENGTH)
    recipe = Recipe(64, 15, 0, (2 * LENGTH, 4 * LENGTH))
    langs = ("en", "de", "es")
    monkeypatch.setattr(grow, "LAYERS", (3,))
    monkeypatch.setattr(grow, "STRENGTHS", (1.0,))
    grow.run(recipe, text, tmp_path, "cpu", (2, 3), langs)
    [file] = tmp_path.glob("*.json")
    held: Any = json.loads(file.read_text("utf-8"))
    assert [point["tokens"] for point in held["points"]] == list(recipe.points)
    marks = held["points"][0]["test"]["vector"]["de"]["joint"]
    assert len(marks) == 3
    assert set(marks) <= {"0", "1"}
    rows = growth_page.scores()
    assert len(rows) == 2 * 2 * 2 * 3, "points, directions, targets, sentences"
    page = growth_page.page(rows)
    assert "no law" in page, "two sizes are no law"
    assert f"| {2 * LENGTH} |" in page


def test_a_tokenizer_is_polyglots() -> None:
    assert len(AutoTokenizer.from_pretrained(PACKAGED)) == VOCABULARY
