"""Errors of libraries that come without a message: what they become says which error it was."""

import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import torch
import transformers

import steerlab
from steerlab.core.errors import SteerlabError, first_line_of, last_line_of
from steerlab.models.loading import _device
from steerlab.scores.judges.embeddings import _encoder
from steerlab.studies.clas import reading
from steerlab.sweeps.cell import Batch, Cell
from steerlab.sweeps.ray import DEATHS, _given_up

ROOT = Path(steerlab.__file__).parent


def raising(error: Exception) -> Any:
    def function(*_: Any, **__: Any) -> Any:
        raise error

    return function


def test_the_first_and_the_last_line() -> None:
    error = ValueError("\n first \nsecond\n")
    assert (first_line_of(error), last_line_of(error)) == ("first ", "second")
    for empty in (ValueError(), ValueError("\n ")):
        assert first_line_of(empty) == last_line_of(empty) == "ValueError"


def test_a_device_that_torch_refuses_without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "empty", raising(AssertionError()))
    with pytest.raises(SteerlabError, match=r"no device 'npu' here \(AssertionError\); use cpu"):
        _device("npu")


def test_questions_that_cannot_be_read_or_fetched(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(reading, "_read", raising(ValueError()))
    file = tmp_path / "en.parquet"
    with pytest.raises(SteerlabError, match=r"is no whole \.parquet table \(ValueError\)"):
        reading._table(file)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", raising(OSError()))
    with pytest.raises(SteerlabError, match=r"not in its cache \(OSError\); check the id"):
        reading._fetched("someone/questions")


def test_a_batch_that_ends_every_worker() -> None:
    cell = Cell.unsteered(source="en", target="de", split="dev")
    batch = Batch("a", {"key": cell}, (("key", 0),))
    record = _given_up(batch, RuntimeError())
    assert record["failed"] == {"key": f"its worker died {DEATHS} times: RuntimeError"}


def test_weights_and_an_encoder_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        transformers.AutoModelForCausalLM, "from_pretrained", raising(RuntimeError())
    )
    with pytest.raises(SteerlabError, match=r"config.json says \(RuntimeError\); fetch the model"):
        steerlab.load(ROOT / "data" / "polyglot")
    module = SimpleNamespace(SentenceTransformer=raising(OSError()))
    monkeypatch.setitem(sys.modules, "sentence_transformers", module)
    with pytest.raises(SteerlabError, match=r"or its cache \(OSError\); give a folder"):
        _encoder.__wrapped__("someone/encoder", None)


def test_no_message_is_cut_where_there_may_be_no_line() -> None:
    cut = re.compile(r"str\(\w+\)[.\w()]*\.splitlines\(\)\[")
    found = [
        file.relative_to(ROOT).as_posix()
        for file in ROOT.rglob("*.py")
        if cut.search(file.read_text("utf-8"))
    ]
    assert not found, "core.errors.first_line_of is for that"
