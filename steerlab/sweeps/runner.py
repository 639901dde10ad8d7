"""The runner: from cells to a table of scored rows, many cells to a batch.

A run that is stopped at any moment can be continued, by one process or by several.
"""

import hashlib
import json
import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from steerlab.core.corpus import Corpus
from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.edits import Edit, Operator
from steerlab.engine import batching
from steerlab.engine.weights.weight_edit import WeightEdit
from steerlab.models.model import Model
from steerlab.scores.judges import DISTRACTORS, Judge, Retrieval
from steerlab.scores.judges.ready import need_ready
from steerlab.scores.langid import Identifier
from steerlab.sweeps.cell import FORMAT, INDEX, Batch, Cell, Row
from steerlab.sweeps.decoding import Decoding, decode_rows
from steerlab.sweeps.inputs import Inputs
from steerlab.sweeps.ledger import Ledger, Meter
from steerlab.sweeps.own import operator_digest, scorer_digest
from steerlab.sweeps.scoring import Scorer, as_json, bits_ratio, own_scores, score_rows
from steerlab.sweeps.settings import NEW_TOKENS as NEW_TOKENS
from steerlab.sweeps.shared import representatives, spread

# Batches, at most, whose rows are planned together. One would split the cells of one prompt over
# many batches; all would make the plan of a long run depend on its last cell.
GROUP = 4

LONGEST = 256  # tokens of a prompt that the rows of a batch are planned for


# Who runs batches: gives each one's record as it is done, in any order.
Workers = Callable[["Runner", Iterable[Batch]], Iterator[tuple[Batch, dict[str, Any]]]]


def run_locally(
    runner: "Runner", batches: Iterable[Batch]
) -> Iterator[tuple[Batch, dict[str, Any]]]:
    """Run the batches one by one in this process."""
    for batch in batches:
        yield batch, runner.run_batch(batch)


@dataclass(frozen=True)
class Runner:
    """What every cell of a run shares; its hash is part of each cell's key.

    It is frozen, since it remembers what its keys are made of: `dataclasses.replace` makes another
    one, which remembers nothing of this one.

    Args:
        model: the model that is steered.
        corpus: the sentences; each cell takes those of its split.
        directions: by the names that cells call them (`Cell.fits`).
        identifier: which language an output is in.
        limits: the most sentences of each split; None for all.
        folder: where finished batches are kept; None keeps them in memory only.
        batch: rows that run together; by default what memory and speed advise.
        fluency: also score bits per byte of outputs over those of their references.
        judge: by default retrieval among the references of the cell's split.
        new_tokens: the most tokens of an output.
        one_line: whether an output ends with its first line.
        temperature: 0 takes the likeliest token, more samples.
        seed: of what is sampled.
        workers: who runs the batches; by default this process.
        retry: run cells again that failed before.
        operators: records of a user's own operators, by the names that cells call them.
        template: options of the chat template (`engine.prompts.prompt`).
        scorers: a user's own scores, by the names of their columns.
    """

    model: Model
    corpus: Corpus
    directions: Mapping[str, Directions]
    identifier: Identifier
    limits: Mapping[str, int | None]
    folder: Path | None = None
    batch: int | None = None
    fluency: bool = False
    judge: Judge | None = None
    new_tokens: int = NEW_TOKENS
    one_line: bool = True
    temperature: float = 0.0
    seed: int = 0
    workers: Workers = run_locally
    retry: bool = False
    operators: Mapping[str, Operator] = field(default_factory=dict)
    template: Mapping[str, Any] | None = None
    scorers: Mapping[str, Scorer] = field(default_factory=dict)
    _inputs: Inputs = field(init=False, repr=False, compare=False)
    _hashed: dict[tuple[tuple[str, ...], str], list[Any]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    _digests: dict[str, str] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        rows = self.batch
        if rows is None:
            longest = min(LONGEST, max(1, self.model.context - self.new_tokens))
            greedy = self.temperature == 0
            rows = batching.advise(self.model, longest, new=self.new_tokens, greedy=greedy)
        object.__setattr__(self, "batch", rows)
        # Copies of the tables, so that a caller who goes on filling in his own changes no key
        # behind our back.
        object.__setattr__(self, "directions", dict(self.directions))
        object.__setattr__(self, "operators", dict(self.operators))
        object.__setattr__(self, "limits", dict(self.limits))
        object.__setattr__(self, "scorers", dict(self.scorers))
        inputs = Inputs(self.model, self.corpus, dict(self.limits), self.template)
        object.__setattr__(self, "_inputs", inputs)

    # --------------------------------------------------------------------- what decides the numbers

    @property
    def plan(self) -> dict[str, Any]:
        """How rows are put together: what decides a result's last bits beside the cell itself."""
        return {
            "rows": self.batch,
            "group": f"at most {GROUP} batches",
            "order": "length, prompt, depth",
        }

    def key(self, cell: Cell) -> str:
        """A hash of everything that decides the cell's rows."""
        # The first prompt's tokens hold the template, the instruction and the tokenizer.
        tokens = self._inputs.tokens(self._inputs.prompt(cell, 0))
        hashed = [asdict(cell), tokens, *self._shared(cell.fits, cell.split)]
        if cell.operator in self.operators:  # whose name alone does not say what it does
            hashed.append(self._own_digest(cell.operator))
        return hashlib.sha256(json.dumps(hashed, sort_keys=True).encode()).hexdigest()[:16]

    def _own_digest(self, operator: str) -> str:
        """What tells a user's own operator from others; to read a function takes a while."""
        if operator not in self._digests:
            self._digests[operator] = operator_digest(self.operators[operator], operator)
        return self._digests[operator]

    def _shared(self, fits: tuple[str, ...], split: str) -> list[Any]:
        """What decides the rows of all cells of these directions and this split."""
        if (fits, split) not in self._hashed:
            vectors = [self.directions[fit].digest for fit in fits]
            inputs = [
                self.model.metadata,
                self.model.device.type,
                self.corpus.hash,
                self.identifier.name,
                self.judge_of(split).name,
            ]
            decoding = [
                FORMAT,
                self.new_tokens,
                self.one_line,
                self.temperature,
                self.seed if self.temperature else 0,  # nothing is drawn at temperature 0
            ]
            self._hashed[fits, split] = [
                vectors,
                inputs,
                self.limits[split],
                self.plan,
                decoding,
                self.fluency,
            ]
            if self.scorers:  # else keys stay what they were
                own = [scorer_digest(name, one) for name, one in self.scorers.items()]
                self._hashed[fits, split].append([list(self.scorers), own])
        return self._hashed[fits, split]

    def judge_of(self, split: str) -> Judge:
        """The judge of a split's outputs."""
        return Retrieval(self.corpus.split(split)) if self.judge is None else self.judge

    def need_scores(self, splits: Iterable[str]) -> None:
        """Raise `SteerlabError` where the outputs of a split could not be judged; to be asked
        before any work."""
        for split in splits:
            need_ready(self.judge_of(split), DISTRACTORS)

    def lines(self, cell: Cell) -> Corpus:
        """The sentences of a cell's split, as many as the limit lets through."""
        return self._inputs.lines(cell.split)

    def prompt(self, cell: Cell, index: int) -> str:
        """What the model reads for a sentence of a cell's split."""
        return self._inputs.prompt(cell, index)

    def fluency_of(self, table: pd.DataFrame) -> np.ndarray:
        """Bits per byte of rows' outputs over those of their references, of rows that were run
        without."""
        return bits_ratio(self.model, table, self._inputs.reference_bits)

    def prompts(self, batch: Batch) -> list[str]:
        """What the model reads in each row of a batch."""
        return [self._inputs.prompt(batch.cells[key], index) for key, index in batch.rows]

    def length(self, batch: Batch) -> int:
        """Tokens of all prompts of a batch."""
        return sum(len(self._inputs.tokens(text)) for text in self.prompts(batch))

    # ------------------------------------------------------------------------ from cells to a table

    def run(
        self, cells: Iterable[Cell], *, title: str = "cells", progress: bool = False
    ) -> pd.DataFrame:
        """Tidy rows of all the cells, in their order; with a folder, finished ones are read from
        it.

        Cells of different names that are one edit, as those of two estimators that find the same
        vector, are run once, and the rows of the first stand for all (`shared.representatives`).

        A cell that fails leaves its error in the folder and in `rows.attrs["failed"]`; the rest go
        on. Other processes may work in the same folder: each batch is claimed by one of them, and
        all end with the whole table. A model that has an edit on already is refused: its rows would
        be stored as those of the model without.
        """
        self.model.need_unedited("a sweep")
        asked = {self.key(cell): cell for cell in cells}
        if not asked:
            return pd.DataFrame()
        standing = self._representatives(asked)
        keys = {key: cell for key, cell in asked.items() if standing[key] == key}
        waiting = self.batches(keys)
        lines = Counter(key for batch in waiting for key, _ in batch.rows)
        ledger = Ledger(self.folder, {key: lines[key] for key in keys}, retry=self.retry)
        with Meter(title, lines.total(), shown=progress) as meter:
            try:
                while waiting := [batch for batch in waiting if ledger.left(batch).rows]:
                    meter.show(ledger.count)
                    for batch, record in self.workers(self, ledger.claimed(waiting)):
                        ledger.add(batch.key, record)
                        meter.show(ledger.count)
                    ledger.wait(waiting)
            finally:
                ledger.release()
        return spread(ledger.table(), asked, standing)

    def with_fluency(self) -> "Runner":
        """This runner, scoring fluency too; what it remembers of its texts is the other's."""
        if self.fluency:
            return self
        scoring = replace(self, fluency=True)
        object.__setattr__(scoring, "_inputs", self._inputs)
        return scoring

    def _representatives(self, asked: Mapping[str, Cell]) -> dict[str, str]:
        """For each cell's key that of the cell whose rows stand for it."""
        if self.temperature > 0:  # what is sampled depends on the key
            return {key: key for key in asked}
        return representatives(asked, self.directions, self.operators)

    def batches(self, keys: Mapping[str, Cell]) -> list[Batch]:
        """All rows of the cells in the batches that they run in, which do not depend on what is
        finished."""
        batches: list[Batch] = []
        group: list[Row] = []
        for key, cell in keys.items():
            indices = range(len(self.lines(cell))) if cell.lines is None else cell.lines
            if group and len(group) + len(indices) > GROUP * self.plan["rows"]:
                batches += self._cut(keys, group)
                group = []
            group += [(key, index) for index in indices]
        return [*batches, *self._cut(keys, group)]

    def _cut(self, cells: Mapping[str, Cell], group: list[Row]) -> Iterator[Batch]:
        """A group's batches; rows of one prompt without an edit run once, so they count as one."""
        distinct: dict[tuple[str, int], list[Row]] = {}
        for number, (key, index) in enumerate(group):
            cell = cells[key]
            # A row that may differ from all others is set apart by its number; -1 is shared.
            alone = number if cell.steered or self.temperature > 0 else -1
            rows_of_one = distinct.setdefault((self._inputs.prompt(cell, index), alone), [])
            rows_of_one.append((key, index))
        ids = [self._inputs.tokens(text) for text, _ in distinct]
        together = list(distinct.values())
        depth = [cells[rows[0][0]].layer for rows in together]
        plan = batching.plan(
            self.model,
            ids,
            depth,
            new=self.new_tokens,
            greedy=self.temperature == 0,
            batch=self.batch,
        )
        for numbers in plan.batches:
            rows = tuple(row for number in numbers for row in together[number])
            name = hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]
            yield Batch(name, {key: cells[key] for key, _ in rows}, rows)

    # ------------------------------------------------------------------------------------ one batch

    def run_batch(self, batch: Batch) -> dict[str, Any]:
        """A batch's record: columns of its rows, the errors of the cells that failed, and what it
        took."""
        start = time.monotonic()
        tables, failed = self._attempt(batch)
        return {
            "batch": batch.key,
            "failed": failed,
            "worker": f"{socket.gethostname()}:{os.getpid()}",
            "rows": self._scored(pd.concat(tables, ignore_index=True)) if tables else {},
            "seconds": round(time.monotonic() - start, 3),
            "at": round(time.time(), 3),
        }

    def _attempt(self, batch: Batch) -> tuple[list[pd.DataFrame], dict[str, str]]:
        """What the rows say; where one of them fails, each cell by itself, so that only the
        failing ones are lost."""
        try:
            return [self._decoded(batch)], {}
        except Exception as error:
            if len(batch.cells) == 1:
                return [], {next(iter(batch.cells)): _message(error)}
        # Outside of `except`, which would keep the frames of the failed batch, and with them its
        # memory.
        tables: list[pd.DataFrame] = []
        failed: dict[str, str] = {}
        for key in batch.cells:
            finished, lost = self._attempt(batch.of(key))
            tables += finished
            failed |= lost
        return tables, failed

    def _decoded(self, batch: Batch) -> pd.DataFrame:
        """What the rows say, without scores."""
        rows = [(key, batch.cells[key], index) for key, index in batch.rows]
        table = pd.DataFrame([self._row(key, cell, index) for key, cell, index in rows])
        made: dict[tuple[str, int], Edit | WeightEdit] = {}
        edits = []
        for key, cell, index in rows:
            its = key, index % cell.different
            edit = made.get(its) or cell.change(self.directions, index, self.operators)
            if isinstance(edit, WeightEdit):  # which take long to make, and to put on
                made[its] = edit
            edits.append(edit)
        outputs = decode_rows(
            self.model,
            table["prompt"].tolist(),
            edits,
            [self._seed(row) for row in batch.rows],
            Decoding(
                new_tokens=self.new_tokens,
                one_line=self.one_line,
                temperature=self.temperature,
                rows=self.plan["rows"],
            ),
        )
        return pd.concat([table, outputs], axis=1)

    def _seed(self, row: Row) -> int:
        """A row's own seed, so that its sample does not depend on the rows beside it."""
        return int(hashlib.sha256(f"{row} {self.seed}".encode()).hexdigest()[:12], 16)

    def _row(self, key: str, cell: Cell, index: int) -> dict[str, Any]:
        """The columns that are known before the model has run."""
        lines = self.lines(cell)
        columns = asdict(cell)
        for name in ("fits", "form", "lines", "twins"):  # the row says which of each it took
            del columns[name]
        return columns | {
            INDEX: index,
            "sentence": lines.numbers[index],
            "estimator": cell.fits[index % len(cell.fits)] if cell.fits else "",
            "seed": index % max(1, len(cell.twins) or len(cell.fits)),
            "twin": str(cell.twin(index) or ""),
            "cell": key,
            "prompt": self._inputs.prompt(cell, index),
            "question": lines[cell.source][index],
            "reference": lines[cell.target][index],
        }

    def _scored(self, table: pd.DataFrame) -> dict[str, list[Any]]:
        """Columns of the rows with their scores."""
        table = score_rows(
            table,
            identifier=self.identifier,
            judge_of=self.judge_of,
            # An output of several lines is an answer, with no sentence that it should say.
            texts=self.corpus if self.one_line else None,
        )
        table["bits_per_byte_ratio"] = float("nan")
        if self.fluency:
            table["bits_per_byte_ratio"] = self.fluency_of(table)
        return as_json(own_scores(table, self.scorers))


def _message(error: Exception) -> str:
    """An error in one line: ours as they are, others with their kind."""
    return str(error) if isinstance(error, SteerlabError) else f"{type(error).__name__}: {error}"
