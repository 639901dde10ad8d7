"""Which rows of a grid are finished, in memory and in a folder, and how far the rest is."""

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

from steerlab.core.errors import SteerlabError, note
from steerlab.core.records import Results
from steerlab.sweeps.cell import INDEX, Batch, Row

EVERY = 30  # seconds between two lines of progress where there is no terminal
PAUSE = 0.5  # seconds between two looks at what other processes have finished


class Ledger:
    """The finished rows of cells and the errors of failed cells, of this process and of others.

    A cell has failed if an error was recorded and rows are missing, in whatever order errors and
    rows came.

    Args:
        folder: where records are kept and other processes' records appear; None keeps them here.
        lines: how many rows each cell has, by its key.
        retry: forget the errors of earlier runs.
    """

    def __init__(
        self, folder: Path | None, lines: Mapping[str, int], *, retry: bool = False
    ) -> None:
        self.lines = lines
        self.store = None if folder is None else Results(folder)
        self.seconds: dict[str, float] = {}  # that each worker has worked
        self._errors: dict[str, str] = {}
        self._done: set[Row] = set()
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
        """Read the records that others have added since."""
        for record in self.store.read() if self.store else ():
            self._take(record)

    def left(self, batch: Batch) -> Batch:
        """The batch without its finished rows and without those of cells that failed."""
        return batch.keep(lambda row: row not in self._done and row[0] not in self._errors)

    def claimed(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """What is left of each batch that no other process works on, one by one; each is held
        until it is added."""
        for batch in batches:
            if not self.left(batch).rows:
                continue
            if self.store and not self.store.claim(batch.key):
                continue
            self._held.add(batch.key)
            self.look()  # another may have finished it before it was claimed here
            rest = self.left(batch)
            if rest.rows:
                yield rest
            else:
                self._release(batch.key)

    def add(self, key: str, record: dict[str, Any]) -> None:
        """Keep the record of a batch that was claimed."""
        if self.store:
            self.store.append(record)  # it comes back by `look`, as the records of others do
            self.look()
        else:
            self._take(record)
        self._release(key)

    def wait(self, batches: Iterable[Batch]) -> None:
        """Wait a moment where other processes still work on these batches, then read again."""
        if any(self.left(batch).rows for batch in batches):
            time.sleep(PAUSE)
            self.look()

    def release(self) -> None:
        """Give back what is held."""
        for key in list(self._held):
            self._release(key)

    def table(self) -> pd.DataFrame:
        """The rows of the finished cells, in the order of the cells.

        The errors of the failed ones are in `attrs["failed"]`, and the first of them is printed;
        raises where every cell failed.
        """
        failed = self.failed
        whole = [rows[~rows["cell"].isin(failed)] for rows in self._frames]
        if not any(map(len, whole)):
            message = next(iter(failed.values()), "nothing was run")
            raise SteerlabError(
                f"every one of {len(self.lines)} cells failed; the first said: {message}"
            )
        table = pd.concat(whole, ignore_index=True)
        order = table["cell"].map({key: number for number, key in enumerate(self.lines)})
        table = table.assign(_order=order).sort_values(["_order", INDEX], kind="stable")
        # A row may be there twice: claims are of batches, and another grid in the same folder has
        # other batches of the same cells.
        table = (
            table.drop_duplicates(["cell", INDEX])
            .drop(columns=["_order", INDEX])
            .reset_index(drop=True)
        )
        if failed:
            table.attrs["failed"] = failed
            first = next(iter(failed.values()))
            message = f"{len(failed)} of {len(self.lines)} cells failed, the first with: {first}"
            note(message)
        return table

    def _release(self, key: str) -> None:
        self._held.discard(key)
        if self.store:
            self.store.release(key)

    def _take(self, record: Mapping[str, Any]) -> None:
        """Count a record's time, errors and rows."""
        worker = record.get("worker", "")
        self.seconds[worker] = self.seconds.get(worker, 0.0) + record.get("seconds", 0.0)
        # A folder may hold cells that this grid does not ask for.
        failed = record["failed"].items()
        self._errors |= {key: message for key, message in failed if key in self.lines}
        rows = pd.DataFrame(record["rows"])
        if rows.empty:
            return
        rows = rows[rows["cell"].isin(self.lines)]
        if rows.empty:
            return
        # JSON has None for NaN, and a column of nothing else would be one of objects.
        empty = [name for name in rows.columns if rows[name].isna().all()]
        self._frames.append(rows.astype(dict.fromkeys(empty, float)))
        self._done |= set(zip(rows["cell"], rows[INDEX].astype(int).tolist(), strict=True))


class Meter:
    """How far a run is and how long it will take: a bar on a terminal, a line now and then
    elsewhere."""

    def __init__(self, title: str, total: int, *, shown: bool) -> None:
        self.title = title
        self.total = total
        self.shown = shown
        self.console = Console(stderr=True)
        self.begun = time.monotonic()
        self.printed = self.begun  # when the last line of progress was
        self.first = -1  # rows that were finished before this run, once they are counted
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
        )
        # Elsewhere than on a terminal, such as in a log file, a bar would be a heap of lines.
        hidden = not shown or not self.console.is_terminal
        self.bar = Progress(
            *columns, TimeRemainingColumn(), console=self.console, disable=hidden, transient=True
        )
        self.task = self.bar.add_task(title, total=total)

    def __enter__(self) -> "Meter":
        self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.stop()

    def show(self, done: int) -> None:
        """Show that so many rows are finished."""
        if self.first < 0:
            self.first = done
        self.bar.update(self.task, completed=done)
        now = time.monotonic()
        needs_lines = self.shown and not self.console.is_terminal
        if needs_lines and now - self.printed >= EVERY and done > self.first:
            # Rows that were finished before this run say nothing of its speed.
            left = (self.total - done) * (now - self.begun) / (done - self.first)
            message = f"{self.title}: {done} of {self.total} rows, about {span(left)} left"
            self.console.print(message, highlight=False)
            self.printed = now


def span(seconds: float) -> str:
    """A time in seconds, minutes or hours, whichever is readable."""
    if seconds < 2 * 60:
        return f"{seconds:.0f} s"
    if seconds < 2 * 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
