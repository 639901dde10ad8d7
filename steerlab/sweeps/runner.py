"""The runner: many cells to a batch; a run that is stopped at any moment goes on, alone or
beside others."""

import hashlib
import json
import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import steerlab.engine.batching as batches
from steerlab.core.corpus import Corpus
from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.edits import stack
from steerlab.engine.cross_entropy import bits_per_byte
from steerlab.engine.decoding import decode
from steerlab.engine.prompts import encode, prompt
from steerlab.models.huggingface import Model
from steerlab.scores.judges import Answer, Judge, Retrieval, score
from steerlab.scores.langid import Identifier
from steerlab.scores.text import first_line
from steerlab.sweeps.cell import FORMAT, RUN, Batch, Cell
from steerlab.sweeps.ledger import Ledger, Meter
from steerlab.sweeps.settings import NEW_TOKENS as NEW_TOKENS

# batches, at most, whose rows are planned together, so that a prompt meets many edits in a batch
GROUP = 4

LONGEST = 256  # tokens of a prompt that the rows of a batch are planned for


Workers = Callable[["Runner", Iterable[Batch]], Iterator[tuple[Batch, dict[str, Any]]]]


def run_locally(runner: "Runner", units: Iterable[Batch]) -> Iterator[tuple[Batch, dict[str, Any]]]:
    """Say the units one by one in this process."""
    for unit in units:
        yield unit, runner.run_batch(unit)


@dataclass(frozen=True)
class Runner:
    """What every cell of a run shares; its hash is part of each cell's key.

    It is frozen, since it remembers what its keys are made of: `dataclasses.replace` makes another
    one, which remembers nothing of this one.
    """

    model: Model
    corpus: Corpus
    directions: Mapping[str, Directions]
    identifier: Identifier
    limits: Mapping[str, int | None]
    folder: Path | None = None
    batch: int | None = None  # rows that run together; by default what memory and speed advise
    fluency: bool = False
    judge: Judge | None = None  # by default retrieval among the references of the cell's split
    new_tokens: int = NEW_TOKENS
    one_line: bool = True
    temperature: float = 0.0
    seed: int = 0  # of what is sampled
    workers: Workers = run_locally
    retry: bool = False  # run cells again that failed before
    # What is hashed, prompts and their tokens, the bits of references: each instance has its own.
    _known: dict[Any, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        batch = self.batch
        if batch is None:
            longest = min(LONGEST, max(1, self.model.context - self.new_tokens))
            batch = batches.advise(self.model, longest, new=self.new_tokens)
        # Copies of the tables, so that a caller who goes on filling in his own changes no key
        # behind our back.
        for name, value in (
            ("batch", batch),
            ("directions", dict(self.directions)),
            ("limits", dict(self.limits)),
        ):
            object.__setattr__(self, name, value)

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
        read = self._encoded(
            self._prompt(cell, 0)
        )  # holds the template, the instruction and the tokenizer
        told = json.dumps(
            [asdict(cell), read, *self._shared(cell.fits, cell.split)], sort_keys=True
        )
        return hashlib.sha256(told.encode()).hexdigest()[:16]

    def _shared(self, fits: tuple[str, ...], split: str) -> list[Any]:
        known = self._known.setdefault("shared", {})
        told = (fits, split)
        if told not in known:
            vectors = [self.directions[fit].digest for fit in fits]
            decoding = [
                FORMAT,
                self.new_tokens,
                self.one_line,
                self.temperature,
                self.seed if self.temperature else 0,
            ]
            judge = self.judged(split).name
            about = [
                self.model.metadata,
                self.model.device.type,
                self.corpus.hash,
                self.identifier.name,
                judge,
            ]
            known[told] = [vectors, about, self.limits[split], self.plan, decoding, self.fluency]
        return known[told]

    def judged(self, split: str) -> Judge:
        """The judge of a split's outputs."""
        return Retrieval(self.corpus.split(split)) if self.judge is None else self.judge

    def lines(self, cell: Cell) -> Corpus:
        known = self._known.setdefault("lines", {})
        if cell.split not in known:
            known[cell.split] = self.corpus.split(cell.split).take(self.limits[cell.split])
        return known[cell.split]

    # ------------------------------------------------------------------------ from cells to a table

    def run(
        self, cells: Iterable[Cell], *, title: str = "cells", progress: bool = False
    ) -> pd.DataFrame:
        """Tidy rows of all the cells, in their order; with a folder, finished ones are read from
        it.

        A cell that fails leaves its error in the folder and in `rows.attrs["failed"]`; the rest go
        on. Other processes may work in the same folder: each unit is claimed by one of them, and
        all end with the whole table.
        """
        keys = {self.key(cell): cell for cell in cells}
        if not keys:
            return pd.DataFrame()
        waiting = self.units(keys)
        lines = Counter(key for unit in waiting for key, _ in unit.rows)
        ledger = Ledger(self.folder, {key: lines[key] for key in keys}, retry=self.retry)
        with Meter(title, lines.total(), shown=progress) as meter:
            try:
                while waiting := [unit for unit in waiting if ledger.left(unit).rows]:
                    meter.show(ledger.count)
                    for unit, record in self.workers(self, ledger.claimed(waiting)):
                        ledger.add(unit.key, record)
                        meter.show(ledger.count)
                    ledger.wait(waiting)
            finally:
                ledger.release()
        return ledger.table()

    def units(self, keys: Mapping[str, Cell]) -> list[Batch]:
        """All rows of the cells in the batches that they run in, which do not depend on what is
        finished."""
        units: list[Batch] = []
        group: list[tuple[str, int]] = []
        for key, cell in keys.items():
            places = range(len(self.lines(cell))) if cell.lines is None else cell.lines
            if group and len(group) + len(places) > GROUP * self.plan["rows"]:
                units += self._cut(keys, group)
                group = []
            group += [(key, place) for place in places]
        return [*units, *self._cut(keys, group)]

    def _cut(self, cells: Mapping[str, Cell], group: list[tuple[str, int]]) -> Iterator[Batch]:
        """A group's units; rows of one prompt without an edit run once, so they count as one."""
        distinct: dict[Any, list[tuple[str, int]]] = {}
        for number, (key, place) in enumerate(group):
            cell = cells[key]
            steered = cell.operator != "none" or self.temperature > 0
            distinct.setdefault((self._prompt(cell, place), number if steered else -1), []).append(
                (key, place)
            )
        ids = [self._encoded(text) for text, _ in distinct]
        depth = [cells[rows[0][0]].layer for rows in distinct.values()]
        together = list(distinct.values())
        for batch in batches.plan(
            self.model, ids, depth, new=self.new_tokens, batch=self.batch
        ).batches:
            rows = tuple(row for number in batch for row in together[number])
            told = json.dumps(rows).encode()
            name = hashlib.sha256(told).hexdigest()[:16]
            yield Batch(name, {key: cells[key] for key, _ in rows}, rows)

    def prompts(self, unit: Batch) -> list[str]:
        """What the model reads in each row of a unit."""
        return [self._prompt(unit.cells[key], place) for key, place in unit.rows]

    def length(self, unit: Batch) -> int:
        """Tokens of all prompts of a unit."""
        return sum(len(self._encoded(text)) for text in self.prompts(unit))

    def _prompt(self, cell: Cell, place: int) -> str:
        known = self._known.setdefault("prompts", {})
        told = (cell.split, cell.form, cell.source, cell.target, place)
        if told not in known:
            texts, form = self.lines(cell)[cell.source], cell.form
            text = texts[place]
            if form == RUN:
                text, form = f"{texts[place - 1]}\n{text}", "line"
            known[told] = prompt(
                self.model.tokenizer, form, text, source=cell.source, target=cell.target
            )
        return known[told]

    def _encoded(self, text: str) -> list[int]:
        known = self._known.setdefault("tokens", {})
        if text not in known:
            known[text] = encode(self.model.tokenizer, [text])[0]
        return known[text]

    # ------------------------------------------------------------------------------------- one unit

    def run_batch(self, unit: Batch) -> dict[str, Any]:
        """A unit's record: columns of its rows, the errors of the cells that failed, and what it
        took."""
        start = time.monotonic()
        made, failed = self._attempt(unit)
        record = {
            "unit": unit.key,
            "failed": failed,
            "worker": f"{socket.gethostname()}:{os.getpid()}",
        }
        record["rows"] = self._scored(pd.concat(made, ignore_index=True)) if made else {}
        return record | {"seconds": round(time.monotonic() - start, 3), "at": round(time.time(), 3)}

    def _attempt(self, unit: Batch) -> tuple[list[pd.DataFrame], dict[str, str]]:
        """What the rows say; where one of them fails, each cell by itself, so that only the
        failing ones are lost."""
        try:
            return [self._decode(unit)], {}
        except Exception as error:
            if len(unit.cells) == 1:
                told = (
                    str(error)
                    if isinstance(error, SteerlabError)
                    else f"{type(error).__name__}: {error}"
                )
                return [], {next(iter(unit.cells)): told}
        parts = [self._attempt(unit.of(key)) for key in unit.cells]
        return [table for made, _ in parts for table in made], {
            k: told for _, lost in parts for k, told in lost.items()
        }

    def _decode(self, unit: Batch) -> pd.DataFrame:
        """What the rows say, without scores; rows of one prompt without an edit are decoded
        once."""
        table = pd.DataFrame([self._row(key, unit.cells[key], place) for key, place in unit.rows])
        edits = [unit.cells[key].edit(self.directions, place) for key, place in unit.rows]
        prompts = table["prompt"].tolist()
        alone = [
            number if edit.parts or self.temperature else -1 for number, edit in enumerate(edits)
        ]
        place = {
            row: number
            for number, row in enumerate(dict.fromkeys(zip(prompts, alone, strict=True)))
        }
        rows = [place[row] for row in zip(prompts, alone, strict=True)]
        first = [rows.index(number) for number in range(len(place))]
        edit = stack([edits[i] for i in first])
        made = decode(
            self.model,
            [prompts[i] for i in first],
            edit=edit if edit.parts else None,
            max_new_tokens=self.new_tokens,
            one_line=self.one_line,
            temperature=self.temperature,
            seed=[
                int(hashlib.sha256(f"{unit.rows[i]} {self.seed}".encode()).hexdigest()[:12], 16)
                for i in first
            ],
            batch=self.batch,
        )
        cut = first_line if self.one_line else str.strip
        table["output"] = [cut(made.texts[row]) for row in rows]
        table["tokens"] = [made.tokens[row] for row in rows]
        table["dose"] = [made.dose[row] for row in rows]
        table["batch_rows"] = made.plan.rows
        return table

    def _row(self, key: str, cell: Cell, place: int) -> dict[str, Any]:
        lines = self.lines(cell)
        told = {k: v for k, v in asdict(cell).items() if k not in ("fits", "form", "lines")}
        fit = cell.fits[place % len(cell.fits)] if cell.fits else ""
        told |= {
            "place": place,
            "sentence": lines.numbers[place],
            "estimator": fit,
            "seed": place % max(1, len(cell.fits)),
        }
        texts = {"question": lines[cell.source][place], "reference": lines[cell.target][place]}
        return told | {"cell": key, "prompt": self._prompt(cell, place)} | texts

    def _scored(self, table: pd.DataFrame) -> dict[str, list[Any]]:
        """Columns of the rows with their scores, as JSON has them: None for NaN."""
        for split, rows in table.groupby("split"):
            told = zip(
                rows.output,
                rows.prompt,
                rows.question,
                rows.sentence,
                rows.source,
                rows.target,
                strict=True,
            )
            answers = [Answer(*given) for given in told]
            for name, values in score(
                answers, identifier=self.identifier, judge=self.judged(str(split))
            ).items():
                table.loc[rows.index, name] = pd.Series(values, index=rows.index)
        table = table.astype({"in_language": bool, "relevant": bool, "joint": bool})
        table["bits_per_byte_ratio"] = self._fluency(table) if self.fluency else float("nan")
        floats = {name for name in table.columns if table[name].dtype.kind == "f"}
        return {
            str(name): [
                None if name in floats and value != value else value
                for value in table[name].tolist()
            ]
            for name in table.columns
        }

    def _fluency(self, table: pd.DataFrame) -> np.ndarray:
        """Bits per byte of each output over its reference's; the texts of a unit are computed
        together."""
        bits = bits_per_byte(self.model, table["output"].tolist())
        known = self._known.setdefault("bits", {})
        for split, target in set(zip(table["split"], table["target"], strict=True)):
            if (split, target) not in known:
                part = self.corpus.split(split).take(self.limits[split])
                found = bits_per_byte(self.model, part[target])
                known[split, target] = dict(zip(part[target], found.tolist(), strict=True))
        told = zip(table["split"], table["target"], table["reference"], strict=True)
        return bits / np.array(
            [known[split, target][reference] for split, target, reference in told]
        )
