"""Files that were damaged, swapped or taken away: a sentence that names the file, or the same
numbers; never a traceback, and never other numbers."""

import io
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from test_files import autoencoder, directions
from test_langid import write_model

import steerlab.scores.langid as langid
from steerlab.cli import main
from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.core.files import read_json, read_table, write_json, write_table
from steerlab.core.tensor_file import digest_of
from steerlab.estimate.released import clas_bench, language_means
from steerlab.models.model import Model
from steerlab.sae import SAE
from steerlab.scores.langid import identifier
from steerlab.scores.lid_trial import try_out
from steerlab.sweeps.folder import claim
from steerlab.sweeps.progress import progress_of
from steerlab.sweeps.sweep import sweep

SHORT: dict[str, Any] = {
    **{"layers": [5], "limit": 2, "strengths": [1.0], "targets": ["es"], "langs": ["en", "es"]},
    **{"estimators": ["diffmean", "lda"], "new_tokens": 4},
}


@pytest.fixture(scope="module")
def swept(polyglot: Model, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pd.DataFrame]:
    """The folder of a small sweep, and its table."""
    folder = tmp_path_factory.mktemp("swept") / "run"
    return folder, sweep(polyglot, out=folder, **SHORT)


@pytest.fixture
def folder(swept: tuple[Path, pd.DataFrame], tmp_path: Path) -> Path:
    """A copy of it, to be damaged."""
    return Path(shutil.copytree(swept[0], tmp_path / "run"))


def same(table: pd.DataFrame, swept: tuple[Path, pd.DataFrame]) -> None:
    ours = [name for name in table if "seconds" not in str(name)]
    pd.testing.assert_frame_equal(table[ours], swept[1][ours])


# ---------------------------------------------------------------------------------- folders of runs

DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "cut": lambda data: data[: len(data) // 2],
    "list": lambda _: b"[1, 2]",
    "number": lambda _: b"3",
    "null": lambda _: b"null",
    "deep": lambda _: b"[" * 100_000,
    "bytes": lambda data: data[:40] + b"\xff\xfe" + data[42:],
    "digit": lambda data: data.replace(b'"rows": ', b'"rows": 1', 1),
    "parts": lambda _: b'{"plan": [], "grid": 3, "model": "x", "own": 1, "tables": 7}',
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_sweep_json_is_told(damage: str, folder: Path, polyglot: Model) -> None:
    file = folder / "sweep.json"
    file.write_bytes(DAMAGES[damage](file.read_bytes()))
    before = sorted(path.name for path in (folder / "rows").glob("*.jsonl"))
    for act in (lambda: sweep(polyglot, out=folder, **SHORT), lambda: progress_of(folder)):
        with pytest.raises(
            SteerlabError, match=r"sweep\.json (is no|holds|does not).*restore it, or"
        ):
            act()
    assert sorted(path.name for path in (folder / "rows").glob("*.jsonl")) == before


@pytest.mark.parametrize("damage", [name for name in DAMAGES if name != "parts"])
def test_a_damaged_table_of_cells_is_told(damage: str, folder: Path) -> None:
    file = folder / "cells.json"
    file.write_bytes(DAMAGES[damage](file.read_bytes()))
    with pytest.raises(SteerlabError, match=r"cells\.json"):
        progress_of(folder)


@pytest.mark.parametrize("damage", [name for name in DAMAGES if name not in ("digit", "parts")])
def test_a_damaged_manifest_is_told(damage: str, tmp_path: Path) -> None:
    write_json(tmp_path / "manifest.json", {"format": 1, "settings": {"seed": 0}, "rows": 3})
    claim(tmp_path, {"seed": 0})
    file = tmp_path / "manifest.json"
    file.write_bytes(DAMAGES[damage](file.read_bytes()))
    with pytest.raises(SteerlabError, match=r"manifest\.json (is no valid JSON|holds no JSON obj)"):
        claim(tmp_path, {"seed": 0})


def test_settings_that_are_none_are_told(tmp_path: Path) -> None:
    write_json(tmp_path / "manifest.json", {"format": 1, "settings": [1]})
    with pytest.raises(
        SteerlabError, match=r"manifest\.json holds under 'settings' no keys and val"
    ):
        claim(tmp_path, {"seed": 0})


@pytest.mark.parametrize("gone", ["sweep.json", "cells.json", "directions"])
def test_what_is_gone_is_made_again_and_the_rows_are_taken(
    gone: str, folder: Path, swept: tuple[Path, pd.DataFrame], polyglot: Model
) -> None:
    path = folder / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    before = {file.name: file.stat().st_size for file in (folder / "rows").glob("*.jsonl")}
    same(sweep(polyglot, out=folder, **SHORT), swept)
    after = {file.name: file.stat().st_size for file in (folder / "rows").glob("*.jsonl")}
    assert before == after, "no row was run again"
    assert path.exists()


def test_a_manifest_that_is_gone_does_not_refuse_a_folder_of_rows(tmp_path: Path) -> None:
    (tmp_path / "cells").mkdir()
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(SteerlabError, match="holds files, but no run"):
        claim(tmp_path, {"seed": 0})
    (tmp_path / "cells" / "a.jsonl").write_text("{}\n")
    claim(tmp_path, {"seed": 0})


def test_directions_that_were_swapped_are_told(folder: Path, polyglot: Model) -> None:
    """Another table would come out of them, each with the other's name."""
    first, second = sorted((folder / "directions").glob("*.safetensors"))
    one, other = first.read_bytes(), second.read_bytes()
    first.write_bytes(other)
    second.write_bytes(one)
    with pytest.raises(
        SteerlabError, match=r"holds the directions of (diffmean|lda)-.*, which were"
    ):
        sweep(polyglot, out=folder, **SHORT)


def test_a_damaged_table_of_rows_is_told(tmp_path: Path) -> None:
    file = tmp_path / "rows.parquet"
    values = np.random.default_rng(0).normal(size=4000)
    write_table(file, pd.DataFrame({"a": values}))
    assert read_table(file)["a"].tolist() == values.tolist()
    whole = file.read_bytes()
    for place in range(200, len(whole) - 2000, 3001):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        with pytest.raises(SteerlabError, match="is truncated or no parquet file"):
            read_table(file)
    for damaged in (b"", whole[:100], whole[:-1], b"PAR1" * 9):
        file.write_bytes(damaged)
        with pytest.raises(SteerlabError, match="is truncated or no parquet file"):
            read_table(file)


def test_a_summary_that_was_altered_is_told(tmp_path: Path) -> None:
    file = tmp_path / "summary.json"
    write_json(file, {"joint": 0.25, "method": "lda"})
    assert read_json(file) == {"joint": 0.25, "method": "lda"}
    file.write_text(file.read_text().replace("0.25", "0.95"))
    with pytest.raises(SteerlabError, match="does not agree with its checksum"):
        read_json(file)
    # The checksum's name and a number at once.
    write_json(file, {"joint": 0.25, "method": "lda"})
    text = file.read_text("utf-8").replace("0.25", "0.35").replace('"steerlab"', '"steerNab"')
    file.write_text(text, "utf-8")
    with pytest.raises(SteerlabError, match="does not agree with its checksum"):
        read_json(file)
    file.write_text('{"joint": 0.25, "method": "lda"}', "utf-8")  # of before there were checksums
    assert read_json(file) == {"joint": 0.25, "method": "lda"}


# ---------------------------------------------------------------------------- one folder, two grids


def test_a_second_grid_keeps_the_table_of_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["sweep", "--layers", "5", "--limit", "2", "--langs", "en,es", "--new-tokens", "4"]
    first = [*words, "--strengths", "1", "--out", "run"]
    second = [*words, "--strengths", "0.5", "--out", "run"]
    assert main(first) == 0
    table = pd.read_parquet("run/rows.parquet")
    assert capsys.readouterr().out.strip().endswith("run/rows.parquet")
    assert main(second) == 0
    said = capsys.readouterr()
    other = said.out.strip().splitlines()[-1]
    assert "run holds the table of another grid, which stays; this one's is rows-" in said.err
    pd.testing.assert_frame_equal(pd.read_parquet("run/rows.parquet"), table)
    assert set(pd.read_parquet(other)["strength"]) == {0.5}
    assert main(first) == 0
    assert capsys.readouterr().out.strip().endswith("run/rows.parquet")
    assert main(second) == 0
    assert capsys.readouterr().out.strip().endswith(other), "each grid keeps its own"
    assert len(list(Path("run").glob("rows*.parquet"))) == 2


# ---------------------------------------------------------------------------------------- terminals


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
@pytest.mark.parametrize("errors", ["strict", "surrogateescape"])
def test_no_terminal_loses_the_answer(
    encoding: str, errors: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "Погода сегодня хорошая. ñ"
    monkeypatch.setattr("steerlab.engine.decoding.generate", lambda *_, **__: [said])
    monkeypatch.setattr("steerlab.edits.steer", lambda *_, **__: None)
    monkeypatch.setattr("steerlab.engine.prompts.prompt", lambda *_, **__: "No.\n")
    monkeypatch.setattr("steerlab.models.loading.load", lambda *_, **__: _Anything())
    monkeypatch.setattr("steerlab.core.directions.Directions.load", lambda *_: _Anything())
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding, errors=errors))
    words = ["steer", "polyglot", "x.safetensors", "No.", "--to", "ru", "--layer", "5"]
    assert main(words) == 0
    sys.stdout.flush()
    written = raw.getvalue().decode(encoding)
    assert written.strip() == said.encode(encoding, "backslashreplace").decode(encoding)


class _Anything:
    tokenizer = None

    def between(self, *_: Any) -> "_Anything":
        return self

    def at(self, *_: Any) -> "_Anything":
        return self


# ------------------------------------------------------------------------------------- autoencoders


def rewrite(folder: Path, **changed: Any) -> None:
    """Change keys of cfg.json; a value of None takes the key away. The digest goes with them."""
    config = json.loads((folder / "cfg.json").read_text())
    config = {key: value for key, value in (config | changed).items() if value is not None}
    (folder / "cfg.json").write_text(json.dumps(config))
    file = folder / "sae_weights.safetensors"
    save_file(load_file(file), file)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"d_in": 7}, "d_in of .* is 7, and its W_enc is 4 x 8"),
    ({"d_sae": "8"}, "d_sae of .* is '8'; it has to be a whole number of 1 or more"),
    ({"apply_b_dec_to_input": "no"}, "apply_b_dec_to_input of .* is 'no'; it has to be true or"),
    (
        {"rescale_acts_by_decoder_norm": 1},
        "rescale_acts_by_decoder_norm of .*has to be true or fal",
    ),
    ({"architecture": 3}, "architecture of .* is 3; it has to be a word"),
    ({"architecture": ["standard"]}, "architecture of .*has to be a word"),
    ({"metadata": 3}, "metadata of .* is 3; it has to be keys and values"),
    ({"metadata": {"hook_name": 5}}, "hook_name of .* is 5; it has to be a word"),
    ({"metadata": {"hook_name": "blocks.0.hook_resid_post", "model_name": 5}}, "model_name of an"),
    (
        {"architecture": "topk", "k": 3.7},
        "k of .* is 3.7; it has to be a whole number of 1 or more",
    ),
    ({"architecture": "topk", "k": "3"}, "k of .* is '3'; it has to be a whole number"),
    ({"architecture": "topk", "k": -3}, "k of .* is -3; it has to be a whole number"),
    ({"architecture": "topk", "k": True}, "k of .* is True; it has to be a whole number"),
    ({"architecture": "topk"}, "k of .* is None; it has to be a whole number"),
    (
        {"architecture": "topk", "activation_fn_kwargs": 3},
        "activation_fn_kwargs of .* is 3; it has",
    ),
    ({"architecture": "topk", "k": 9}, "k = 9 of 8 latents"),
]


@pytest.mark.parametrize(("changed", "message"), WRONG)
def test_a_wrong_configuration_is_told(
    changed: dict[str, Any], message: str, tmp_path: Path
) -> None:
    weights = torch.randn(4, 8)
    SAE(weights, torch.zeros(8), weights.T, torch.zeros(4), "relu", 0, "resid_post").save(tmp_path)
    rewrite(tmp_path, **changed)
    with pytest.raises(SteerlabError, match=message):
        SAE.load(tmp_path)


@pytest.mark.parametrize("architecture", [None, "standard"])
@pytest.mark.parametrize("name", ["threshold", "b_gate", "r_mag", "something"])
def test_weights_that_would_be_dropped_are_told(
    name: str, architecture: str | None, tmp_path: Path
) -> None:
    autoencoder(4).save(tmp_path)
    rewrite(tmp_path, architecture=architecture)
    assert SAE.load(tmp_path).kind == "relu", "without it there is nothing to drop"
    file = tmp_path / "sae_weights.safetensors"
    save_file(load_file(file) | {name: torch.ones(4)}, file)
    with pytest.raises(
        SteerlabError, match=f"holds {name}, which a .*standard.* autoencoder does not"
    ):
        SAE.load(tmp_path)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("W_enc", torch.ones(4), "W_enc of .* has shape .4,.; it is a matrix"),
        ("W_enc", torch.ones(0, 4), "W_enc of .* has shape .0, 4.; it is a matrix"),
        (
            "b_enc",
            torch.ones(4, dtype=torch.int64),
            "b_enc of .* holds torch.int64, not numbers of",
        ),
        ("W_dec", torch.ones(3, 3), "W_dec of .* has shape"),
        ("b_dec", torch.full((4,), float("nan")), "b_dec of this autoencoder holds NaN"),
    ],
)
def test_wrong_weights_are_told(
    name: str, value: torch.Tensor, message: str, tmp_path: Path
) -> None:
    autoencoder(4).save(tmp_path)
    rewrite(tmp_path, d_in=None, d_sae=None)
    file = tmp_path / "sae_weights.safetensors"
    save_file(load_file(file) | {name: value}, file)
    with pytest.raises(SteerlabError, match=message):
        SAE.load(tmp_path)


def llama_scope(folder: Path, **changed: Any) -> Path:
    (folder / "checkpoints").mkdir(parents=True)
    config: dict[str, Any] = {
        "dataset_average_activation_norm": {"in": 2.0},
        "jump_relu_threshold": 0.5,
        "hook_point_in": "blocks.0.hook_resid_post",
    }
    (folder / "hyperparams.json").write_text(json.dumps(config | changed))
    weights = {
        "encoder.weight": torch.randn(8, 4),
        "decoder.weight": torch.randn(4, 8),
        "encoder.bias": torch.zeros(8),
        "decoder.bias": torch.zeros(4),
    }
    save_file(weights, folder / "checkpoints" / "final.safetensors")
    return folder


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"dataset_average_activation_norm": {"in": -2.0}},
            "is -2.0; it has to be a number above 0",
        ),
        ({"dataset_average_activation_norm": {"in": 0}}, "is 0; it has to be a number above 0"),
        ({"dataset_average_activation_norm": {"in": "2"}}, "is '2'; it has to be a number above 0"),
        (
            {"dataset_average_activation_norm": {"in": 1e999}},
            "is inf; it has to be a number above 0",
        ),
        ({"dataset_average_activation_norm": [2]}, r"is \[2\]; it has to be keys and values"),
        ({"dataset_average_activation_norm": {}}, "is None; it has to be a number above 0"),
        ({"jump_relu_threshold": None}, "jump_relu_threshold of .* is None; it has to be a number"),
        ({"jump_relu_threshold": float("nan")}, "jump_relu_threshold of .* is nan; it has to be"),
        ({"hook_point_in": 5}, "hook_point_in of .* is 5; it has to be a word"),
    ],
)
def test_wrong_numbers_of_llama_scope_are_told(
    changed: dict[str, Any], message: str, tmp_path: Path
) -> None:
    assert SAE.load(llama_scope(tmp_path / "sound")).latents == 8
    with pytest.raises(SteerlabError, match=message):
        SAE.load(llama_scope(tmp_path / "wrong", **changed))


def test_a_damaged_npz_is_told_wherever_it_is_damaged(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {"W_enc": rng.normal(size=(4, 8)), "W_dec": rng.normal(size=(8, 4))}
    arrays |= {"b_enc": np.zeros(8), "b_dec": np.zeros(4), "threshold": np.ones(8)}
    file = tmp_path / "params.npz"
    np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    sound = SAE.load(tmp_path, layer=0)
    whole = file.read_bytes()
    for place in range(0, len(whole), 7):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        try:
            read = SAE.load(tmp_path, layer=0)
        except SteerlabError:
            continue
        assert torch.equal(read.W_enc, sound.W_enc), "a time or a comment of the archive"


# --------------------------------------------------------------------------------------- directions


def sound_file(tmp_path: Path) -> Path:
    return directions(1).save(tmp_path / "a.safetensors")


def signed(file: Path, tensors: dict[str, torch.Tensor], header: dict[str, str]) -> None:
    """Write a file of directions with a right checksum, whatever is in it."""
    header = {key: value for key, value in header.items() if key != "sha256"}
    save_file(tensors, file, {**header, "sha256": digest_of(tensors, header)})


def about(**changed: Any) -> dict[str, str]:
    fields = {"langs": ["en", "de"], "layers": [0], "site": "resid_post", "source": None}
    return {
        "format": "steerlab directions 1",
        "about": json.dumps(fields | changed),
        "provenance": "{}",
    }


TENSORS = {"vectors": torch.eye(2)[:, None], "means": torch.eye(2)[:, None]}
TENSORS |= {"basis": torch.eye(2)[:, None, None]}
EDITS: list[tuple[dict[str, Any], dict[str, str], str]] = [
    ({}, about(langs="en de"), "langs is 'en de', not a list of codes"),
    ({}, about(langs=["en", 3]), "langs is .*, not a list of codes"),
    ({}, about(layers=[0.5]), "a layer is 0.5; it has to be a whole number"),
    ({}, about(layers=[-1]), "a layer is -1; it has to be a whole number of 0 or more"),
    ({}, about(layers=["0"]), "a layer is '0'; it has to be a whole number"),
    ({}, about(layers=3), "layers is 3, not a list of numbers"),
    ({}, about(site=5), "site is 5; it has to be a word"),
    ({}, about(site="somewhere"), "there is no site 'somewhere'"),
    ({}, about(source="fr"), "source is 'fr', which is none of its languages"),
    ({}, about(strength_unit="miles"), "the unit of strength is 'miles'"),
    ({}, about(langs=["en", "en"]), "language 'en' stands twice"),
    ({}, about() | {"about": "[]"}, "about is .*; it has to be keys and values"),
    ({}, about() | {"about": "{"}, "about in its header is no JSON object"),
    ({}, about() | {"provenance": "nothing"}, "provenance in its header is no JSON object"),
    ({"means": None}, about(), "it has no means"),
    ({"vectors": torch.ones(2, 2)}, about(), "have .* axes, not 3, 4 and 3"),
    (
        {"vectors": torch.ones(2, 1, 2, dtype=torch.int32)},
        about(),
        "vectors holds torch.int32, not f",
    ),
    ({"vectors": torch.full((2, 1, 2), torch.inf)}, about(), "vectors holds NaN or infinity"),
    ({"basis": 3 * torch.eye(2)[:, None, None]}, about(), "its basis are not of length 1 and at"),
    (
        {"basis": torch.ones(2, 1, 2, 2) * 0.7071},
        about(),
        "its basis are not of length 1 and at ri",
    ),
    ({"basis": torch.full((2, 1, 1, 2), torch.nan)}, about(), "basis holds NaN or infinity"),
    ({"more": torch.ones(1)}, about(), "it holds 'more', which directions have not"),
    ({"extra.x": torch.ones(3, 3)}, about(), "extra 'x' has shape"),
]


@pytest.mark.parametrize(("tensors", "header", "message"), EDITS)
def test_wrong_directions_are_told_though_their_checksum_is_right(
    tensors: dict[str, Any], header: dict[str, str], message: str, tmp_path: Path
) -> None:
    file = tmp_path / "a.safetensors"
    signed(file, TENSORS, about())
    assert Directions.load(file).langs == ("en", "de")
    changed = {name: value for name, value in (TENSORS | tensors).items() if value is not None}
    signed(file, {name: value.contiguous() for name, value in changed.items()}, header)
    with pytest.raises(SteerlabError, match=rf"a\.safetensors: .*{message}.*; make it again"):
        Directions.load(file)


@pytest.mark.parametrize("read", [Directions.load, language_means])
def test_a_damaged_file_of_tensors_is_told_wherever_it_is_damaged(
    read: Callable[[Path], Directions], tmp_path: Path
) -> None:
    file = tmp_path / "a.safetensors"
    if read is language_means:
        save_file({"means": torch.randn(2, 1, 3)}, file, {"langs": "en,de"})
    else:
        signed(file, TENSORS, about())
    read(file)
    whole = file.read_bytes()
    for place in range(0, len(whole), 5):
        for flip in (0x01, 0x80):
            file.write_bytes(whole[:place] + bytes([whole[place] ^ flip]) + whole[place + 1 :])
            try:
                read(file)
            except SteerlabError:
                continue
            assert read is language_means, "directions have a checksum of all"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"steering_vectors": torch.full((1, 3), torch.nan)}, "hold NaN or infinity"),
        ({"steering_vectors": torch.ones(1, 3), "num_tokens": "x"}, "num_tokens in .* is 'x'"),
        (
            {"steering_vectors": torch.ones(1, 3), "negative_languages": 5},
            "has to be a list of codes",
        ),
        ({"steering_vectors": [1]}, "no steering_vectors"),
    ],
)
def test_wrong_released_files_are_told(
    content: dict[str, Any], message: str, tmp_path: Path
) -> None:
    for lang in ("de", "en"):
        torch.save(content, tmp_path / f"vector.{lang}.llama")
    with pytest.raises(SteerlabError, match=message):
        clas_bench(tmp_path)


# -------------------------------------------------------------------------------------- identifiers


def flipped(data: bytes, places: range) -> bytes:
    changed = bytearray(data)
    for place in places:
        changed[place] ^= 0x3C
    return bytes(changed)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: flipped(data, range(len(data) - 60_000, len(data), 11)),  # the output matrix
        lambda data: flipped(data, range(400_000, 800_000, 13)),  # the codes of words
        lambda data: data[:8] + b"\x02\x00\x00\x00" + data[12:],  # another width
        lambda data: data.replace(b"__label__en\0", b"__label__eo\0", 1),
        lambda data: data.replace(b"__label__de\0", b"__label__xq\0", 1),
    ],
)
def test_a_damaged_identifier_is_tried_on_known_sentences(
    damage: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    whole = langid._installed().read_bytes()
    file = tmp_path / "lid.ftz"
    file.write_bytes(damage(whole))
    assert file.read_bytes() != whole
    with pytest.raises(SteerlabError, match=r"size of lid\.176\.ftz to the byte|is truncated"):
        identifier(file)


def test_the_trial_sees_damage_that_the_size_does_not_show(tmp_path: Path) -> None:
    whole = langid._installed().read_bytes()
    _, labels = langid._inspect(langid._installed())
    codes = {label: langid._code(label) for label in labels}
    try_out(langid._installed(), codes)
    file = tmp_path / "lid.ftz"
    for damage, message in (
        (
            flipped(whole, range(len(whole) - 60_000, len(whole), 11)),
            "of 24 sentences in|probabil|fastText",
        ),
        (whole[:8] + b"\x02\x00\x00\x00" + whole[12:], "fastText|it finds"),
        (whole[:64] + b"\x00\x00\x00\x00" + whole[68:], "fastText|it finds|answers"),
    ):
        file.write_bytes(damage)
        with pytest.raises(SteerlabError, match=rf"lid\.ftz is damaged, or no .*({message})"):
            try_out(file, codes)


def test_an_identifier_of_another_size_is_tried_too(tmp_path: Path) -> None:
    """A model of eight words for eight languages: right about none of the packaged sentences."""
    file = tmp_path / "lid.bin"
    langs = "bg de en es fr hi hu it".split()
    spelt = {f"w{number}": f"__label__{lang}" for number, lang in enumerate(langs)}
    write_model(file, spelt)
    with pytest.raises(SteerlabError, match=r"lid\.bin is damaged, or no .*: it finds \d+ of 24"):
        identifier(file)
    few = write_model(tmp_path / "few.bin", dict(list(spelt.items())[:3]))
    assert identifier(few).languages == set(langs[:3]), "too few to be held to the sentences"
