"""Directions are opposite, measured in gaps, and come back from disk unchanged or not at all."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.core.tensor_file import digest_of

LANGS, LAYERS, WIDTH = ("en", "de", "es", "ja"), (1, 4, 6), 8
PROVENANCE = {
    "estimator": "diffmean",
    "model": {"name": "tiny", "fingerprint": "abc"},
    "settings": {},
    "tokens": 7,
}


def directions(*, source: str | None = None, seed: int = 0, rank: int = 2) -> Directions:
    """Random ones; at layer 1 the basis uses one row less."""
    generator = torch.Generator().manual_seed(seed)
    shape = (len(LANGS), len(LAYERS), WIDTH)
    basis = torch.linalg.qr(torch.randn(*shape, rank, generator=generator))[0].mT.contiguous()
    basis[:, 0, -1] = 0
    vectors, means = (torch.randn(shape, generator=generator) for _ in range(2))
    return Directions(vectors, basis, means, LANGS, LAYERS, "resid_post", source, PROVENANCE)


# Algebra


@given(st.permutations(LANGS), st.integers(0, 20))
@settings(deadline=None, max_examples=30)
def test_between_is_antisymmetric(order: list[str], seed: int) -> None:
    fitted, (a, b) = directions(seed=seed), order[:2]
    there, back = fitted.between(a, b), fitted.between(b, a)
    assert torch.equal(there.unit, -back.unit)
    assert torch.equal(there.gap, back.gap)
    torch.testing.assert_close(there.unit.norm(dim=-1), torch.ones(3))
    assert (there.source, there.target, back.source, back.target) == (a, b, b, a)


def test_a_gap_is_the_distance_of_the_means() -> None:
    fitted = directions()
    step = fitted.between("en", "ja")
    torch.testing.assert_close(step.gap, (fitted.means[3] - fitted.means[0]).norm(dim=-1))
    assert torch.equal(step.start, fitted.means[0])
    assert torch.equal(step.basis, fitted.basis[3])
    assert step.model == PROVENANCE["model"]
    assert not torch.allclose(step.gap, (fitted.vectors[3] - fitted.vectors[0]).norm(dim=-1)), (
        "not of the vectors"
    )


def test_against_the_rest() -> None:
    fitted = directions()
    step, rest = fitted["de"], [0, 2, 3]
    torch.testing.assert_close(step.start, fitted.means[rest].mean(0))
    torch.testing.assert_close(
        step.gap, (fitted.means[1] - fitted.means[rest].mean(0)).norm(dim=-1)
    )
    vector = fitted.vectors[1] - fitted.vectors[rest].mean(0)
    torch.testing.assert_close(step.unit, vector / vector.norm(dim=-1, keepdim=True))
    assert (step.source, step.target) == (None, "de")


def test_an_absolute_unit_of_strength_is_one() -> None:
    fitted = replace(directions(), extra={"mask": torch.ones(4, 3, 5)})
    absolute = replace(fitted, strength_unit="absolute")
    for made, plain in (
        (absolute.between("en", "ja"), fitted.between("en", "ja")),
        (absolute["ja"], fitted["ja"]),
    ):
        assert torch.equal(made.gap, torch.ones(3))
        assert not torch.allclose(plain.gap, torch.ones(3), atol=0.1), "the natural gap is another"
        for name in ("unit", "start", "end", "basis"):
            assert torch.equal(getattr(made, name), getattr(plain, name))
        assert set(made.extra) == {"mask"}
    assert torch.equal(absolute.at(4).between("en", "ja").gap, torch.ones(1)), (
        "kept with the layers"
    )


def test_the_digest_tells_the_units_of_strength_apart() -> None:
    fitted = directions()
    assert replace(fitted, strength_unit="absolute").digest != fitted.digest
    assert replace(fitted, strength_unit="gap").digest == fitted.digest


def test_subspace_spans_the_centred_vectors() -> None:
    fitted = directions()
    rows = fitted.subspace(4)
    assert rows.shape == (3, WIDTH), "four centred vectors span three dimensions"
    torch.testing.assert_close(rows @ rows.T, torch.eye(3), atol=1e-5, rtol=0)
    centred = fitted.centred()[:, 1]
    torch.testing.assert_close(centred @ rows.T @ rows, centred, atol=1e-5, rtol=0)
    assert not torch.allclose(fitted.vectors[:, 1] @ rows.T @ rows, fitted.vectors[:, 1], atol=0.1)


def test_at_keeps_the_layers_that_it_names() -> None:
    fitted = directions()
    few = fitted.at(6, 1)
    assert few.layers == (6, 1)
    assert torch.equal(few.vectors, fitted.vectors[:, [2, 0]])
    assert torch.equal(few.between("en", "de").unit, fitted.between("en", "de").at(6, 1).unit)
    for ask in (fitted.at, fitted.between("en", "de").at):
        with pytest.raises(SteerlabError, match="no layer 5 here; there are layers 1, 4, 6"):
            ask(4, 5)
        with pytest.raises(SteerlabError, match="name at least one of the layers 1, 4, 6"):
            ask()


# What is refused


def test_unknown_and_absent_languages_and_equal_ends() -> None:
    fitted = directions()
    for ask in (lambda: fitted.between("en", "xx"), lambda: fitted["xx"]):
        with pytest.raises(SteerlabError, match="unknown language code 'xx'; known codes: en de"):
            ask()
    with pytest.raises(SteerlabError, match="no direction for 'fr'; there are en de es ja"):
        fitted.between("fr", "en")
    with pytest.raises(
        SteerlabError, match="source and target are both 'de'; a direction needs two languages"
    ):
        fitted.between("de", "de")


def test_a_fit_on_pairs_refuses_another_source() -> None:
    fitted = directions(source="en")
    assert fitted.between("en", "de").source == "en"
    with pytest.raises(
        SteerlabError, match="fitted from 'en' only; 'de' was asked for .* fit again from 'de'"
    ):
        fitted.between("de", "es")
    with pytest.raises(SteerlabError, match="fitted from 'en' only"):
        fitted.between("de", "en")


def test_a_zero_direction_is_refused() -> None:
    fitted = directions()
    fitted.vectors[1, 1] = fitted.vectors[0, 1]
    with pytest.raises(
        SteerlabError, match=r"the direction to 'de' is zero at layers \[4\]; choose other layers"
    ):
        fitted.between("en", "de")
    assert fitted.at(1, 6).between("en", "de").layers == (1, 6)


def checked(fitted: Directions, name: str, value: torch.Tensor) -> None:
    """What a user sees, for whom jaxtyping does not check shapes."""
    broken = replace(fitted)
    object.__setattr__(broken, name, value)
    broken.__post_init__()


def test_another_unit_of_strength_is_refused() -> None:
    broken = directions()
    object.__setattr__(broken, "strength_unit", "metres")
    with pytest.raises(
        SteerlabError, match="the unit of strength is 'metres'; give 'gap' or 'absolute'"
    ):
        broken.__post_init__()


def test_broken_tensors_are_refused() -> None:
    fitted = directions()
    with pytest.raises(
        SteerlabError, match=r"vectors has shape \(3, 3, 8\); .* x layers x width is \(4, 3, 8\)"
    ):
        checked(fitted, "vectors", fitted.vectors[1:])
    with pytest.raises(
        SteerlabError,
        match=r"basis has shape \(4, 2, 2, 8\), not languages x layers x rank x width",
    ):
        checked(fitted, "basis", fitted.basis[:, 1:])
    for name in ("vectors", "means"):
        value = getattr(fitted, name).clone()
        checked(fitted, name, value)
        value[2, 1, 0] = float("nan")
        with pytest.raises(SteerlabError, match=f"{name} holds NaN or infinity; .* broken"):
            checked(fitted, name, value)


# Disk


def test_round_trip(tmp_path: Path) -> None:
    for source in (None, "en"):
        made = directions(source=source)
        file = made.save(tmp_path / "d.safetensors")
        read = Directions.load(file)
        for name in ("vectors", "basis", "means"):
            assert torch.equal(getattr(read, name), getattr(made, name))
        for name in ("langs", "layers", "site", "source", "provenance", "estimator", "width"):
            assert getattr(read, name) == getattr(made, name)
        assert [path.name for path in tmp_path.iterdir()] == ["d.safetensors"], (
            "nothing half written is left"
        )


def test_the_unit_of_strength_comes_back(tmp_path: Path) -> None:
    made = replace(directions(), strength_unit="absolute")
    read = Directions.load(made.save(tmp_path / "d.safetensors"))
    assert (read.strength_unit, read.digest) == ("absolute", made.digest)


def test_a_file_that_names_no_unit_of_strength_is_in_gaps(tmp_path: Path) -> None:
    """Files of before say nothing of it, and must still be read, with the digest that they had."""
    made = directions()
    file = made.save(tmp_path / "d.safetensors")
    with safe_open(file, framework="pt") as opened:
        header = opened.metadata()
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}
    about = json.loads(header["about"])
    assert about.pop("strength_unit") == "gap"
    header["about"] = json.dumps(about)
    header["sha256"] = digest_of(tensors, header)
    save_file(tensors, file, metadata=header)
    read = Directions.load(file)
    assert (read.strength_unit, read.digest) == ("gap", made.digest)


def test_views_and_shared_memory_can_be_saved(tmp_path: Path) -> None:
    made = directions()
    shared = replace(made, vectors=made.means, basis=made.basis.mT.contiguous().mT)
    read = Directions.load(shared.save(tmp_path / "d.safetensors"))
    assert torch.equal(read.vectors, made.means)
    assert torch.equal(read.basis, made.basis)


@pytest.mark.parametrize("left", [0, 4, 100, 1000, -1])
def test_a_truncated_file_is_refused(tmp_path: Path, left: int) -> None:
    file = directions().save(tmp_path / "d.safetensors")
    file.write_bytes(file.read_bytes()[:left])
    with pytest.raises(
        SteerlabError, match=r"d\.safetensors is truncated or no safetensors file .*; make it again"
    ):
        Directions.load(file)


def test_every_altered_byte_is_noticed(tmp_path: Path) -> None:
    """In the tensors by the checksum; in the header, the provenance included, by it or by the
    format."""
    file = directions().save(tmp_path / "d.safetensors")
    whole = file.read_bytes()
    start = 8 + int.from_bytes(whole[:8], "little")
    for place in [*range(8, start, 3), *range(start, len(whole), 97), len(whole) - 1]:
        altered = bytearray(whole)
        altered[place] ^= 1
        file.write_bytes(altered)
        told = "was altered after it was written: its checksum does not match; make it again"
        if place < start:
            told += "|is truncated or no safetensors file|was not written by"
        with pytest.raises(SteerlabError, match=told):
            Directions.load(file)
    file.write_bytes(whole)
    assert Directions.load(file).provenance == PROVENANCE


def test_a_foreign_or_missing_file_is_refused(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(3)}, tmp_path / "w.safetensors")
    with pytest.raises(
        SteerlabError, match=r"was not written by Directions\.save \(its format is None, not"
    ):
        Directions.load(tmp_path / "w.safetensors")
    (tmp_path / "t.txt").write_text("vectors: 1 2 3\n")
    with pytest.raises(SteerlabError, match="is truncated or no safetensors file"):
        Directions.load(tmp_path / "t.txt")
    with pytest.raises(SteerlabError, match=r"there is no file .*none\.safetensors"):
        Directions.load(tmp_path / "none.safetensors")
