"""What takes hours is kept in a file: it comes back equal and goes on as before; damaged files are
refused by a sentence."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import random_directions
from safetensors import safe_open
from safetensors.torch import save_file

import steerlab as sl
from steerlab.core.equality import same
from steerlab.core.errors import SteerlabError
from steerlab.core.firing import Firing
from steerlab.core.moments import Moments
from steerlab.core.sites import hook_name
from steerlab.core.tensor_file import digest_of
from steerlab.edits import OPERATORS, Edit
from steerlab.edits.edit_file import functions
from steerlab.estimate.units.selection import Selection
from steerlab.models.model import Model

LANGS, LAYERS, WIDTH = ("en", "de", "ja"), (1, 4), 6


def batch(seed: int, rows: int = 3) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    values = {
        hook_name("resid_post", layer): torch.randn(rows, 5, WIDTH, generator=random)
        for layer in LAYERS
    }
    return values, torch.ones(rows, 5, dtype=torch.bool)


def read(moments: Moments, seeds: range) -> Moments:
    for seed in seeds:
        means = {lang: moments.update(lang, *batch(seed + 100 * i)) for i, lang in enumerate(LANGS)}
        if moments.pairs is not None:
            moments.pairs.update(means)
    return moments


def made_moments(**more: Any) -> Moments:
    provenance = {"model": {"name": "tiny", "fingerprint": "ab-cd"}, "tokens": 3}
    return read(Moments(LANGS, LAYERS, WIDTH, provenance=provenance, **more), range(4))


def made_firing(**more: Any) -> Firing:
    random = torch.Generator().manual_seed(0)
    firing = Firing(LANGS, LAYERS, 7, WIDTH, site="mlp_post", provenance={"saes": [1]}, **more)
    for lang in LANGS:
        mask = torch.ones(2, 5, dtype=torch.bool)
        for layer in LAYERS:
            value = torch.randn(2, 5, 7, generator=random)
            states = torch.randn(2, 5, WIDTH, generator=random)
            firing.update(lang, layer, on=value > 0, value=value, states=states, mask=mask)
        firing.count(lang, mask)
    return firing


def made_selection() -> Selection:
    score = torch.randn(3, 2, 7, generator=torch.Generator().manual_seed(0))
    chosen = score > 0.5
    score[0, 0, 0] = -torch.inf
    return Selection("lape", LANGS, LAYERS, "mlp_post", chosen, score, {"settings": {"share": 0.1}})


def made_edit() -> Edit:
    directions = sl.Directions(
        vectors=torch.randn(2, 3, WIDTH),
        basis=torch.nn.functional.normalize(torch.randn(2, 3, 1, WIDTH), dim=-1),
        means=torch.randn(2, 3, WIDTH),
        langs=("en", "es"),
        layers=(0, 1, 2),
        site="resid_post",
        provenance={"model": {"name": "tiny", "fingerprint": "ab-cd"}},
    )
    there = directions.between("en", "es")
    row = sl.add(there.at(1), strength=1.5) | sl.rotate(there.at(2), share=0.5, positions="prompt")
    return sl.stack([row, sl.ablate(directions["es"]), sl.add(there.at(0), strength=0.0)])


def checksum(file: Path) -> str:
    with safe_open(file, "pt") as opened:
        return str(opened.metadata()["sha256"])


def fields(value: Any) -> dict[str, Any]:
    """Everything in an object, also in those that it holds."""
    found = {}
    for name, each in vars(value).items():
        if isinstance(each, torch.Generator):
            each = each.get_state()
        holds = hasattr(each, "state") or (name == "pairs" and each is not None)
        found[name] = fields(each) if holds else each
    return found


KEPT: dict[str, Callable[[], Any]] = {
    "moments": made_moments,
    "moments with all": lambda: made_moments(scatter=True, clouds=True, sample=5, pairs_from="en"),
    "moments with pairs": lambda: made_moments(pairs_from="de"),
    "moments at a layer": lambda: made_moments(scatter=True, sample=4).at(4),
    "firing": made_firing,
    "firing on noise": lambda: made_firing(keep=3, noise="random tokens"),
    "selection": made_selection,
    "edit": made_edit,
    "no edit": lambda: Edit(()),
}
every = pytest.mark.parametrize("kind", KEPT)


@every
def test_what_was_saved_comes_back_equal(kind: str, tmp_path: Path) -> None:
    made = KEPT[kind]()
    file = made.save(tmp_path / "a.safetensors")
    back = type(made).load(file)
    assert same(fields(back), fields(made))
    assert repr(back) == repr(made)
    # safetensors writes the header in any order; the checksum is of all that is in the file.
    assert checksum(back.save(tmp_path / "b.safetensors")) == checksum(file)


def test_moments_go_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    parts: dict[str, Any] = {"scatter": True, "clouds": True, "sample": 5, "pairs_from": "en"}
    whole = made_moments(**parts)
    back = Moments.load(made_moments(**parts).save(tmp_path / "a.safetensors"))
    assert same(fields(read(back, range(4, 9))), fields(read(whole, range(4, 9))))
    other = read(Moments(LANGS, LAYERS, WIDTH, provenance=whole.provenance, **parts), range(3))
    assert same(fields(back.merge(other)), fields(whole.merge(other)))


def test_firing_goes_on_too(tmp_path: Path) -> None:
    whole = made_firing()
    back = Firing.load(whole.save(tmp_path / "a.safetensors"))
    assert same(fields(back.merge(made_firing())), fields(whole.merge(made_firing())))


def test_an_edit_from_a_file_does_the_same(
    polyglot: Model, directions: Any, tmp_path: Path
) -> None:
    there = directions.between("en", "es")
    edit = sl.add(there.at(5), strength=1.3) | sl.rotate(there.at(3), share=0.3)
    back = Edit.load(edit.save(tmp_path / "a.safetensors"))
    assert (back.digest, back) == (edit.digest, edit)
    said = [
        sl.generate(polyglot, "No.\n", edit=each, max_new_tokens=8)
        for each in (edit, back, Edit(()))
    ]
    assert said[0] == said[1] != said[2]


def test_every_operator_can_be_kept() -> None:
    changes = {record.change for record in OPERATORS.values()} - {None}
    assert set(functions().values()) == changes, "two functions have one name"


def test_a_function_of_ones_own_is_no_part_of_a_file(polyglot: Model, tmp_path: Path) -> None:
    own = sl.edit(lambda h: 0 * h, layer=1, name="mine")
    direction = random_directions(polyglot).between("en", "es").at(2)
    with pytest.raises(SteerlabError, match="a function of your own, mine, and a file holds no"):
        (sl.add(direction) | own).save(tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------------------------------- damage


@every
def test_a_file_that_was_damaged_is_refused(kind: str, tmp_path: Path) -> None:
    made = KEPT[kind]()
    file = made.save(tmp_path / "a.safetensors")
    whole = file.read_bytes()
    for place in range(9, len(whole), max(1, len(whole) // 12)):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        with pytest.raises(SteerlabError, match=r"again|give a file"):
            type(made).load(file)
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SteerlabError, match="truncated or no safetensors"):
        type(made).load(file)
    with pytest.raises(SteerlabError, match="there is no file"):
        type(made).load(tmp_path / "none.safetensors")


@every
def test_the_file_of_something_else_is_refused(kind: str, tmp_path: Path) -> None:
    made = KEPT[kind]()
    file = made_selection().save(tmp_path / "a.safetensors")
    if kind == "selection":
        file = made_firing().save(tmp_path / "b.safetensors")
    with pytest.raises(SteerlabError, match="give a file that was saved as such"):
        type(made).load(file)


@every
def test_a_file_of_another_s_is_not_replaced(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    file.write_text("mine")
    with pytest.raises(SteerlabError):
        KEPT[kind]().save(file)
    assert file.read_text() == "mine"
    assert KEPT[kind]().save(file, force=True).read_bytes() != b"mine"
    with pytest.raises(SteerlabError, match=r"\.safetensors"):
        KEPT[kind]().save(tmp_path / "a.pt")


ODD: dict[str, tuple[str, Callable[[dict[str, Any]], None], str]] = {
    "moments of no language": ("moments", lambda about: about.update(langs=["qq"]), "qq"),
    "layers that are words": ("moments", lambda about: about.update(layers=["a"]), "whole number"),
    "another width": ("moments", lambda about: about.update(width=7), "is float64"),
    "no site": ("firing", lambda about: about.update(site="x"), "x"),
    "units below one": ("firing", lambda about: about.update(units=0), "1 or more"),
    "langs in a word": ("selection", lambda about: about.update(langs="en"), "not a list"),
    "another function": (
        "edit",
        lambda about: about["parts"][0].update(function="system"),
        "no operator with the function 'system'",
    ),
    "rows beyond the stack": (
        "edit",
        lambda about: about["parts"][0].update(rows=[9]),
        "rows that the stack has not",
    ),
    "parts that are none": ("edit", lambda about: about.update(parts=[3]), "keys and values"),
    "a tensor of nobody": (
        "edit",
        lambda about: about["parts"][0].update(tensors=[]),
        "which has no place in it",
    ),
    "nothing": ("selection", lambda about: about.clear(), "not a list"),
}


@pytest.mark.parametrize("odd", ODD)
def test_a_header_under_a_right_checksum_is_not_trusted(odd: str, tmp_path: Path) -> None:
    kind, change, message = ODD[odd]
    made = KEPT[kind]()
    file = made.save(tmp_path / "a.safetensors")
    with safe_open(file, "pt") as opened:
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}
        header = dict(opened.metadata())
    about = json.loads(header["about"])
    change(about)
    header = {"format": header["format"], "about": json.dumps(about)}
    header["sha256"] = digest_of(tensors, header)
    save_file(tensors, file, metadata=header)
    with pytest.raises(SteerlabError, match=message) as refused:
        type(made).load(file)
    assert str(file) in str(refused.value)
