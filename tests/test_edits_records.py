"""The table of operators, and `steer`, which makes an edit from a line of it."""

import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from by_hand import SITE_OF, with_units
from edits_by_hand import (
    DEPTH,
    WIDTH,
    Fake,
    direction,
    randn,
    same_bits,
    steer,
    where,
)

import steerlab.edits as edits
from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.edits import (
    OPERATORS,
    Edit,
    Operator,
    ablate,
    add,
    affine,
    conceptor,
    detour,
    erase,
    overwrite,
    push,
)
from steerlab.edits.operators import random_shift, shift


def test_the_table_lists_every_operator_with_its_knob_and_its_identity() -> None:
    whole = with_units(direction(layers=(0, 1, 2, 3)))
    assert set(edits.__all__) == {
        name for name, record in OPERATORS.items() if not isinstance(record.make, partial)
    }
    for name, record in OPERATORS.items():
        step = replace(whole, site=SITE_OF[record.units])
        assert isinstance(record.make, partial) or record.make is getattr(edits, name)
        for value in record.grid:
            edit = record.make(step, **{record.knob: value})
            assert edit.parts
            assert not any(part.identity for part in edit.parts), (name, value)
        given = {record.knob: record.grid[0]} | dict(record.identity)
        assert all(part.identity for part in record.make(step, **given).parts), name
        doses = []
        for value in record.grid:
            with record.make(step, **{record.knob: value}).on(fake := Fake()) as touched:
                fake(randn(2, 5, WIDTH), where(2, 5))
            # Of neurons the fake does not say what reaches the stream, and of experts nobody can:
            # only their own share is known.
            known = touched.site_doses(2)
            inside = record.units in ("neurons", "experts")
            assert touched.doses(2).isnan().all() == bool(known) == inside
            doses.append(float(known.get(SITE_OF[record.units], touched.doses(2)).min()))
        assert min(doses) > 0, f"{name} counts no dose"


@pytest.mark.parametrize("name", OPERATORS)
def test_every_record_says_its_unit_and_has_a_twin_or_a_reason(name: str) -> None:
    record = OPERATORS[name]
    assert record.unit
    assert record.grid
    assert record.identity
    assert (record.twin is None) == bool(record.no_twin)
    step = with_units(direction(layers=(0, 1, 2, 3), rank=2))
    step = replace(step, site=SITE_OF[record.units])
    edit = record.make(step, **{record.knob: record.grid[-1]})
    for part in edit.parts:
        assert part.change is record.change
        found = edits.record_of(part)
        assert found is not None
        assert (found.change, found.twin) == (record.change, record.twin)
        if record.twin is None:
            continue
        drawn, again, other, double = (
            record.twin(part.tensors, torch.Generator().manual_seed(seed), scale)
            for seed, scale in ((1, 1.0), (1, 1.0), (2, 1.0), (1, 2.0))
        )
        assert drawn.keys() <= part.tensors.keys()
        assert all(drawn[key].shape == part.tensors[key].shape for key in drawn)
        assert all(torch.equal(drawn[key], again[key]) for key in drawn)
        assert any(not torch.equal(drawn[key], other[key]) for key in drawn)
        assert any(not torch.equal(drawn[key], part.tensors[key]) for key in drawn)
        assert any(torch.equal(2 * drawn[key], double[key]) for key in drawn), "the dose grows"


def test_records_that_leave_something_out_are_refused() -> None:
    whole: dict[str, Any] = {"knob": "strength", "unit": "gaps", "grid": (1.0,)}
    whole |= {"identity": {"strength": 0.0}, "no_twin": "it is a test"}
    Operator(make=add, **whole)
    wrong: list[tuple[dict[str, Any], str]] = [
        (
            {"knob": "size"},
            "the record of add names the knob 'size'; it has strength, keep_norm, positions",
        ),
        ({"identity": {"fraction": 0.0}}, "the record of add names the knob 'fraction'"),
        ({"unit": "", "grid": ()}, "the record of add leaves out unit, grid; an operator has"),
        ({"identity": {}, "change": shift}, "the record of add leaves out identity"),
        ({"no_twin": ""}, "has either a random twin or, in no_twin, the reason"),
        ({"twin": random_shift}, "has either a random twin or, in no_twin, the reason"),
        ({"twin": random_shift, "no_twin": ""}, "has a twin, which belongs .*; give change= too"),
    ]
    for other, told in wrong:
        with pytest.raises(SteerlabError, match=told):
            Operator(make=add, **{**whole, **other})


NEWCOMER = '''
from steerlab.edits.edit import edit_along
from steerlab.edits.record import Operator
from steerlab.core.settings import need_finite


def scale_along(h, tensors, positions):
    unit = tensors["unit"][:, None]
    return tensors["factor"][:, None, None] * (h * unit).sum(-1, keepdim=True) * unit


def stretch(direction, *, factor=1.0, positions="all"):
    """Stretch what lies along the direction: h + factor · (u·h) u."""
    tensors = {"unit": direction.unit, "factor": 0 * direction.gap + need_finite("factor", factor)}
    return edit_along(direction, scale_along, tensors, operator="stretch", positions=positions,
                      identity=factor == 0)


RECORDS = {
    "%s": Operator(make=stretch, change=scale_along, knob="factor", unit="lengths along the unit",
                   grid=(0.5, 1.0), identity={"factor": 0.0}, no_twin="it is a test")
}
'''

# A file beside the package's own: a folder more in which Python looks for modules of `edits`.
BESIDE = """
import sys, importlib.util
spec = importlib.util.find_spec("steerlab.edits")
module = importlib.util.module_from_spec(spec)
module.__path__.append(sys.argv[1])
sys.modules["steerlab.edits"] = module
spec.loader.exec_module(module)
import steerlab as sl
from steerlab.sweeps.grid import Grid
from steerlab.sweeps.methods import STEERING
from steerlab.edits import stretch
assert "stretch" in sl.edits.__all__ and "stretch" in sl.edits.OPERATORS
assert STEERING["stretch"] == (0.5, 1.0)
print(Grid.of({"operators": "stretch"}).operators, sl.edits.stretch is stretch)
"""


def test_an_operator_in_a_file_of_its_own_is_found(tmp_path: Path) -> None:
    def run() -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-c", BESIDE, str(tmp_path)]
        return subprocess.run(words, capture_output=True, text=True)

    assert "cannot import name 'stretch'" in run().stderr, "without the file there is none"
    (tmp_path / "newcomer.py").write_text(NEWCOMER % "stretch", "utf-8")
    found = run()
    assert found.stdout.split("\n")[0] == "{'stretch': (0.5, 1.0)} True", found.stderr
    (tmp_path / "newcomer.py").write_text(NEWCOMER % "add", "utf-8")
    twice = "'add' stands in RECORDS of steerlab.edits.operators and of steerlab.edits.newcomer"
    assert twice in run().stderr


def test_steer_takes_a_record_too() -> None:
    means = randn(2, DEPTH, WIDTH)
    basis = torch.nn.functional.normalize(means - means.mean(0), dim=-1)[:, :, None]
    fitted = Directions(means, basis, means, ("en", "de"), tuple(range(DEPTH)), "resid_post")
    by_name, by_record = (
        edits.steer(each, fitted, 1.5, source="en", target="de", layer=2)
        for each in ("add", OPERATORS["add"])
    )
    assert by_name == by_record
    assert by_name != edits.steer("add", fitted, 1.0, source="en", target="de", layer=2)


def test_steer_makes_the_edit_of_a_cell() -> None:
    means = randn(3, DEPTH, WIDTH)
    basis = torch.nn.functional.normalize(means - means.mean(0), dim=-1)[:, :, None]
    fitted = Directions(means, basis, means, ("en", "de", "es"), tuple(range(DEPTH)), "resid_post")
    h = randn(2, 5, WIDTH)
    for name, made in (
        ("add", add(fitted.between("en", "de").at(2), strength=1.5)),
        ("ablate", ablate(fitted["de"].at(2), fraction=1.5)),
        ("affine", affine(fitted.between("en", "de").at(2), level=1.5)),
        ("detour", detour(fitted["de"], remove=1.5)),
    ):
        assert same_bits(steer(steer_cell(name, fitted), h), steer(made, h)), name
    with pytest.raises(
        SteerlabError,
        match="there is no operator 'multiply'; there are add, rotate, ablate, affine",
    ):
        steer_cell("multiply", fitted)


def steer_cell(name: str, fitted: Directions) -> Edit:
    return edits.steer(name, fitted, 1.5, source="en", target="de", layer=2)


def test_operators_say_which_fit_they_need() -> None:
    bare = replace(direction(), extra={})
    for make, told in [
        (
            lambda: erase(bare),
            "erase needs the read, write, centre that leace fits, .* to 'de' has none: fit with "
            "leace",
        ),
        (
            lambda: conceptor(bare, quota=0.2),
            "conceptor needs the axes, spectrum that ellipsoid fits",
        ),
        (lambda: overwrite(bare), "overwrite needs the mask, values that sparse fits"),
    ]:
        with pytest.raises(SteerlabError, match=told):
            make()


def test_settings_of_the_new_operators_that_are_refused() -> None:
    step, nan = direction(), float("nan")
    empty = replace(step, extra={**step.extra, "mask": step.extra["mask"] * 0})
    for make, told in [
        (lambda: conceptor(step), r"conceptor takes either aperture= or quota="),
        (
            lambda: conceptor(step, aperture=1.0, quota=0.2),
            r"conceptor takes either aperture= or quota=",
        ),
        (lambda: conceptor(step, aperture=0.0), "aperture is 0.0; give a number above 0"),
        (lambda: conceptor(step, aperture=1.0, beta=-1.0), "beta is -1.0; give a number above 0"),
        (
            lambda: conceptor(step, quota=0.9),
            r"quota is 0.9; give a share above 0 and below 0.75, the axes that",
        ),
        (
            lambda: overwrite(empty),
            "there are no dimensions of 'de' to overwrite; its fit is from that language",
        ),
        (
            lambda: push(replace(step, basis=step.basis * 0)),
            "there is no subspace of 'de' to push along",
        ),
        (
            lambda: push(replace(step, gap=step.gap * 0)),
            "the means of 'de' and of its source are one: there is no gap",
        ),
        (
            lambda: affine(replace(step, unit=step.unit * 0)),
            "the direction to 'de' is zero: there is nothing to set",
        ),
        (lambda: affine(step, level=nan), "level is nan; give a finite number"),
        (lambda: erase(step, fraction=nan), "fraction is nan; give a finite number"),
        (lambda: overwrite(step, scale=nan), "scale is nan; give a finite number"),
        (lambda: push(step, strength=nan), "strength is nan; give a finite number"),
        (
            lambda: detour(direction(layers=(0, 1, 2, 3)), remove=nan),
            "remove is nan; give a finite number",
        ),
    ]:
        with pytest.raises(SteerlabError, match=told):
            make()
    push(replace(step, gap=step.gap * 0), strength=0)
