"""Models that also see: the part that writes is read and steered, by its name, and says on text
what its own text model says; an edit that was fitted on text leaves a picture's parts alone."""

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "experiments" / "vision"))

from shapes import IMAGE, SHAPES, made, own_text_model, picture, writer_of

import steerlab as sl
from steerlab.core.corpus import Corpus
from steerlab.core.errors import SteerlabError
from steerlab.edits import add, window
from steerlab.estimate import diffmean
from steerlab.models.loading import PACKAGED, load
from steerlab.models.model import Model

LINES = {
    "en": ("The weather is nice today.", "We eat bread.", "I would like two tickets."),
    "de": ("Das Wetter ist heute schön.", "Wir essen Brot.", "Ich möchte zwei Karten."),
}


TEXTS = Corpus("few", LINES, numbers=(0, 1, 2))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    top = tmp_path_factory.mktemp("seeing")

    @functools.cache
    def save(shape: str) -> Path:
        from transformers import AutoTokenizer

        made(shape).save_pretrained(top / shape)
        AutoTokenizer.from_pretrained(PACKAGED).save_pretrained(top / shape)
        return top / shape

    return save


@pytest.fixture(scope="module")
def seeing(folder: Callable[[str], Path]) -> Callable[[str], Model]:
    return functools.cache(lambda shape: load(folder(shape)))


def prompt(model: Model, text: str) -> Tensor:
    """BOS, a picture, and a text."""
    [start, *rest] = model.tokenizer(text)["input_ids"]
    return torch.tensor([[start, *[IMAGE] * 4, *rest]])


@torch.inference_mode()
def outputs(model: Model, ids: Tensor, **given: Any) -> list[Tensor]:
    """What comes out of every block."""
    seen: list[Tensor] = []
    looks = [("resid_post", layer, lambda h, _: seen.append(h)) for layer in range(model.n_layers)]
    with model.attached(looks):
        model.hf(input_ids=ids, attention_mask=torch.ones_like(ids), **given)
    return seen


# ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
def test_it_says_on_text_what_its_text_model_says(
    shape: str, seeing: Callable[[str], Model]
) -> None:
    """A tower as deep stands before it: by a count its blocks could not be told."""
    model = seeing(shape)
    assert "ConditionalGeneration" in type(model.hf).__name__
    assert model.images[0] == IMAGE
    assert model.blocks is writer_of(model.hf).layers
    alone = own_text_model(shape, model)
    ids = torch.tensor([[1, 50, 60, 70, 80], [0, 1, 55, 65, 75]])
    with torch.inference_mode():
        both = [each.forward(ids, ids != 0)[0][ids != 0] for each in (model, alone)]
    torch.testing.assert_close(*both, atol=1e-4, rtol=1e-4)
    ours, theirs = (sl.collect(each, TEXTS, progress=False) for each in (model, alone))
    assert int(ours.count.sum()) > 20
    torch.testing.assert_close(ours.mean, theirs.mean, atol=1e-4, rtol=1e-4)
    said = [sl.generate(each, list(LINES["en"]), max_new_tokens=6) for each in (model, alone)]
    assert said[0] == said[1]
    lines = list(LINES["de"])
    surprise = [sl.cross_entropy(each, lines).tolist() for each in (model, alone)]
    assert surprise[0] == pytest.approx(surprise[1], rel=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
def test_an_edit_fitted_on_text_steers_a_caption_and_spares_the_picture(
    shape: str, seeing: Callable[[str], Model]
) -> None:
    model = seeing(shape)
    directions = diffmean(sl.collect(model, TEXTS, progress=False))
    step = directions.between("en", "de").at(1)
    ids = prompt(model, "What is this?")
    shown = picture(shape, ids)
    plain = outputs(model, ids, **shown)
    others = {name: value + 1 for name, value in shown.items() if name == "pixel_values"}
    elsewhere = outputs(model, ids, **shown | others)
    assert not torch.allclose(plain[0][0, 1:5], elsewhere[0][0, 1:5]), "the picture is seen"
    where = {"all": slice(5, None), "image": slice(1, 5)}
    for positions, touched in where.items():
        edit = add(step, strength=1.5, positions=positions)
        with edit.on(model) as stats:
            steered = outputs(model, ids, **shown)
        moved = steered[1] - plain[1]
        expected = torch.zeros_like(moved)
        expected[0, touched] = 1.5 * float(step.gap) * step.unit[0]
        torch.testing.assert_close(moved, expected, atol=1e-4, rtol=1e-3)
        assert torch.equal(steered[0], plain[0])
        assert stats.prefill == {1: len(range(*touched.indices(ids.shape[1])))}


@pytest.mark.parametrize("shape", ["llava", "qwen2_5_vl", "gemma3", "smolvlm"])
def test_its_own_generate_captions_under_an_edit(
    shape: str, seeing: Callable[[str], Model]
) -> None:
    model = seeing(shape)
    step = diffmean(sl.collect(model, TEXTS, progress=False)).between("en", "de")
    ids = prompt(model, "What is this?")
    shown = picture(shape, ids)
    given = {"attention_mask": torch.ones_like(ids), "max_new_tokens": 5, "do_sample": False}
    said = []
    for strength in (0.0, 8.0):
        with add(step.at(1), strength=strength).on(model) as stats:
            said.append(model.hf.generate(ids, **shown, **given)[0, ids.shape[1] :].tolist())
        text = ids.shape[1] - 5
        assert stats.prefill == {1: text}, "BOS and four parts of the picture are left alone"
        assert 0 < stats.decode[1] <= 4
    assert said[0] == model.hf.generate(ids, **shown, **given)[0, ids.shape[1] :].tolist()
    assert said[0] != said[1]


def test_a_text_without_a_picture_has_no_such_positions(seeing: Callable[[str], Model]) -> None:
    model = seeing("llava")
    step = diffmean(sl.collect(model, TEXTS, progress=False)).between("en", "de")
    assert window("image") == "image"
    with (
        pytest.raises(SteerlabError, match="touched no position"),
        add(step.at(1), positions="image").on(model),
    ):
        outputs(model, prompt(model, "What?")[:, 5:])


def test_bos_behind_a_picture_is_bos(seeing: Callable[[str], Model]) -> None:
    """As PaliGemma's prompts are."""
    model = seeing("paligemma")
    ids = torch.tensor([[0, IMAGE, IMAGE, 1, 50, 60]])
    found = model.positions(ids, ids != 0)
    assert found.text.tolist() == [[False, False, False, False, True, True]]
    assert found.begins is not None
    assert found.begins.tolist() == [[False, False, False, True, False, False]]
    assert found.image is not None
    assert found.image.tolist() == [[False, True, True, False, False, False]]
    assert found.real.tolist() == [[False, True, True, True, True, True]]
