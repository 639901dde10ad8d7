"""A damaged model folder is a sentence, or the model that it was."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from steerlab.core.errors import SteerlabError
from steerlab.engine.decoding import generate
from steerlab.models.loading import load
from steerlab.models.model import Model

PROMPTS = ["The weather is nice.\n", "No.\n"]
FILES = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json")


def _make_a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "gone": Path.unlink,
    "empty": lambda file: file.write_bytes(b""),
    "cut": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
    "bytes": lambda file: file.write_bytes(b"\xff\xfe\x00" * 50),
    "a folder": _make_a_folder,
    "null": lambda file: file.write_text("null"),
    "a list": lambda file: file.write_text("[]"),
    "a number": lambda file: file.write_text("3"),
    "a word": lambda file: file.write_text('"x"'),
    "deep": lambda file: file.write_text('{"a":' + "[" * 100_000),
}
# What a key of a configuration may be by damage; those of one line are one kind.
VALUES: dict[str, list[Any]] = {
    "hidden_size": [-1, 0, "x", None, 33, 1e9],
    "num_hidden_layers": [0, -1, 99, "3", None],
    "num_attention_heads": [0, 3, None],
    "vocab_size": [0, 10, -5, None],
    "model_type": [None, 3, "", "Llama"],
    "architectures": [3, ["Nope"], "x", [3]],
    "intermediate_size": [7, None],
    "rope_parameters": [3, {"rope_type": "nope"}],
    "hidden_act": ["nope", None],
    "quantization_config": [{"quant_method": "nope"}, {"quant_method": 3}],
    "auto_map": [3],
}
TOKENS: dict[str, list[Any]] = {
    "tokenizer_class": [3, "Nope"],
    "bos_token": [3, {"a": 1}],
    "eos_token": [[]],
    "added_tokens_decoder": [3, {"x": {}}],
}


@pytest.fixture(scope="module")
def sound(lively: Callable[[str], Path]) -> Model:
    return load(lively("llama"))


@pytest.fixture(scope="module")
def said(sound: Model) -> list[str]:
    return list(generate(sound, PROMPTS, max_new_tokens=4))


def told_or_same(folder: Path, sound: Model, said: list[str]) -> str:
    """What loading says; a folder that loads has to be the model that it was."""
    try:
        read = load(folder)
    except SteerlabError as error:
        return str(error)
    if read.fingerprint == sound.fingerprint:
        assert list(generate(read, PROMPTS, max_new_tokens=4)) == said
    return ""


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_told(
    name: str, damage: str, sound: Model, said: list[str], lively: Any, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(lively("llama"), tmp_path / "model"))
    DAMAGES[damage](folder / name)
    told = told_or_same(folder, sound, said)
    if name != "generation_config.json":  # which may be absent, and says nothing of outputs here
        assert told, "it was read"
        assert str(folder) in told


@pytest.mark.parametrize(
    ("file", "key", "value"),
    [
        (file, key, value)
        for file, keys in (("config.json", VALUES), ("tokenizer_config.json", TOKENS))
        for key, values in keys.items()
        for value in values
    ],
)
def test_a_key_of_another_kind_is_told(
    file: str, key: str, value: Any, sound: Model, said: list[str], lively: Any, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(lively("llama"), tmp_path / "model"))
    content = json.loads((folder / file).read_text()) | {key: value}
    (folder / file).write_text(json.dumps(content))
    told_or_same(folder, sound, said)


@pytest.mark.parametrize("value", [None, [], {}, {"a": 3}, 3])
def test_an_index_of_weights_that_says_nothing_is_told(
    value: Any, lively: Any, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(lively("llama"), tmp_path / "model"))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": value}))
    if value == {}:
        load(folder)
        return
    with pytest.raises(SteerlabError, match="does not say which file each weight is in"):
        load(folder)
