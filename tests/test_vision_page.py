"""The experiment on models that also see: the packaged model's weights are in them, a picture
changes what they say, edits act where they say, and the page holds what was recorded."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "experiments" / "vision"))

import captions
import vision_page
from shapes import SHAPES

import steerlab as sl
from steerlab.core.files import read_json
from steerlab.models.model import Model

LINES = ["The weather is nice today.", "We eat bread."]


@pytest.fixture(scope="module")
def llava() -> Model:
    return captions.seeing("llava")


def test_it_writes_with_the_packaged_models_weights(llava: Model) -> None:
    found = vision_page.parity("llava", llava, sl.load())
    assert found["largest"] < 1e-4 < found["scale"]
    assert found["moved"]["all"] == pytest.approx({"BOS": 0, "picture": 0, "text": 1}, abs=1e-3)
    assert found["moved"]["image"] == pytest.approx({"BOS": 0, "picture": 1, "text": 0}, abs=1e-3)
    assert found["seen"] > 0.1
    words, parts = captions.lengths(llava, "llava")
    assert parts == pytest.approx(words, rel=0.05), "else the picture would drown the text"


def test_without_a_picture_it_says_what_the_packaged_model_says(llava: Model) -> None:
    own = sl.generate(sl.load(), [f"{line}\n" for line in LINES], max_new_tokens=32)
    assert captions.captions(llava, "llava", LINES) == [text.strip("\n") for text in own]
    shown = [captions.captions(llava, "llava", LINES, seed=seed) for seed in (5, 6)]
    assert shown[0] != shown[1]


def test_a_picture_among_the_words_is_refused(
    llava: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = llava.tokenizer("bread").input_ids[-1]
    monkeypatch.setattr(captions, "IMAGE", token)
    with pytest.raises(SystemExit, match="holds the token that stands for a picture"):
        captions.prompts(llava, ["bread"], seen=True)


def test_a_shape_is_run_and_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As little as there can be of it: the numbers mean nothing."""
    monkeypatch.setattr(vision_page, "LINES", {"dev": 1, "test": 2})
    monkeypatch.setattr(vision_page, "LAYERS", (4,))
    monkeypatch.setattr(vision_page, "STRENGTHS", (1.0,))
    monkeypatch.setattr(vision_page, "TARGETS", ("de", "ru"))
    page = tmp_path / "vision.md"
    given = ["", "--shapes", "smolvlm", "gemma3", "--recorded", str(tmp_path), "--page", str(page)]
    monkeypatch.setattr(sys, "argv", given)
    torch.manual_seed(0)
    vision_page.main()
    text = page.read_text("utf-8")
    record = read_json(tmp_path / "smolvlm.json")
    assert record["chosen"]["diffmean"]["layer"] == 4
    assert len(record["rows"]) == 2 + 5 + 2 * 2
    assert text.count("| diffmean |") == 5
    assert "| gemma3 | random |" in text
    assert "Nothing here is about seeing" in text


def test_the_page_is_what_was_recorded() -> None:
    records = [read_json(vision_page.RECORDED / f"{shape}.json") for shape in SHAPES]
    assert vision_page.PAGE.read_text("utf-8") == vision_page.page(records)
