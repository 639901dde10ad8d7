"""Random twins of an edit: of exactly its dose, for every operator, and shifts where there is
none."""

from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
from by_hand import with_units

from steerlab.core.corpus import Corpus
from steerlab.core.directions import Direction, Directions
from steerlab.core.errors import SteerlabError
from steerlab.edits import OPERATORS, Edit, ablate, add, rotate
from steerlab.edits.edit import edit as edit_of
from steerlab.edits.part import Tensors
from steerlab.edits.twins import Twin, twin_of
from steerlab.engine.random_edits import doses, equal_doses, random_like
from steerlab.models.model import Model
from steerlab.sweeps.fits import fitted

LAYER = 5
FITS = ("diffmean", "leace", "ellipsoid", "sparse", "steer2edit")


@pytest.fixture(scope="module")
def fits(polyglot: Model, lines: Corpus) -> Mapping[str, Directions]:
    texts = lines.split("estimate").take(48)
    return fitted(polyglot, texts, FITS, layers=range(2, 8), source="en")


@pytest.fixture(scope="module")
def texts(lines: Corpus) -> list[str]:
    return list(lines.split("dev")["en"][:3])


def direction_of(name: str, fits: Mapping[str, Directions], model: Model) -> Direction:
    """What an operator acts along: fitted, and random units for operators of units."""
    record = OPERATORS[name]
    fit = fits[record.estimator or "diffmean"]
    step = fit["de"] if record.removes else fit.between("en", "de")
    if record.units == "neurons":
        width, layers = model.width_of("mlp_post"), len(step.layers)
        zeros = torch.zeros(layers, width)
        step = replace(step, unit=zeros, start=zeros, basis=zeros[:, None], end=None)
        step = replace(step, site="mlp_post")
    if record.units:
        step = with_units(step)
    return step if record.whole else step.at(LAYER)


@pytest.mark.parametrize(  # of experts polyglot has none, and their dose is not known
    "name", [name for name, record in OPERATORS.items() if record.units != "experts"]
)
def test_every_operator_has_twins_of_exactly_its_dose(
    name: str, polyglot: Model, fits: Mapping[str, Directions], texts: list[str]
) -> None:
    record, step = OPERATORS[name], direction_of(name, fits, polyglot)
    for value in (record.grid[0], record.grid[-1]):
        edit = record.make(step, **{record.knob: value})
        [twins] = equal_doses(polyglot, texts, [edit], seeds=(0, 1))
        made = [twin_of(edit, twin) for twin in twins]
        own, *others = doses(polyglot, texts, [edit, *made]).tolist()
        assert own > 0.005
        assert others == [pytest.approx(own, rel=0.02)] * 2
        assert [(twin.kind, twin.seed) for twin in twins] == [("operator", 0), ("operator", 1)]
        for twin in made:
            places = [(part.layer, part.site, part.change) for part in twin.parts]
            assert places == [(part.layer, part.site, part.change) for part in edit.parts]
        assert made[0] != made[1] != edit
        assert random_like(polyglot, texts, edit, seed=1) == made[1]


def test_without_scaling_a_random_axis_has_another_dose(
    polyglot: Model, fits: Mapping[str, Directions], texts: list[str]
) -> None:
    """What is measured above could fail: language axes hold other shares of the activations."""
    edit = OPERATORS["erase"].make(direction_of("erase", fits, polyglot))
    own, blind = doses(polyglot, texts, [edit, twin_of(edit, Twin(0))]).tolist()
    assert blind < 0.6 * own


def test_what_has_no_twin_or_cannot_reach_the_dose_is_a_shift_and_says_so(
    polyglot: Model, fits: Mapping[str, Directions], texts: list[str]
) -> None:
    step = fits["diffmean"].between("en", "de")
    double = edit_of(lambda h: h, layer=LAYER, name="double")
    # A turn by half a circle in a plane that holds all of h: no other plane moves it as far.
    most = edit_of(lambda h: -2 * h, layer=LAYER, name="turn round")
    both = add(step.at(LAYER), strength=0.4) | edit_of(lambda h: 0.2 * h, layer=7, name="longer")
    found = equal_doses(polyglot, texts, [double, Edit(()), most, both])
    assert found[1] == ()
    widths = {"resid_post": polyglot.width}
    for edit, twins in zip([double, most, both], [found[0], found[2], found[3]], strict=True):
        [twin] = twins
        assert twin.kind == "shift"
        assert str(twin).startswith("random shift × ")
        made = twin_of(edit, twin, widths=widths)
        own, other = doses(polyglot, texts, [edit, made]).tolist()
        assert other == pytest.approx(own, rel=0.02)
        lengths = [float(part.tensors["shift"].norm()) for part in made.parts]
        assert lengths == [pytest.approx(twin.scale)] * len(edit.parts)
    with pytest.raises(SteerlabError, match="a random shift is of some width; give widths="):
        twin_of(double, Twin(0, kind="shift"))
    with pytest.raises(SteerlabError, match="of the operator 'double': it is your own function"):
        random_like(polyglot, texts, double)


def test_a_twin_that_cannot_reach_the_dose_gives_way_to_a_shift(
    polyglot: Model,
    fits: Mapping[str, Directions],
    texts: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An axis that holds nothing of the activations has a dose of 0 at any fraction."""
    axis = ablate(fits["diffmean"]["de"].at(LAYER))
    record = OPERATORS["ablate"]

    def empty(tensors: Tensors, random: torch.Generator, scale: float) -> Tensors:
        return {"basis": 0 * tensors["basis"], "fraction": scale * tensors["fraction"]}

    assert equal_doses(polyglot, texts, [axis])[0][0].kind == "operator"
    # The one record in its place: parts are known by their function.
    monkeypatch.setitem(OPERATORS, "ablate", replace(record, twin=empty))
    assert equal_doses(polyglot, texts, [axis])[0][0].kind == "shift"
    with pytest.raises(SteerlabError, match=r"no random edit reached the dose 0\.\d+ \(the last"):
        random_like(polyglot, texts, axis)


def test_each_edit_has_the_dose_of_its_own_texts(
    polyglot: Model, fits: Mapping[str, Directions]
) -> None:
    """The same edit twice with other texts: two doses, each as if it stood alone."""
    edit = rotate(fits["diffmean"].between("en", "de").at(4), share=1.0)
    own = [["We are going to the market."], ["Das Wetter ist schön.", "Es regnet."]]
    together = equal_doses(polyglot, own, [edit, edit], seeds=(0, 1))
    alone = [equal_doses(polyglot, texts, [edit], seeds=(0, 1))[0] for texts in own]
    assert together[0] != together[1]
    for twins, expected in zip(together, alone, strict=True):
        for twin, other in zip(twins, expected, strict=True):
            assert twin.scale == pytest.approx(other.scale, rel=1e-3)
    with pytest.raises(SteerlabError, match="2 lists of texts for 1 edits"):
        equal_doses(polyglot, own, [edit])
