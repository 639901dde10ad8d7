"""Files of other tools: what is written steers as the direction does, and comes back as it was."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import steerlab as sl
from steerlab.core.directions import Direction, Directions
from steerlab.core.errors import SteerlabError
from steerlab.core.exchange import FORMATS, export, read

LAYERS = (2, 4)
STRENGTH = 1.5
PROMPTS = ["We are going to the market.\n", "The weather is nice today.\n"]


@pytest.fixture(scope="module")
def directions(polyglot: Any) -> Directions:
    corpus = sl.corpus(langs=["en", "de", "fr"]).split("estimate").take(12)
    return sl.diffmean(sl.collect(polyglot, corpus, also=[]))


@pytest.fixture
def direction(directions: Directions) -> Direction:
    return directions.between("en", "de").at(*LAYERS)


def file_of(folder: Path, name: str) -> Path:
    kind = next(kind for kind in FORMATS if kind.name == name)
    return folder / f"v{kind.ending}"


def steps(direction: Direction, strength: float = 1.0) -> torch.Tensor:
    return strength * direction.gap[:, None] * direction.unit


# ------------------------------------------------------------------------------------- round trips


@pytest.mark.parametrize("name", [kind.name for kind in FORMATS])
def test_what_is_read_adds_what_was_written(
    polyglot: Any, direction: Direction, tmp_path: Path, name: str
) -> None:
    if name == "neuronpedia":
        direction = direction.at(4)
    file = export(direction, file_of(tmp_path, name), strength=STRENGTH, format=name)
    found = read(file, format=name)
    assert found.layers == direction.layers
    assert found.langs == ("off", "de")
    again = found.between("off", "de")
    assert torch.allclose(steps(again), steps(direction, STRENGTH), rtol=1e-6, atol=1e-7)
    ours = sl.generate(polyglot, PROMPTS, edit=sl.add(direction, strength=STRENGTH))
    theirs = sl.generate(polyglot, PROMPTS, edit=sl.add(again, strength=1.0))
    assert theirs == ours
    assert ours != sl.generate(polyglot, PROMPTS)  # the control: it steers


@pytest.mark.parametrize("name", [kind.name for kind in FORMATS])
def test_what_made_it_is_said_in_the_file_or_beside_it(
    direction: Direction, tmp_path: Path, name: str
) -> None:
    direction = direction.at(4)
    file = export(direction, file_of(tmp_path, name), strength=STRENGTH, format=name)
    about = read(file, format=name).provenance["about"]
    assert about["source"] == "en"
    assert about["strength"] == STRENGTH
    assert about["model"]["fingerprint"] == direction.model["fingerprint"]
    beside = file.with_name(file.name + ".json")
    assert beside.exists() != next(k.says_origin for k in FORMATS if k.name == name)
    beside.unlink(missing_ok=True)
    read(file, format=name)  # without it the vectors are there still


def test_an_edit_of_another_model_is_refused_after_a_round_trip(
    direction: Direction, tmp_path: Path, polyglot: Any
) -> None:
    other = replace(direction, model={**direction.model, "fingerprint": "0" * 16})
    again = read(other.export(tmp_path / "v.npz")).between("off", "de").at(4)
    with pytest.raises(SteerlabError, match="directions of one model mean nothing in another"):
        sl.add(again).on(polyglot).__enter__()


def test_the_input_of_a_block_is_the_output_of_the_one_before(
    directions: Directions, tmp_path: Path
) -> None:
    before = replace(directions, site="resid_pre").between("en", "de").at(3)
    assert read(before.export(tmp_path / "v.gguf")).layers == (2,)
    told = json.loads(before.export(tmp_path / "v.json").read_text("utf-8"))
    assert told["hookName"] == "blocks.3.hook_resid_pre"
    assert read(tmp_path / "v.json").layers == (2,)


# ----------------------------------------------------------------- the other tools, if installed


def test_the_layout_of_a_control_vector(direction: Direction, tmp_path: Path) -> None:
    """Key by key what repeng writes and llama.cpp reads."""
    gguf = pytest.importorskip("gguf")
    reader = gguf.GGUFReader(direction.export(tmp_path / "v.gguf"))
    told = reader.get_field("general.architecture")
    assert bytes(told.parts[-1]) == b"controlvector"
    assert reader.get_field("controlvector.layer_count").parts[-1][0] == len(LAYERS)
    assert [tensor.name for tensor in reader.tensors] == ["direction.2", "direction.4"]
    for tensor, step in zip(reader.tensors, steps(direction), strict=True):
        assert tensor.data.dtype == np.float32
        assert np.array_equal(tensor.data, step.numpy())


def test_steering_vectors_steers_by_the_file(
    polyglot: Any, direction: Direction, tmp_path: Path
) -> None:
    package = pytest.importorskip("steering_vectors")
    file = export(direction, tmp_path / "v.pt", format="steering-vectors")
    theirs = package.SteeringVector(**torch.load(file, weights_only=True))
    ids = polyglot.tokenizer(PROMPTS[0], return_tensors="pt").input_ids
    found = {}
    # Every position, the first too, is what other tools mean; without it, what is usual here.
    for first, positions in ((0, "everywhere"), (1, "all")):
        with theirs.apply(polyglot.hf, min_token_index=first):
            wanted = polyglot.hf(ids).logits
        with sl.add(direction, positions=positions).on(polyglot):
            found[positions] = polyglot.hf(ids, attention_mask=torch.ones_like(ids)).logits
        assert torch.allclose(found[positions], wanted, atol=1e-4)
    assert not torch.allclose(found["all"], found["everywhere"], atol=1e-2)
    assert torch.equal(steps(read(theirs).between("off", "on")), steps(direction))


def test_repeng_reads_the_file(
    direction: Direction, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Its release asks for NumPy 1, of which it uses this name.
    monkeypatch.setattr(np, "float_", np.float64, raising=False)
    package = pytest.importorskip("repeng")
    theirs = package.ControlVector.import_gguf(direction.export(tmp_path / "v.gguf"))
    assert sorted(theirs.directions) == list(LAYERS)
    for step, block in zip(steps(direction), LAYERS, strict=True):
        assert np.array_equal(theirs.directions[block], step.numpy())
    theirs.export_gguf(tmp_path / "w.gguf")
    assert torch.equal(steps(read(tmp_path / "w.gguf").between("off", "on")), steps(direction))


# ------------------------------------------------------------------------------- what is refused


def test_what_a_format_cannot_say_is_told_before_anything_is_written(
    directions: Directions, tmp_path: Path
) -> None:
    first = directions.between("en", "de").at(0, 4)
    nowhere_at_4 = replace(first, gap=first.gap * torch.tensor([1.0, 0.0]))
    cases: list[tuple[str, Any, str, dict[str, Any]]] = [
        ("llama.cpp refuses a control vector with block 0", first, "v.gguf", {}),
        ("is of one block, and the direction has 2", first, "v.json", {}),
        ("there is no format 'onnx'; there are gguf", first, "v.pt", {"format": "onnx"}),
        ("ends in .txt", first, "v.txt", {}),
        ("ends in .npz, but what is written there is .pt", first, "v.npz", {"format": "lm-eval"}),
        ("adds nothing", first, "v.npz", {"strength": 0.0}),
        ("adds nothing at layers 4", nowhere_at_4, "v.npz", {}),
        ("strength is nan; give a finite number", first, "v.npz", {"strength": float("nan")}),
        ("one direction is exported", directions, "v.npz", {}),
        ("with {block} in it", first, "v.npz", {"modules": "layers"}),
    ]
    for wanted, given, name, options in cases:
        with pytest.raises(SteerlabError, match=wanted):
            export(given, tmp_path / name, **options)
    with pytest.raises(SteerlabError, match="one direction is needed, not Directions"):
        directions.export(tmp_path / "v.npz")  # which only one direction has
    assert not list(tmp_path.iterdir())


def test_layers_that_nobody_chose_are_warned_of_once(
    directions: Directions, direction: Direction, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    """Where the file is written; who reads it adds what it says."""
    sl.add(read(direction.export(tmp_path / "v.gguf"))["de"])
    assert not recwarn.list
    whole = directions.between("en", "de")
    with pytest.warns(UserWarning, match=r"of the 8 layers .* direction.at\(4\).export"):
        whole.export(tmp_path / "v.npz")


@pytest.mark.parametrize("name", [kind.name for kind in FORMATS])
def test_a_script_writes_its_file_again(
    direction: Direction, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process knows the file by what it says, and one that somebody changed by that too."""
    options: dict[str, Any] = {"format": name}
    file = export(direction.at(4), file_of(tmp_path, name), **options)
    monkeypatch.setattr("steerlab.core.targets._written", {})
    export(direction.at(4), file, strength=2.0, **options)
    assert torch.allclose(steps(read(file, **options)["de"]), steps(direction.at(4), 2.0))
    monkeypatch.setattr("steerlab.core.targets._written", {})
    file.write_bytes(b"a file of somebody else" * 9)
    with pytest.raises(SteerlabError, match="steerlab did not write it"):
        export(direction.at(4), file, **options)


def test_an_archive_of_somebody_else_stays(direction: Direction, tmp_path: Path) -> None:
    """Of the same kind as steerlab's, whole and cut."""
    np.savez(tmp_path / "v.npz", weights=np.ones(3), origin=np.array("a survey of 1912"))
    torch.save({"weights": torch.ones(3), "origin": "a survey of 1912"}, tmp_path / "v.pt")
    for file in (tmp_path / "v.npz", tmp_path / "v.pt"):
        for content in (file.read_bytes(), file.read_bytes()[:200]):
            file.write_bytes(content)
            with pytest.raises(SteerlabError, match="steerlab did not write it"):
                direction.export(file)


def test_what_is_read_is_told_as_read(direction: Direction, tmp_path: Path) -> None:
    for name in ("v.txt", "owner/name"):
        with pytest.raises(SteerlabError, match=r"what is read there is .* or .safetensors"):
            read(tmp_path / name)
    with pytest.raises(SteerlabError, match="these directions have off de"):
        read(direction.export(tmp_path / "v.npz")).between("off", "on")


def test_a_file_that_steerlab_did_not_write_stays(direction: Direction, tmp_path: Path) -> None:
    mine = tmp_path / "v.svec.json"
    mine.write_text('{"mine": 1}', "utf-8")
    with pytest.raises(SteerlabError, match="steerlab did not write it"):
        direction.export(tmp_path / "v.svec")
    assert not (tmp_path / "v.svec").exists()
    assert mine.read_text("utf-8") == '{"mine": 1}'


def test_nothing_in_a_file_is_run(tmp_path: Path) -> None:
    ran = tmp_path / "ran"

    class Runs:
        def __reduce__(self) -> Any:
            return Path.touch, (ran,)

    torch.save({"layer_activations": Runs()}, tmp_path / "v.pt")
    np.savez(tmp_path / "v.npz", vectors=np.array([Runs()], object), layers=np.array([1]))
    for name in ("v.pt", "v.npz"):
        with pytest.raises(SteerlabError, match="something else than tensors|no .npz of plain"):
            read(tmp_path / name)
    assert not ran.exists()


@pytest.mark.parametrize("name", [kind.name for kind in FORMATS])
def test_a_damaged_file_is_a_sentence_that_names_it(
    direction: Direction, tmp_path: Path, name: str
) -> None:
    """Cut anywhere, or with a byte changed: never a traceback, never a vector that is no number."""
    file = export(direction.at(4), file_of(tmp_path, name), format=name)
    file.with_name(file.name + ".json").unlink(missing_ok=True)
    whole = file.read_bytes()
    damaged = [whole[: len(whole) * n // 7] for n in range(7)]
    for place in range(0, min(len(whole), 600), 13):
        damaged.append(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
    told = []
    for content in damaged:
        file.write_bytes(content)
        try:
            assert torch.isfinite(read(file, format=name).vectors).all()
        except SteerlabError as error:
            told.append(str(error))
    assert len(told) >= 7
    assert all(str(file) in each for each in told)


SVEC = {"model_type": "llama", "explained_variances": {}}


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("v.svec", SVEC, "there is no vector in it"),
        ("v.svec", SVEC | {"directions": {"one": [1.0]}}, "'one', which is no number"),
        ("v.svec", SVEC | {"directions": {"1": [1.0, "2"]}}, "has to be a list of numbers"),
        ("v.svec", SVEC | {"directions": {"1": [1.0], "2": [1.0, 2.0]}}, "several lengths"),
        ("v.svec", SVEC | {"directions": {"1": [0.0, 0.0]}}, "are zero"),
        ("v.svec", SVEC | {"directions": [1]}, "keys and values"),
        ("v.json", {"hookName": "blocks.3.attn.hook_z", "vector": [1.0]}, "residual stream"),
        ("v.json", {"hookName": "blocks.0.hook_resid_pre", "vector": [1.0]}, "of block 0"),
        ("v.json", {"vector": [1.0]}, "hookName is None"),
    ],
)
def test_what_no_vector_is(tmp_path: Path, name: str, content: Any, match: str) -> None:
    (tmp_path / name).write_text(json.dumps(content), "utf-8")
    with pytest.raises(SteerlabError, match=match):
        read(tmp_path / name)


def test_entries_of_lm_eval_that_do_something_else(tmp_path: Path) -> None:
    plain = {"steering_vector": torch.ones(1, 4), "steering_coefficient": 2.0, "action": "add"}
    torch.save({"layers.3": plain}, tmp_path / "v.pt")
    assert steps(read(tmp_path / "v.pt").between("off", "on")).tolist() == [[2.0] * 4]
    for entry in (
        plain | {"action": "clamp"},
        plain | {"head_index": 2},
        plain | {"bias": torch.ones(4)},
    ):
        torch.save({"layers.3": entry}, tmp_path / "v.pt")
        with pytest.raises(SteerlabError, match="something else than to add"):
            read(tmp_path / "v.pt")
    torch.save({"layers.3.mlp": plain}, tmp_path / "v.pt")
    with pytest.raises(SteerlabError, match="no block with a steering_vector"):
        read(tmp_path / "v.pt")
