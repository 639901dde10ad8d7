"""What a CLaS-Bench run will do, and what is refused before a model is loaded."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.edits import add
from steerlab.models.model import Model
from steerlab.scores.langid import identifier
from steerlab.studies.clas import (
    Settings,
    questions,
)
from steerlab.studies.clas.plan import RANDOM, TWIN, Plan, layers_of, pairs_of
from steerlab.studies.clas.study import in_units
from steerlab.sweeps.cell import Cell
from steerlab.sweeps.runner import Runner

# --------------------------------------------------------------------------------------------- plan


def planned(**told: Any) -> Plan:
    """The plan of settings for a model of 32 layers."""
    settings = Settings(**told)
    return Plan(settings, pairs_of(settings, questions(), identifier()), layers_of(settings, 32))


def test_the_defaults_are_those_of_the_paper() -> None:
    told = planned()
    assert (told.settings.prompt, told.settings.new_tokens) == ("chat", 1024)
    assert told.layers == (4, 8, 12, 16, 20, 24, 28)
    assert told.forms == {
        "unsteered": "chat",
        "prompt english": "chat+english",
        "prompt target": "chat+target",
    }
    assert len(told.pairs) == 16 * 16, "every pair, one language with itself too"
    assert len(told.across) == 16 * 15
    assert layers_of(Settings(), 8) == tuple(range(1, 8))
    assert layers_of(Settings(layers=(3,)), 8) == (3,)


def test_a_pair_of_one_language_is_never_steered() -> None:
    """Its vector is zero, so that a strength has no unit: it is run unsteered, and every control
    but random has it."""
    told = planned(
        sources=("en", "de"), targets=("de", "es"), strengths=(1.0,), operators=("add", "rotate")
    )
    choices = {"diffmean": (4, 1.0), "diffmean_rotate": (8, 1.0)}
    cells = [*told.design.dev_cells(), *told.design.test_cells(choices)]
    same = {(cell.method, cell.operator) for cell in cells if cell.source == cell.target}
    assert same == {(name, "none") for name in ("unsteered", "prompt english", "prompt target")}
    assert {cell.operator for cell in cells if cell.source != cell.target} == {
        "add",
        "rotate",
        "none",
    }
    with pytest.raises(
        SteerlabError, match=r"one language with itself \(de-de\), and that has no direction"
    ):
        planned(sources=("de",), targets=("de",))


def test_where_nothing_is_to_be_chosen_all_questions_are_reported_on() -> None:
    assert planned(layers=(20,), strengths=(1.0,)).choices == {"diffmean": (20, 1.0)}
    assert planned(layers=(20,), alphas=(5.0,)).choices == {"diffmean": (20, 5.0)}
    assert planned(layers=(20,)).choices is None
    assert planned(strengths=(1.0,)).choices is None


def test_directions_from_pairs_know_their_source() -> None:
    told = planned(
        sources=("en", "de"),
        targets=("es",),
        estimators=("diffmean", "pca"),
        layers=(4,),
        strengths=(1.0,),
    )
    assert told.choices is not None
    fits = {
        (cell.method, cell.source, cell.fits[:1])
        for cell in told.design.test_cells(told.choices, "all")
        if cell.fits
    }
    assert {(name, source, fit[0]) for name, source, fit in fits if name not in RANDOM} == {
        ("diffmean", "en", "diffmean"),
        ("diffmean", "de", "diffmean"),
        ("pca", "en", "pca from en"),
        ("pca", "de", "pca from de"),
    }


def test_random_controls_are_directions_from_each_source_or_twins_of_the_edits() -> None:
    """Added, a random direction of the true gap has the method's dose; turned, it has not."""
    options = {"sources": ("en", "de"), "targets": ("es",), "layers": (4,), "strengths": (1.0,)}
    told = planned(**options)
    choices = {"diffmean": (4, 1.0)}
    cells = [cell for cell in told.design.test_cells(choices) if cell.method in RANDOM]
    fits = {(cell.method, cell.source): cell.fits for cell in cells}
    assert len(fits) == 4
    assert len({name for names in fits.values() for name in names}) == 4 * 5, "each has its own"
    assert not any(cell.twins for cell in cells)
    turned = planned(**options, operators=("rotate",))
    [blind] = {control.method.name for control in turned.design.controls}
    assert blind == TWIN
    cells = [
        cell
        for cell in turned.design.test_cells({"diffmean_rotate": (4, 1.0)})
        if cell.method == TWIN
    ]
    assert {(cell.operator, cell.fits) for cell in cells} == {("rotate", ("diffmean",))}
    assert {tuple(twin.seed for twin in cell.twins) for cell in cells} == {(0, 1, 2, 3, 4)}


REFUSED: dict[str, dict[str, Any]] = {
    "there is no estimator 'meandiff'; there are diffmean": {"estimators": ("meandiff",)},
    "steers with add, rotate, .*, not with 'ablate'": {"operators": ("ablate",)},
    "operators: there is nothing in it": {"operators": ()},
    "alphas are steps of the operator add in the place of strengths": {
        "alphas": (5.0,),
        "strengths": (1.0,),
    },
    "alphas are steps of the operator add": {"alphas": (5.0,), "operators": ("rotate",)},
    "a corpus of aligned texts or from plain texts; give one": {"corpus": "a", "texts": "b"},
    "there is no prompt form 'chat.english.english'": {"baselines": ("english+english",)},
    "there is no prompt form 'instructed.english'": {"prompt": "instructed"},
    "give pairs, or sources and targets": {"pairs": (("en", "de"),), "sources": ("en",)},
    "corpus 'stand-in questions' has no 'ko'; it has en": {"targets": ("ko",)},
    "unknown language code 'xx'": {"pairs": (("en", "xx"),)},
}


@pytest.mark.parametrize("told", REFUSED)
def test_what_a_run_cannot_do_is_refused_before_a_model_is_loaded(told: str) -> None:
    with pytest.raises(SteerlabError, match=told):
        planned(**REFUSED[told])


def test_a_target_that_the_identifier_cannot_name_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(identifier(), "languages", frozenset({"en"}))
    with pytest.raises(SteerlabError, match="the language identifier lid.176.* cannot name German"):
        planned(pairs=(("de", "en"), ("en", "de")))


def test_alphas_are_steps_of_that_length(directions: Directions) -> None:
    """One alpha is the same step for every pair; one strength is not."""
    fit = replace(directions, strength_unit="absolute")
    for source, target in (("en", "de"), ("ru", "fr")):
        gap = float(directions.between(source, target).at(3).gap)
        step = add(fit.between(source, target).at(3), strength=5.0).parts[0].tensors["shift"]
        same = (
            add(directions.between(source, target).at(3), strength=5.0 / gap)
            .parts[0]
            .tensors["shift"]
        )
        assert float(step.norm()) == pytest.approx(5)
        assert step.flatten().tolist() == pytest.approx(same.flatten().tolist())
    lengths = {float(directions.between(*pair).at(3).gap) for pair in (("en", "de"), ("ru", "fr"))}
    assert len(lengths) == 2


def test_alpha_one_and_strength_one_are_two_cells(polyglot: Model, directions: Directions) -> None:
    """They are two experiments, and so finished rows of one are not those of the other; what
    operators need is kept."""
    fit = replace(directions, extra={"level": torch.ones(1, len(directions.layers))})
    cell = Cell(
        method="diffmean",
        operator="add",
        layer=3,
        strength=1.0,
        source="en",
        target="de",
        split="test",
        fits=("diffmean",),
    )

    def key(alphas: tuple[float, ...] | None) -> str:
        fits = in_units({"diffmean": fit}, Settings(alphas=alphas))
        assert fits["diffmean"].extra.keys() == {"level"}
        return Runner(polyglot, questions(), fits, identifier(), {"test": 1}).key(cell)

    assert key((1.0,)) != key(None)
    assert key((1.0,)) == key((2.0,)), "the step's length is the cell's strength"
