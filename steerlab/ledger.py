"""What of a grid is finished, in memory and in a folder, and how far the rest is."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from steerlab.results import Results
from steerlab.terms import SteerlabError

EVERY = 30  # seconds between two lines of progress where there is no terminal
PAUSE = 0.5  # seconds between two looks at what another process is at


class Ledger:
    """The finished rows of the cells `keys`, and the errors of those that failed, of this process and of others."""

    def __init__(self, folder: Path | None, keys: Mapping[str, Any], *, retry: bool = False) -> None:
        self.keys, self.store = list(keys), None if folder is None else Results(folder)
        self.failed: dict[str, str] = {}
        self._done: set[tuple[str, int]] = set()
        self._frames: list[pd.DataFrame] = []
        self._held: set[str] = set()
        self._known = set(self.keys)
        self.seconds: dict[str, float] = {}  # that each worker has worked
        self.look()
        if retry:
            self.failed.clear()

    @property
    def count(self) -> int:
        """Finished rows."""
        return len(self._done)

    @property
    def problems(self) -> list[str]:
        """Damaged lines of the folder."""
        return [] if self.store is None else self.store.problems

    def counts(self) -> dict[str, int]:
        """How many rows of each cell are finished."""
        return dict(Counter(key for key, _ in self._done))

    def look(self) -> None:
        """Take what others have finished meanwhile."""
        for record in self.store.read() if self.store else ():
            self._take(record)

    def left(self, unit: Any) -> Any:
        """The unit without its finished rows and without those of cells that failed."""
        return unit.keep(lambda row: row not in self._done and row[0] not in self.failed)

    def claimed(self, units: Iterable[Any]) -> Iterator[Any]:
        """What is left of each unit that no other process is at, one by one; each is held until it is added."""
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
        """The rows of whole cells, in their order; the errors of the others are in `attrs["failed"]`, and told."""
        whole = [rows[~rows["cell"].isin(self.failed)] for rows in self._frames]
        if not any(map(len, whole)):
            told = next(iter(self.failed.values()), "nothing was run")
            raise SteerlabError(f"every one of {len(self.keys)} cells failed; the first said: {told}")
        table = pd.concat(whole, ignore_index=True)
        order = table["cell"].map({key: place for place, key in enumerate(self.keys)})
        table = table.assign(_order=order).sort_values(["_order", "place"], kind="stable")
        table = table.drop_duplicates(["cell", "place"]).drop(columns=["_order", "place"]).reset_index(drop=True)
        if self.failed:
            table.attrs["failed"] = {key: self.failed[key] for key in self.keys if key in self.failed}
            first = next(iter(self.failed.values()))
            told = f"{len(self.failed)} of {len(self.keys)} cells failed, the first with: {first}"
            Console(stderr=True).print(f"steerlab: {told}", soft_wrap=True, highlight=False, markup=False)
        return table

    def _release(self, unit: str) -> None:
        self._held.discard(unit)
        if self.store:
            self.store.release(unit)

    def _take(self, record: Mapping[str, Any]) -> None:
        worker = record.get("worker", "")
        self.seconds[worker] = self.seconds.get(worker, 0.0) + record.get("seconds", 0.0)
        self.failed |= {key: told for key, told in record["failed"].items() if key in self._known}
        rows = pd.DataFrame(record["rows"])
        if rows.empty or not (kept := rows["cell"].isin(self._known)).any():
            return
        rows = rows[kept]
        empty = [name for name in rows.columns if rows[name].isna().all()]
        self._frames.append(rows.astype(dict.fromkeys(empty, float)))
        self._done |= set(zip(rows["cell"], rows["place"].astype(int).tolist(), strict=True))
        for key in set(rows["cell"]):
            self.failed.pop(key, None)


class Meter:
    """How far a run is and how long it will take: a bar on a terminal, a line now and then elsewhere."""

    def __init__(self, title: str, total: int, *, shown: bool) -> None:
        self.title, self.total, self.shown = title, total, shown
        self.console = Console(stderr=True)
        self.begun, self.said, self.first = time.monotonic(), time.monotonic(), -1
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
        hidden = not shown or not self.console.is_terminal
        self.bar = Progress(*columns, TimeRemainingColumn(), console=self.console, disable=hidden, transient=True)
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
        if self.shown and not self.console.is_terminal and now - self.said >= EVERY and done > self.first:
            left = (self.total - done) * (now - self.begun) / (done - self.first)
            told = f"{self.title}: {done} of {self.total} rows, about {span(left)} left"
            self.console.print(told, highlight=False)
            self.said = now


def span(seconds: float) -> str:
    """A time in words that are short."""
    minutes, hours = seconds / 60, seconds / 3600
    return f"{seconds:.0f} s" if minutes < 2 else f"{minutes:.0f} min" if hours < 2 else f"{hours:.1f} h"
