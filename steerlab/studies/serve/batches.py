"""The thread that says what requests ask for: many rows at once, each under its own edit."""

import queue
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import final

from steerlab.core.errors import SteerlabError
from steerlab.edits import Edit
from steerlab.engine.batching import plan
from steerlab.engine.talk import BROKEN, Piece, Row, Talk, need_touched
from steerlab.engine.token_scores import TokenScore
from steerlab.studies.explore.session import Session
from steerlab.studies.explore.setting import Steering
from steerlab.studies.local.line import Failed, Job, Line, failure
from steerlab.studies.serve.reply import Placed, Reply

MOST_ROWS = 32  # that are being said at once
MOST_WAITING = 128  # those included that are being said
REMEMBERED = 64  # edits that were made
GATHERED = 0.01  # seconds that an idle thread waits for others to come along, to begin together


@dataclass(frozen=True)
class Wanted:
    """What a request comes to.

    Args:
        rows: the texts to continue, without their edit: one for each answer.
        steer: how they are steered: keys, the edit itself, or not at all.
        stops: the texts at which they end.
        echo: what stands before each answer; empty for nothing.
        silent: whether they are only read, and nothing is said.
    """

    rows: tuple[Row, ...]
    steer: Steering | Edit | None = None
    stops: tuple[str, ...] = ()
    echo: tuple[str, ...] = ()
    silent: bool = False


@dataclass(frozen=True)
class Said:
    """What is added to an answer.

    Args:
        index: the answer's number.
        text: what is said.
        tokens: that begin in it, where they are asked for.
    """

    index: int
    text: str
    tokens: tuple[Placed, ...] = ()


@dataclass(frozen=True)
class Echoed:
    """What stands before an answer.

    Args:
        index: the answer's number.
        text: the prompt.
        scores: of its tokens, where they are asked for.
    """

    index: int
    text: str
    scores: tuple[TokenScore, ...] = ()


@dataclass(frozen=True)
class Ended:
    """How an answer ended.

    Args:
        index: the answer's number.
        reason: "stop" by itself or at a text to stop at, "length" at the limit.
        tokens: how many it has.
        dose: how far the edit moved the residual stream, over its length; NaN where not known.
        edit: the digest of the edit; "" for none.
    """

    index: int
    reason: str
    tokens: int
    dose: float
    edit: str


@dataclass(frozen=True, eq=False)
class _Choice:
    """One answer of a request.

    Args:
        job: the request.
        index: the answer's number.
    """

    job: Job[Wanted]
    index: int

    @property
    def row(self) -> Row:
        """What is to be run, without its edit."""
        return self.job.setting.rows[self.index]


@dataclass
class _Group:
    """Rows that began together, and whose they are."""

    talk: Talk
    choices: Sequence[_Choice]
    replies: Sequence[Reply]
    open: set[int]
    begun: bool = False


@final
class Batches(Line[Wanted]):
    """Says rows together, one token each at every step, and each under its own edit.

    Rows that come while others are being said begin at the next step, as a group of their own:
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
        self._waits: deque[_Choice] = deque()  # for room
        self._left: Counter[Job[Wanted]] = Counter()  # answers of each job that have not ended
        self._edits: dict[Steering, Edit] = {}
        self._thread.start()

    @property
    def saying(self) -> int:
        """How many rows are being said."""
        return sum(len(group.open) for group in self._groups)

    def _work(self) -> None:
        while not self._closed.is_set():
            self._gather()
            if choices := self._fitting():
                self._groups += self._begun(choices)
            for group in self._groups:
                self._step(group)
            self._groups = [group for group in self._groups if group.open]
        for group in self._groups:
            self._over(group, sorted(group.open))
        self._gather()
        for choice in self._waits:
            self._end_one(choice)

    def _gather(self) -> None:
        """Take in the requests that have come; where nothing is being said, at least one."""
        if not self._groups and not self._waits and not self._closed.is_set():
            self._take_in(self._jobs.get())
            time.sleep(GATHERED)
        while True:
            try:
                self._take_in(self._jobs.get_nowait())
            except queue.Empty:
                return

    def _take_in(self, job: Job[Wanted] | None) -> None:
        if job is not None:  # which only wakes the thread
            count = len(job.setting.rows)
            self._left[job] = count
            self._waits += [_Choice(job, index) for index in range(count)]

    def _fitting(self) -> list[_Choice]:
        """Those who wait and for whom there is room; those that nobody wants any longer wait no
        more."""
        unwanted = [choice for choice in self._waits if self.stops(choice.job)]
        for choice in unwanted:
            self._waits.remove(choice)
            self._end_one(choice)
        room = max(0, self.rows - self.saying)
        return [self._waits.popleft() for _ in range(min(room, len(self._waits)))]

    def _begun(self, choices: Sequence[_Choice]) -> list[_Group]:
        """Groups of rows whose edits can be made."""
        ready: list[tuple[_Choice, Row]] = []
        for choice in choices:
            try:
                ready.append((choice, self._row(choice)))
            except Exception as error:
                self._fail([choice], error)
        groups = []
        # Prompts that are read take more memory, so that they run by themselves.
        for reads in (False, True):
            some = [each for each in ready if each[1].reads == reads]
            try:
                groups += self._grouped(some, reads=reads)
            except Exception as error:
                self._fail([choice for choice, _ in some], error)
        return groups

    def _fail(self, choices: Sequence[_Choice], error: Exception) -> None:
        """Say of rows that have not begun why they cannot."""
        told = failure(error)
        for choice in choices:
            choice.job.put(told)
            self._end_one(choice)

    def _row(self, choice: _Choice) -> Row:
        """What is to be run, with its edit."""
        steer = choice.job.setting.steer
        if steer is None:
            return choice.row
        if isinstance(steer, Steering):
            if steer not in self._edits:
                if len(self._edits) >= REMEMBERED:
                    self._edits.clear()
                self._edits[steer] = self.session.edit(steer)
            steer = self._edits[steer]
        steer.changes(self.session.model)  # raises for what does not go on this model
        return replace(choice.row, edit=steer)

    def _grouped(self, ready: Sequence[tuple[_Choice, Row]], *, reads: bool) -> list[_Group]:
        """As many together as memory holds, and as the model takes: some take no padding."""
        if not ready:
            return []
        model, rows = self.session.model, [row for _, row in ready]
        planned = plan(
            model,
            [row.ids for row in rows],
            [0] * len(rows),
            new=max(row.max_new_tokens for row in rows),
            every=reads,
        )
        groups = []
        for batch in planned.batches:
            choices = [ready[number][0] for number in batch]
            groups.append(
                _Group(
                    Talk(model, [rows[number] for number in batch]),
                    choices,
                    [Reply(choice.job.setting.stops) for choice in choices],
                    set(range(len(batch))),
                )
            )
        return groups

    def _step(self, group: _Group) -> None:
        """A token of each row of a group; rows that nobody wants leave before it."""
        self._over(group, [row for row in sorted(group.open) if self.stops(group.choices[row].job)])
        try:
            pieces = list(group.talk.step())
            if not group.begun:
                group.begun = True
                for piece in pieces:
                    self._echo(group, piece)
            for piece in pieces:
                self._tell(group, piece)
        except Exception as error:  # of the whole group: memory that ran out, or a fault
            told = failure(error)
            for row in sorted(group.open):
                group.choices[row].job.put(told)
            self._over(group, sorted(group.open))

    def _echo(self, group: _Group, piece: Piece) -> None:
        """Pass on a row's prompt, where that is asked for."""
        choice = group.choices[piece.row]
        if choice.job.setting.echo and piece.end != "failed":
            scores = tuple(group.talk.prompt_scores.get(piece.row, ()))
            text = choice.job.setting.echo[choice.index]
            choice.job.put(Echoed(choice.index, text, scores))

    def _tell(self, group: _Group, piece: Piece) -> None:
        """Pass on what a row says, and how it ends."""
        choice = group.choices[piece.row]
        silent = choice.job.setting.silent and piece.end != "failed"
        text, tokens, reason = ("", (), "length") if silent else group.replies[piece.row].add(piece)
        if text or tokens:
            choice.job.put(Said(choice.index, text, tokens))
        if reason is None:
            return
        if reason == "failed":
            choice.job.put(Failed(BROKEN))
        else:
            said = 0 if silent else piece.tokens
            choice.job.put(self._ended(group, piece.row, reason, said))
        self._over(group, [piece.row])

    def _ended(self, group: _Group, row: int, reason: str, tokens: int) -> Ended | Failed:
        talk, choice = group.talk, group.choices[row]
        try:
            need_touched(talk, row)
        except SteerlabError as error:
            return Failed(str(error))
        edit = talk.rows[row].edit
        digest = "" if edit is None else edit.digest
        return Ended(choice.index, reason, tokens, talk.dose(row), digest)

    def _over(self, group: _Group, rows: Sequence[int]) -> None:
        """Let rows go."""
        group.talk.leave(rows)
        for row in rows:
            group.open.discard(row)
            self._end_one(group.choices[row])

    def _end_one(self, choice: _Choice) -> None:
        """Say that an answer is over; with the last of a request, the request is."""
        self._left[choice.job] -= 1
        if not self._left[choice.job]:
            del self._left[choice.job]
            self._end(choice.job)


def named(edits: Mapping[str, Edit], name: str) -> Edit:
    """The edit of a name; raises `SteerlabError` where there is none."""
    if name in edits:
        return edits[name]
    listed = f"there are {', '.join(edits)}" if edits else "none are, by --edit NAME=FILE"
    raise SteerlabError(
        f"no edit {name[:60]!r} is served; {listed}; or give the keys of a steering"
    )
