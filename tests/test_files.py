"""Every file is whole or not there: a write that fails leaves the old file and nothing beside
it."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import pytest
import torch
from disk import full_disk

from steerlab import figures
from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.core.files import (
    explained,
    read_json,
    replacing,
    write_json,
    write_table,
    write_text,
)
from steerlab.sae import SAE
from steerlab.studies.feature_card.page import write as write_card

SMALL, LARGE = 3, 3000  # only the first fits on the full disk, whoever writes it


def failing(name: str) -> Any:
    """What a user saves fails with a sentence that says what to do; the writers inside with the
    system's own error."""
    if name in INNER:
        return pytest.raises(OSError, match="File too large")
    message = "could not write .*File too large.*; make room, or give a folder that is there"
    return pytest.raises(SteerlabError, match=message)


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def directions(size: int) -> Directions:
    vectors = torch.ones(2, 1, size)
    basis = torch.ones(2, 1, 1, size) / size**0.5
    provenance = {"estimator": "diffmean", "model": {}, "settings": {}}
    return Directions(vectors, basis, vectors, ("en", "de"), (0,), "resid_post", None, provenance)


def autoencoder(size: int) -> SAE:
    weights = torch.ones(4, size)
    return SAE(weights, torch.ones(size), weights.T, torch.ones(4), "relu", 0, "resid_post")


def table(size: int) -> pd.DataFrame:
    return pd.DataFrame({"text": [str(number * 7919) for number in range(size)]})


def draw(folder: Path, size: int) -> None:
    figures.write(go.Figure(), folder / "a", data=table(size))


# What a user or the library saves, by the name of its function: into a folder, so much of it.
SAVED: dict[str, Callable[[Path, int], object]] = {
    "Directions.save": lambda folder, size: directions(size).save(folder / "a.safetensors"),
    "SAE.save": lambda folder, size: autoencoder(size).save(folder),
    "feature_cards": lambda folder, size: write_card(folder / "a.html", "a" * size),
}
# Their errors are explained where it is known what they mean, by the study that runs.
INNER: dict[str, Callable[[Path, int], object]] = {
    "write_text": lambda folder, size: write_text(folder / "a.txt", "a" * size),
    "write_json": lambda folder, size: write_json(folder / "a.json", {"a": "a" * size}),
    "write_table, csv": lambda folder, size: write_table(folder / "a.csv", table(size)),
    "write_table, parquet": lambda folder, size: write_table(folder / "a.parquet", table(size)),
}


@pytest.mark.parametrize("name", SAVED | INNER)
def test_a_failed_write_leaves_the_old_file_whole(name: str, tmp_path: Path) -> None:
    write = (SAVED | INNER)[name]
    write(tmp_path, SMALL)
    before = contents(tmp_path)
    assert before
    with full_disk(), failing(name):
        write(tmp_path, LARGE)
    assert contents(tmp_path) == before
    write(tmp_path, LARGE)
    assert contents(tmp_path).keys() == before.keys()
    assert contents(tmp_path) != before, "with room the same write does replace the file"


@pytest.mark.parametrize("name", SAVED | INNER)
def test_a_failed_write_of_a_new_file_leaves_nothing(name: str, tmp_path: Path) -> None:
    with full_disk(), failing(name):
        (SAVED | INNER)[name](tmp_path, LARGE)
    assert not contents(tmp_path)


def test_figures_are_whole_or_not_there(tmp_path: Path) -> None:
    """The page fits, its table does not; and the script that all pages share is never cut."""
    with full_disk(), pytest.raises(SteerlabError, match="could not write .*File too large"):
        draw(tmp_path, SMALL)
    assert not contents(tmp_path), "no cut plotly.min.js that later pages would take for whole"
    draw(tmp_path, SMALL)
    before = contents(tmp_path)
    assert set(before) == {"a.html", "a.csv", "plotly.min.js"}
    room = len(before["a.html"]) + 500
    large = room  # numbers of five letters each: more bytes than there is room for
    with full_disk(room), pytest.raises(SteerlabError, match="could not write .*File too large"):
        draw(tmp_path, large)
    after = contents(tmp_path)
    assert set(after) == set(before)
    assert after["a.csv"] == before["a.csv"]
    draw(tmp_path, large)
    assert contents(tmp_path)["a.csv"] != before["a.csv"]


def test_files_that_belong_together_are_replaced_when_all_are_written(tmp_path: Path) -> None:
    files = [tmp_path / "a", tmp_path / "b"]
    for file in files:
        write_text(file, "old")  # what another wrote would not be replaced
    with suppress(ZeroDivisionError), replacing(*files) as (first, _):
        first.write_text("new")
        1 / 0  # noqa: B018
    assert contents(tmp_path) == {"a": b"old", "b": b"old"}
    with replacing(*files) as (first, second):
        first.write_text("new")
        second.write_text("new")
        assert contents(tmp_path)["a"] == b"old", "not before the block ends"
    assert contents(tmp_path) == {"a": b"new", "b": b"new"}


@pytest.mark.parametrize("target", ["folder", "away/file"])
def test_a_target_that_cannot_be_replaced_is_named(target: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    file = tmp_path / target
    with pytest.raises(SteerlabError, match=rf"could not write .*{target} \(.*; make room, or"):  # noqa: SIM117
        with explained(file):
            write_text(file, "text")
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder"]
    assert not list((tmp_path / "folder").iterdir())


def test_json_comes_back_and_nothing_is_an_empty_one(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"ä": [1, None]})
    assert read_json(tmp_path / "a.json") == {"ä": [1, None]}
    assert read_json(tmp_path / "b.json") == {}


@pytest.mark.parametrize(
    "end", ["\r", "\n", "\r\n", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029"]
)
def test_a_table_of_outputs_comes_back_from_csv(end: str, tmp_path: Path) -> None:
    """Readers of CSV end a row at a CR alone: an output that holds one must not make two rows."""
    rows = pd.DataFrame({"output": [f"a{end}b", 'c "d", e', "f"], "n": [1, 2, 3]})
    write_table(tmp_path / "a.csv", rows)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "a.csv"), rows)
    [_, file] = figures.write(go.Figure(), tmp_path / "b", data=rows)
    pd.testing.assert_frame_equal(pd.read_csv(file), rows)
