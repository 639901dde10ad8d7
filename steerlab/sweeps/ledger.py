"""What of a grid is finished, in memory and in a folder, and how far the rest is."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from steerlab.core.errors import SteerlabError
from steerlab.core.records import Results

EVERY = 30  # seconds between two lines of progress where there is no terminal
PAUSE = 0.5  # seconds between two looks at what another process is at


class Ledger:
    """The finished rows of cells, and the errors of those that failed, of this process and of
    others.

    `lines`: how many rows each cell has, by its key. A cell has failed if an error was recorded and
    rows are missing, in whatever order errors and rows came; `retry` forgets the errors of earlier
    runs.
    """

    def __init__(
        self, folder: Path | None, lines: Mapping[str, int], *, retry: bool = False
    ) -> None:
        self.lines, self.store = lines, None if folder is None else Results(folder)
        self.seconds: dict[str, float] = {}  # that each worker has worked
        self._errors: dict[str, str] = {}
        self._done: set[tuple[str, int]] = set()
        self._frames: list[pd.DataFrame] = []
        self._held: set[str] = set()
        self.look()
        if retry:
            self._errors.clear()

    @property
    def count(self) -> int:
        """Finished rows."""
        return len(self._done)

    @property
    def problems(self) -> list[str]:
        """Damaged lines of the folder."""
        return [] if self.store is None else self.store.problems

    @property
    def whole(self) -> set[str]:
        """The cells of which every row is finished."""
        counts = Counter(key for key, _ in self._done)
        return {key for key, lines in self.lines.items() if counts[key] >= lines}

    @property
    def failed(self) -> dict[str, str]:
        """The errors of the cells that failed, in the order of the cells."""
        whole = self.whole
        return {
            key: self._errors[key] for key in self.lines if key in self._errors and key not in whole
        }

    def look(self) -> None:
        """Take what others have finished meanwhile."""
        for record in self.store.read() if self.store else ():
            self._take(record)

    def left(self, unit: Any) -> Any:
        """The unit without its finished rows and without those of cells that failed."""
        return unit.keep(lambda row: row not in self._done and row[0] not in self._errors)

    def claimed(self, units: Iterable[Any]) -> Iterator[Any]:
        """What is left of each unit that no other process is at, one by one; each is held until
        it is added."""
        for unit in units:
            if not self.left(unit).rows or (self.store and not self.store.claim(unit.key)):
                continue
            self._held.add(unit.key)
            self.look()  # another may have finished it before it was claimed here
            if (rest := self.left(unit)).rows:
                yield rest
            else:
                self._release(unit.key)

    def add(self, unit: str, record: dict[str, Any]) -> None:
        """Keep the record of a unit that was claimed."""
        if self.store:
            self.store.append(record)  # it comes back by `look`, as the records of others do
            self.look()
        else:
            self._take(record)
        self._release(unit)

    def wait(self, units: Iterable[Any]) -> None:
        """Give other processes time, if they are at what is left."""
        if any(self.left(unit).rows for unit in units):
            time.sleep(PAUSE)
            self.look()

    def release(self) -> None:
        """Give back what is held."""
        for unit in list(self._held):
            self._release(unit)

    def table(self) -> pd.DataFrame:
        """The rows of whole cells, in their order; the errors of the others are in
        `attrs["failed"]`, and told."""
        failed = self.failed
        whole = [rows[~rows["cell"].isin(failed)] for rows in self._frames]
        if not any(map(len, whole)):
            told = next(iter(failed.values()), "nothing was run")
            raise SteerlabError(
                f"every one of {len(self.lines)} cells failed; the first said: {told}"
            )
        table = pd.concat(whole, ignore_index=True)
        order = table["cell"].map({key: place for place, key in enumerate(self.lines)})
        table = table.assign(_order=order).sort_values(["_order", "place"], kind="stable")
        table = (
            table.drop_duplicates(["cell", "place"])
            .drop(columns=["_order", "place"])
            .reset_index(drop=True)
        )
        if failed:
            table.attrs["failed"] = failed
            first = next(iter(failed.values()))
            told = f"{len(failed)} of {len(self.lines)} cells failed, the first with: {first}"
            Console(stderr=True).print(
                f"steerlab: {told}", soft_wrap=True, highlight=False, markup=False
            )
        return table

    def _release(self, unit: str) -> None:
        self._held.discard(unit)
        if self.store:
            self.store.release(unit)

    def _take(self, record: Mapping[str, Any]) -> None:
        worker = record.get("worker", "")
        self.seconds[worker] = self.seconds.get(worker, 0.0) + record.get("seconds", 0.0)
        self._errors |= {key: told for key, told in record["failed"].items() if key in self.lines}
        rows = pd.DataFrame(record["rows"])
        if rows.empty or not (kept := rows["cell"].isin(self.lines)).any():
            return
        rows = rows[kept]
        empty = [name for name in rows.columns if rows[name].isna().all()]
        self._frames.append(rows.astype(dict.fromkeys(empty, float)))
        self._done |= set(zip(rows["cell"], rows["place"].astype(int).tolist(), strict=True))


class Meter:
    """How far a run is and how long it will take: a bar on a terminal, a line now and then
    elsewhere."""

    def __init__(self, title: str, total: int, *, shown: bool) -> None:
        self.title, self.total, self.shown = title, total, shown
        self.console = Console(stderr=True)
        self.begun, self.said, self.first = time.monotonic(), time.monotonic(), -1
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
        )
        hidden = not shown or not self.console.is_terminal
        self.bar = Progress(
            *columns, TimeRemainingColumn(), console=self.console, disable=hidden, transient=True
        )
        self.task = self.bar.add_task(title, total=total)

    def __enter__(self) -> "Meter":
        self.bar.start()
        return self

    def __exit__(self, *told: object) -> None:
        self.bar.stop()

    def show(self, done: int) -> None:
        """`done` rows are finished."""
        self.first = done if self.first < 0 else self.first
        self.bar.update(self.task, completed=done)
        now = time.monotonic()
        if (
            self.shown
            and not self.console.is_terminal
            and now - self.said >= EVERY
            and done > self.first
        ):
            left = (self.total - done) * (now - self.begun) / (done - self.first)
            told = f"{self.title}: {done} of {self.total} rows, about {span(left)} left"
            self.console.print(told, highlight=False)
            self.said = now


def span(seconds: float) -> str:
    """A time in words that are short."""
    minutes, hours = seconds / 60, seconds / 3600
    return (
        f"{seconds:.0f} s"
        if minutes < 2
        else f"{minutes:.0f} min"
        if hours < 2
        else f"{hours:.1f} h"
    )
