"""Controllers: a planted rule is learnt, noise gives a constant, files hold no code."""

from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from steerlab.core.errors import SteerlabError
from steerlab.edits import Edit, add
from steerlab.engine.controller import (
    Controller,
    _act,
    _learn_to_act,
    features,
    fit_controller,
)
from steerlab.engine.decoding import decode

WIDTH = 24


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("bent", [False, True])
def test_a_planted_rule_is_learnt(bent: bool) -> None:
    """A side of a plane, among many dimensions; and two sides with a gap, which no line tells."""
    x = 3 * randn(600, 4 if bent else WIDTH) + 5
    along = (x[:, 0] + x[:, 1] - 10) / 3
    label = (along.abs() > 1.2).float() if bent else (along > 0.3).float()
    random = torch.Generator().manual_seed(0)
    made = _learn_to_act(x[:400], label[:400], 16, random)
    right = ((_act(made, x[400:]) > 0).float() == label[400:]).float().mean()
    share = label.mean()
    assert right > max(share, 1 - share) + 0.15


@pytest.mark.parametrize("seed", range(5))
def test_on_noise_it_is_a_constant(seed: int) -> None:
    x, label = randn(120, WIDTH, seed=seed), (torch.arange(120) % 3 == 0).float()
    made = _learn_to_act(x, label, 16, torch.Generator().manual_seed(seed))
    said = _act(made, randn(50, WIDTH, seed=seed + 50))
    assert (said == said[0]).all()
    assert float(said[0]) == pytest.approx(float(torch.logit(label.mean())))


@pytest.fixture(scope="module")
def fitted(
    polyglot: Any, lines: Any, directions: Any
) -> tuple[Controller, Edit, list[str], list[str]]:
    """One that acts on English prompts and not on French ones."""
    edit = add(directions.between("en", "de").at(4, 5), strength=0.8)
    some = lines.split("estimate")
    positive = [f"{line}\n" for line in some["en"][:24]]
    negative = [f"{line}\n" for line in some["fr"][:24]]
    made = fit_controller(polyglot, edit, positive, negative, layer=1, steps=4, new=6)
    english, french = ([f"{line}\n" for line in some[lang][30:38]] for lang in ("en", "fr"))
    return made, edit, english, french


def test_a_controller_of_languages_acts_on_one_and_not_on_the_other(
    polyglot: Any, fitted: tuple[Controller, Edit, list[str], list[str]]
) -> None:
    made, edit, english, french = fitted
    assert made.rates == {"false_shut": 0, "positives": 6, "false_open": 0, "negatives": 6}
    options: Any = {"max_new_tokens": 6, "one_line": False}
    plain = decode(polyglot, [*english, *french], **options).texts
    said = decode(polyglot, [*english, *french], edit=made.before(edit), **options).texts
    assert said[len(english) :] == plain[len(english) :]
    changed = [a != b for a, b in zip(said, plain, strict=True)][: len(english)]
    assert sum(changed) > len(english) / 2
    assert torch.equal(
        made.acts(features(polyglot, english, *made.reads)) > 0, torch.ones(8, dtype=torch.bool)
    )


def test_weights_by_layer_are_trained(polyglot: Any, fitted: Any) -> None:
    made, _, _, _ = fitted
    assert bool((made.tensors["layer_bias"] != 2).all())
    assert bool(made.tensors["layer"].any(1).all())
    assert made.layers == (4, 5)
    assert (
        made.size == sum(tensor.numel() for tensor in made.tensors.values()) > 16 * polyglot.width
    )
    assert all(not weight.grad_fn for weight in made.tensors.values())


def test_what_is_saved_is_loaded(tmp_path: Any, fitted: Any, polyglot: Any) -> None:
    made, edit, _, _ = fitted
    file = made.save(tmp_path / "controller.safetensors")
    back = Controller.load(file)
    assert (back.layers, back.reads, back.rates, back.most) == (
        made.layers,
        made.reads,
        made.rates,
        made.most,
    )
    assert back.before(edit) == made.before(edit)
    assert back.before(edit).digest == made.before(edit).digest
    tensors = load_file(file)
    save_file(tensors | {"act": tensors["act"] + 1}, tmp_path / "other.safetensors")
    with pytest.raises(SteerlabError):
        Controller.load(tmp_path / "other.safetensors")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"positive": ["a\n"] * 3}, "there are 3 positive prompts; give 10 or more"),
        ({"negative": ["a\n"] * 9}, "there are 9 negative prompts; give 10 or more"),
        ({"answers": ["b"]}, "there are 1 answers to 12 positive prompts"),
        ({"held_out": 1.0}, "held_out is 1.0"),
        ({"layer": 7}, "reads resid_post of layer 7, which comes behind the edit"),
        ({"layer": 99}, "layer 99"),
        ({"edit": Edit(())}, "the edit has no parts"),
        ({"hidden": 0}, "hidden is 0"),
    ],
)
def test_what_cannot_be_fitted_is_told(
    polyglot: Any, directions: Any, change: dict[str, Any], told: str
) -> None:
    given: dict[str, Any] = {
        "edit": add(directions.between("en", "de").at(4)),
        "positive": [f"The cat has {number} mice.\n" for number in range(12)],
        "negative": [f"Le chat a {number} souris.\n" for number in range(12)],
    }
    given |= change
    with pytest.raises(SteerlabError, match=told):
        fit_controller(
            polyglot,
            given.pop("edit"),
            given.pop("positive"),
            given.pop("negative"),
            **{"steps": 1, "new": 2, **given},
        )
