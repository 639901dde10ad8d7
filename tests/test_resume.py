"""A sweep that is killed at any moment, or shared by several processes, ends with the table of
one that was let be."""

import os
import random
import signal
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from conftest import random_directions
from processes import CONTEXT

from steerlab.core.corpus import corpus
from steerlab.core.errors import SteerlabError
from steerlab.models.loading import load
from steerlab.scores.langid import identifier
from steerlab.sweeps import decoding
from steerlab.sweeps.cell import Cell
from steerlab.sweeps.ledger import Ledger
from steerlab.sweeps.race import race
from steerlab.sweeps.runner import Runner

LAYERS, STRENGTHS, DRAWS, LINES, KILLS = (0, 1), (0.5, 1.0), 6, 4, 20


def grid() -> list[Cell]:
    plain = [Cell.unsteered(source="en", target="es", split="dev")]
    return plain + [
        Cell(
            method="made",
            operator="add",
            layer=layer,
            strength=strength,
            source="en",
            target="es",
            split="dev",
            fits=("made",),
            draw=draw,
        )
        for layer in LAYERS
        for strength in STRENGTHS
        for draw in range(DRAWS)
    ]


def runner(model: str, folder: Path | None) -> Runner:
    loaded = load(model)
    lines = corpus(langs=["en", "es"])
    fits = {"made": random_directions(loaded)}
    limits: Mapping[str, int | None] = {"dev": LINES}
    given: dict[str, Any] = {"fluency": True, "temperature": 0.7, "new_tokens": 8}
    return Runner(loaded, lines, fits, identifier(), limits, folder, 4, **given)


def work(model: str, folder: Path, begun: Any = None) -> None:
    """What a process does: run the grid in the folder, and leave the table there."""
    torch.set_num_threads(1)
    made = runner(model, folder / "rows")
    if begun is not None:
        begun.set()
    table = made.run(grid())
    table.to_parquet(folder / f"table-{os.getpid()}.parquet")


@pytest.fixture(scope="module")
def spawn():
    """Start `work` in a process of its own, from a server that has imported everything."""

    def start(model: Path, folder: Path, begun: Any = None) -> Any:
        process = CONTEXT.Process(target=work, args=(str(model), folder, begun), daemon=True)
        process.start()
        return process

    start.event = CONTEXT.Event  # type: ignore[attr-defined]
    return start


@pytest.fixture(scope="module")
def whole(lively: Any, tmp_path_factory: pytest.TempPathFactory, spawn: Any) -> Path:
    """The table of a run that nobody stopped."""
    folder = tmp_path_factory.mktemp("whole")
    process = spawn(lively("llama"), folder)
    process.join(120)
    assert process.exitcode == 0
    return next(folder.glob("table-*.parquet"))


def lines(folder: Path) -> int:
    return sum(file.read_bytes().count(b"\n") for file in (folder / "rows").glob("*.jsonl"))


def test_killed_at_twenty_moments(lively, tmp_path, spawn, whole):
    chance, seen = random.Random(0), []
    for kill in range(KILLS):
        before, begun = lines(tmp_path), spawn.event()
        process = spawn(lively("llama"), tmp_path, begun)
        assert begun.wait(60)
        while kill % 2 and process.is_alive() and lines(tmp_path) == before:
            time.sleep(0.005)  # every other kill falls into the work, however slow the machine is
        time.sleep(chance.uniform(0, 0.1))
        process.kill()
        process.join(60)
        assert process.exitcode == -signal.SIGKILL, "it was at work"
        seen.append(lines(tmp_path))
    assert len(set(seen)) > KILLS / 4, "the kills fell at different places of the work"
    last = spawn(lively("llama"), tmp_path)
    last.join(120)
    assert last.exitcode == 0
    assert (tmp_path / f"table-{last.pid}.parquet").read_bytes() == whole.read_bytes()


def test_two_processes_share_the_work_and_both_end_with_all_of_it(lively, tmp_path, spawn, whole):
    both = [spawn(lively("llama"), tmp_path) for _ in range(2)]
    for process in both:
        process.join(120)
        assert process.exitcode == 0
        assert (tmp_path / f"table-{process.pid}.parquet").read_bytes() == whole.read_bytes()
    made = runner(str(lively("llama")), None)
    ledger = Ledger(tmp_path / "rows", {made.key(cell): LINES for cell in grid()})
    assert sum(map(len, ledger._frames)) == len(grid()) * LINES  # no row was run twice
    assert len(ledger.seconds) == 2, "both did a part"


def test_a_sample_does_not_depend_on_the_rows_beside_it(lively):
    made = runner(str(lively("llama")), None)
    together, alone = made.run(grid()), made.run(grid()[4:5])
    same = together[together["cell"].isin(alone["cell"])].reset_index(drop=True)
    assert (
        same["output"] == alone["output"]
    ).mean() >= 0.8  # but for ties, where another batch rounds otherwise
    draws = (
        together[together["method"] == "made"]
        .groupby(["layer", "strength", "sentence"])["output"]
        .nunique()
    )
    assert draws.mean() > DRAWS - 1  # each draw is a sample of its own


def test_a_failing_cell_is_recorded_and_the_rest_go_on(lively, tmp_path, monkeypatch, capsys):
    edit = Cell.change

    def broken(cell: Cell, directions: Any, sentence: int, operators: Any = None) -> Any:
        if cell.layer == 1 and cell.strength == 0.5:
            raise SteerlabError("this edit cannot be made")
        return edit(cell, directions, sentence, operators)

    monkeypatch.setattr(Cell, "change", broken)
    rows = runner(str(lively("llama")), tmp_path).run(grid())
    assert len(rows) == (len(grid()) - DRAWS) * LINES
    assert set(rows.attrs["failed"].values()) == {"this edit cannot be made"}
    assert len(rows.attrs["failed"]) == DRAWS
    assert (
        "6 of 25 cells failed, the first with: this edit cannot be made" in capsys.readouterr().err
    )
    monkeypatch.undo()
    again = runner(str(lively("llama")), tmp_path)
    assert len(again.run(grid())) == len(rows)  # what failed is not run again unasked
    mended = replace(again, retry=True).run(grid())
    assert len(mended) == len(grid()) * LINES
    assert not mended.attrs


def test_when_every_cell_fails_it_raises(lively, tmp_path, monkeypatch):
    monkeypatch.setattr(decoding, "decode", lambda *given, **options: 1 / 0)
    with pytest.raises(
        SteerlabError, match="every one of 25 cells failed; the first said: ZeroDivisionError"
    ):
        runner(str(lively("llama")), tmp_path).run(grid())


def test_a_damaged_line_is_run_again(lively, tmp_path, capsys):
    first = runner(str(lively("llama")), tmp_path).run(grid())
    file = next(tmp_path.glob("*.jsonl"))
    lines = file.read_bytes().splitlines(keepends=True)
    lines[2] = lines[2].replace(b'"dose":[', b'"dose":[9', 1)
    file.write_bytes(b"".join(lines))
    again = runner(str(lively("llama")), tmp_path).run(grid())
    assert f"{file.name} line 3 is damaged" in capsys.readouterr().err.replace("\n", "")
    pd.testing.assert_frame_equal(again, first)
    assert len(list(tmp_path.glob("*.jsonl"))) == 2


@pytest.mark.parametrize("line", range(LINES))
def test_a_cell_that_fails_at_one_line_is_not_in_the_table_at_all(
    lively, tmp_path, monkeypatch, line
):
    """Whichever of its lines fails: the others may be finished before, after, or by another
    process."""
    edit, poor = Cell.change, grid()[5]

    def broken(cell: Cell, directions: Any, sentence: int, operators: Any = None) -> Any:
        if cell == poor and sentence == line:
            raise SteerlabError("not this line")
        return edit(cell, directions, sentence, operators)

    some, made = grid()[3:7], runner(str(lively("llama")), tmp_path)
    monkeypatch.setattr(Cell, "change", broken)
    made.run(some[3:])  # so that the batches of the rest are others, too
    rows = made.run(some)
    assert rows.attrs["failed"] == {made.key(poor): "not this line"}
    assert not (rows["cell"] == made.key(poor)).any()
    assert (rows.groupby("cell").size() == LINES).all()
    monkeypatch.undo()
    written = sorted(file.read_bytes() for file in tmp_path.glob("*.jsonl"))
    pd.testing.assert_frame_equal(made.run(some), rows)
    assert sorted(file.read_bytes() for file in tmp_path.glob("*.jsonl")) == written, (
        "it is not run again unasked"
    )
    assert len(replace(made, retry=True).run(some)) == len(some) * LINES
    assert not made.run(some).attrs, "an error of before does not count once all rows are there"


def test_rows_that_come_after_an_error_do_not_undo_it(tmp_path):
    row = {"cell": ["a"], "place": [1]}
    ledger = Ledger(tmp_path, {"a": 2, "b": 1})
    assert ledger.store is not None
    ledger.store.append({"failed": {"a": "no"}, "rows": {}})
    ledger.store.append({"failed": {}, "rows": row})
    ledger.store.append({"failed": {}, "rows": {"cell": ["b"], "place": [0]}})
    ledger.look()
    assert ledger.failed == {"a": "no"}
    assert ledger.table()["cell"].tolist() == ["b"]
    ledger.store.append({"failed": {}, "rows": row | {"place": [0]}})
    ledger.look()
    assert ledger.failed == {}
    assert ledger.table()["cell"].tolist() == ["a", "a", "b"]


def test_seeds_are_other_samples(lively):
    said = []
    for seed in (0, 0, 1):
        made = replace(runner(str(lively("llama")), None), seed=seed)
        said.append(made.run(grid()[1:3])["output"].tolist())
    assert said[0] == said[1] != said[2]


def test_a_race_drops_settings_of_which_a_cell_failed(lively, monkeypatch):
    edit = Cell.change

    def broken(cell: Cell, directions: Any, sentence: int, operators: Any = None) -> Any:
        if cell.layer == 1:
            raise SteerlabError("no such layer")
        return edit(cell, directions, sentence, operators)

    monkeypatch.setattr(Cell, "change", broken)
    cells = [cell for cell in grid() if cell.operator == "add" and cell.draw == 0]
    raced = race(runner(str(lively("llama")), None), cells)
    assert set(raced.rows["layer"]) == {0}
    assert set(raced.rows.attrs["failed"].values()) == {"no such layer"}
