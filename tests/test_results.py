"""Results on disk: a record is whole or absent, a damaged line costs only itself, a claim dies
with its process."""

import json
import multiprocessing
import os
import time
from pathlib import Path

import pytest

from steerlab.core.errors import SteerlabError
from steerlab.core.records import Results


def told(folder: Path) -> list[dict]:
    return list(Results(folder).read())


def test_what_is_appended_is_read_once_and_in_order(tmp_path):
    store = Results(tmp_path)
    records = [{"n": number, "text": "Grüße, 你好 \n\u2028 \x85"} for number in range(3)]
    for record in records:
        store.append(record)
    assert list(store.read()) == records
    assert list(store.read()) == []
    other = Results(tmp_path)
    other.append({"n": 3})
    assert list(store.read()) == [{"n": 3}]
    assert sorted(told(tmp_path), key=lambda record: record["n"]) == [*records, {"n": 3}]
    assert len(list(tmp_path.glob("*.jsonl"))) == 2  # each writer has its own
    lines = [line for file in tmp_path.glob("*.jsonl") for line in file.read_bytes().splitlines()]
    assert all(json.loads(line)["sum"] for line in lines)  # plain JSON for everyone else


@pytest.mark.parametrize("cut", [1, 7, 30])
def test_an_unfinished_last_line_is_not_there(tmp_path, cut):
    store = Results(tmp_path)
    store.append({"n": 0})
    store.append({"n": 1, "text": "x" * 50})
    file = next(tmp_path.glob("*.jsonl"))
    file.write_bytes(file.read_bytes()[:-cut])
    again = Results(tmp_path)
    assert list(again.read()) == [{"n": 0}]
    assert not again.problems
    again.append({"n": 2})
    assert sorted(record["n"] for record in told(tmp_path)) == [0, 2]


def test_a_line_that_is_being_written_is_read_when_it_is_done(tmp_path):
    store = Results(tmp_path)
    store.append({"n": 0})
    file = next(tmp_path.glob("*.jsonl"))
    whole, reader = file.read_bytes(), Results(tmp_path)
    file.write_bytes(whole[:10])
    assert list(reader.read()) == []
    file.write_bytes(whole)
    assert list(reader.read()) == [{"n": 0}]


@pytest.mark.parametrize("damage", [b'"n":7', b"\xff\xfe\xfd\xfc\xfb", b"     "])
def test_a_damaged_line_is_told_with_its_number_and_the_rest_is_kept(tmp_path, damage, capsys):
    store = Results(tmp_path)
    for number in range(3):
        store.append({"n": number})
    file = next(tmp_path.glob("*.jsonl"))
    file.write_bytes(file.read_bytes().replace(b'"n":1', damage))
    again = Results(tmp_path)
    assert list(again.read()) == [{"n": 0}, {"n": 2}]
    message = f"{file} line 2 is damaged; what it held will be run again, the rest is kept"
    assert again.problems == [message]
    assert message in capsys.readouterr().err.replace("\n", "")


def test_a_full_disk_leaves_no_half_record(tmp_path, monkeypatch):
    store = Results(tmp_path)
    store.append({"n": 0})

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        SteerlabError, match="No space left on device.*what was finished is kept: make room"
    ):
        store.append({"n": 1})
    monkeypatch.undo()
    assert told(tmp_path) == [{"n": 0}]
    store.append({"n": 1})
    assert told(tmp_path) == [{"n": 0}, {"n": 1}]


def _hold(folder: str, ready: "multiprocessing.synchronize.Event") -> None:
    store = Results(Path(folder))
    assert store.claim("a")
    ready.set()
    time.sleep(600)


def test_a_claim_is_one_processs_and_dies_with_it(tmp_path):
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    other = context.Process(target=_hold, args=(str(tmp_path), ready), daemon=True)
    other.start()
    assert ready.wait(60)
    store = Results(tmp_path)
    assert not store.claim("a")
    assert store.claim("b")
    other.kill()  # SIGKILL
    other.join()
    assert store.claim("a")
    store.release("a")
    assert store.claim("a")
