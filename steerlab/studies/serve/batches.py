"""The thread that says what requests ask for: many rows at once, each under its own edit."""

import queue
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

from steerlab.core.errors import SteerlabError
from steerlab.edits import Edit
from steerlab.engine.batching import plan
from steerlab.engine.talk import BROKEN, Piece, Row, Talk, need_touched
from steerlab.studies.explore.session import Session
from steerlab.studies.explore.setting import Steering
from steerlab.studies.local.line import Failed, Job, Line, failure
from steerlab.studies.serve.until import Until

MOST_ROWS = 32  # that are being said at once
MOST_WAITING = 128  # those included that are being said
REMEMBERED = 64  # edits that were made
GATHERED = 0.01  # seconds that an idle thread waits for others to come along, to begin together


@dataclass(frozen=True)
class Wanted:
    """What a request comes to.

    Args:
        row: the text to continue, without its edit.
        steer: how it is steered: keys, the edit itself, or not at all.
        stops: the texts at which it ends.
    """

    row: Row
    steer: Steering | Edit | None = None
    stops: tuple[str, ...] = ()


@dataclass(frozen=True)
class Said:
    """What is added to an answer."""

    text: str


@dataclass(frozen=True)
class Ended:
    """How an answer ended.

    Args:
        reason: "stop" by itself or at a text to stop at, "length" at the limit.
        tokens: how many it has.
        dose: how far the edit moved the residual stream, over its length; NaN where not known.
        edit: the digest of the edit; "" for none.
    """

    reason: str
    tokens: int
    dose: float
    edit: str


@dataclass
class _Group:
    """Rows that began together, and whose they are."""

    talk: Talk
    jobs: Sequence[Job[Wanted]]
    until: Sequence[Until]
    open: set[int]


@final
class Batches(Line[Wanted]):
    """Says rows together, one token each at every step, and each under its own edit.

    Requests that come while others are being said begin at the next step, as a group of their own:
    groups take turns by a step, so that nobody waits for a long answer to end. A row that nobody
    wants any longer leaves at the next step.

    Args:
        session: makes the edits, and holds the model; nobody else may use it while the thread
            lives.
        rows: how many are said at once; more wait.
        most: how many requests there may be, those included that are being said.
    """

    def __init__(self, session: Session, *, rows: int = MOST_ROWS, most: int = MOST_WAITING):
        super().__init__("steerlab endpoint", most=most)
        self.session = session
        self.rows = rows
        self._groups: list[_Group] = []
        self._edits: dict[Steering, Edit] = {}
        self._thread.start()

    @property
    def saying(self) -> int:
        """How many rows are being said."""
        return sum(len(group.open) for group in self._groups)

    def _work(self) -> None:
        while not self._closed.is_set():
            if jobs := self._arrived():
                self._groups += self._begun(jobs)
            for group in self._groups:
                self._step(group)
            self._groups = [group for group in self._groups if group.open]
        for group in self._groups:
            self._over(group, sorted(group.open))
        for job in self._arrived():
            self._end(job)

    def _arrived(self) -> list[Job[Wanted]]:
        """Those who wait and for whom there is room; where nothing is being said, at least one."""
        jobs: list[Job[Wanted]] = []
        idle = not self._groups and not self._closed.is_set()
        if idle:
            first = self._jobs.get()
            if first is None:
                return []
            jobs.append(first)
            time.sleep(GATHERED)
        while self._closed.is_set() or self.saying + len(jobs) < self.rows:
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                break
            if job is not None:
                jobs.append(job)
        return jobs

    def _begun(self, jobs: Sequence[Job[Wanted]]) -> list[_Group]:
        """Groups of jobs whose edits can be made."""
        ready: list[tuple[Job[Wanted], Row]] = []
        for job in jobs:
            try:
                if self.stops(job):
                    self._end(job)
                    continue
                ready.append((job, self._row(job.setting)))
            except Exception as error:
                job.put(failure(error))
                self._end(job)
        if not ready:
            return []
        try:
            groups = self._grouped(ready)
        except Exception as error:
            for job, _ in ready:
                job.put(failure(error))
                self._end(job)
            return []
        return groups

    def _row(self, wanted: Wanted) -> Row:
        """What is to be run, with its edit."""
        steer, row = wanted.steer, wanted.row
        if steer is None:
            return row
        if isinstance(steer, Steering):
            if steer not in self._edits:
                if len(self._edits) >= REMEMBERED:
                    self._edits.clear()
                self._edits[steer] = self.session.edit(steer)
            steer = self._edits[steer]
        steer.changes(self.session.model)  # raises for what does not go on this model
        return Row(row.ids, steer, row.max_new_tokens, row.temperature, row.seed)

    def _grouped(self, ready: Sequence[tuple[Job[Wanted], Row]]) -> list[_Group]:
        """As many together as memory holds, and as the model takes: some take no padding."""
        model, rows = self.session.model, [row for _, row in ready]
        planned = plan(
            model,
            [row.ids for row in rows],
            [0] * len(rows),
            new=max(row.max_new_tokens for row in rows),
        )
        groups = []
        for batch in planned.batches:
            jobs = [ready[number][0] for number in batch]
            groups.append(
                _Group(
                    Talk(model, [rows[number] for number in batch]),
                    jobs,
                    [Until(job.setting.stops) for job in jobs],
                    set(range(len(batch))),
                )
            )
        return groups

    def _step(self, group: _Group) -> None:
        """A token of each row of a group; rows that nobody wants leave before it."""
        self._over(group, [row for row in sorted(group.open) if self.stops(group.jobs[row])])
        try:
            for piece in list(group.talk.step()):
                self._tell(group, piece)
        except Exception as error:  # of the whole group: memory that ran out, or a fault
            told = failure(error)
            for row in sorted(group.open):
                group.jobs[row].put(told)
            self._over(group, sorted(group.open))

    def _tell(self, group: _Group, piece: Piece) -> None:
        """Pass on what a row says, and how it ends."""
        job, until = group.jobs[piece.row], group.until[piece.row]
        text = until.add(piece.text)
        reason = "stop" if until.reached else piece.end
        if reason is not None:
            text += until.rest()
        if text:
            job.put(Said(text))
        if reason is None:
            return
        if reason == "failed":
            job.put(Failed(BROKEN))
        else:
            job.put(self._ended(group, piece, reason))
        self._over(group, [piece.row])

    def _ended(self, group: _Group, piece: Piece, reason: str) -> Ended | Failed:
        talk = group.talk
        try:
            need_touched(talk, piece.row)
        except SteerlabError as error:
            return Failed(str(error))
        edit = talk.rows[piece.row].edit
        digest = "" if edit is None else edit.digest
        return Ended(reason, piece.tokens, talk.dose(piece.row), digest)

    def _over(self, group: _Group, rows: Sequence[int]) -> None:
        """Let rows go."""
        group.talk.leave(rows)
        for row in rows:
            group.open.discard(row)
            self._end(group.jobs[row])


def named(edits: Mapping[str, Edit], name: str) -> Edit:
    """The edit of a name; raises `SteerlabError` where there is none."""
    if name in edits:
        return edits[name]
    listed = f"there are {', '.join(edits)}" if edits else "none are, by --edit NAME=FILE"
    raise SteerlabError(
        f"no edit {name[:60]!r} is served; {listed}; or give the keys of a steering"
    )
