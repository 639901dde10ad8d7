"""Cells of a grid, many to a batch, each finished group a file: a run that was stopped goes on."""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.progress import Progress

from steerlab.batches import advise
from steerlab.corpora import Corpus
from steerlab.directions import Directions
from steerlab.edits import Edit, ablate, add, rotate, stack
from steerlab.evaluation import fluency
from steerlab.generation import decode
from steerlab.judges import Answer, Retrieval, score
from steerlab.langid import Identifier
from steerlab.model import Model
from steerlab.prompts import prompt
from steerlab.scores import first_line
from steerlab.terms import SteerlabError

NEW_TOKENS = 32
GROUP = 4  # batches whose rows are made and written together, so that a prompt meets many edits in a batch
LONGEST = 256  # tokens of a prompt that the rows of a batch are planned for
RUN = "run of lines"  # a form of prompt: another sentence of the language stands above the sentence


@dataclass(frozen=True)
class Cell:
    """One setting of the grid, run on every sentence of a split, or on those at the places `lines` of it.

    `fits` names the directions to use; sentence i takes the (i mod n)-th, so that a control of several seeds costs as
    much as one run.
    """

    method: str
    operator: str
    layer: int
    strength: float
    source: str
    target: str
    split: str
    fits: tuple[str, ...] = ()
    form: str = "line"
    lines: tuple[int, ...] | None = None

    def edit(self, directions: Mapping[str, Directions], sentence: int) -> Edit:
        """The edit for the i-th sentence of the split; `none` is the empty edit."""
        if self.operator == "none":
            return Edit(())
        fit = directions[self.fits[sentence % len(self.fits)]]
        if self.operator == "ablate":
            return ablate(fit[self.target].at(self.layer), fraction=self.strength)
        step = fit.between(self.source, self.target).at(self.layer)
        if self.operator == "rotate":
            return rotate(step, share=self.strength)
        return add(step, strength=self.strength)


@dataclass
class Bench:
    """What every cell of a run shares; its hash is part of each cell's key."""

    model: Model
    corpus: Corpus
    directions: Mapping[str, Directions]
    identifier: Identifier
    limits: Mapping[str, int | None]
    folder: Path | None = None
    batch: int | None = None  # rows that run together; by default what memory and speed advise
    fluency: bool = False
    _bits: dict[str, float] = field(default_factory=dict)  # of texts that come again: references, frequent outputs

    def __post_init__(self) -> None:
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
        if self.batch is None:
            self.batch = advise(self.model, min(LONGEST, self.model.context), new=NEW_TOKENS)

    @property
    def plan(self) -> dict[str, Any]:
        """How rows are put together: what decides a result's last bits beside the cell itself."""
        return {"rows": self.batch, "group": GROUP, "order": "length, prompt, depth"}

    def key(self, cell: Cell) -> str:
        """A hash of everything that decides the cell's rows."""
        fits = [hashlib.sha256(self.directions[fit].vectors.numpy().tobytes()).hexdigest() for fit in cell.fits]
        shared = [
            self.model.about,
            self.corpus.hash,
            self.identifier.name,
            self.limits[cell.split],
            NEW_TOKENS,
            self.plan,
        ]
        told = json.dumps([asdict(cell), fits, shared, self.fluency], sort_keys=True)
        return hashlib.sha256(told.encode()).hexdigest()[:16]

    def lines(self, cell: Cell) -> Corpus:
        return self.corpus.split(cell.split).take(self.limits[cell.split])

    def run(self, cells: Iterable[Cell], *, title: str = "cells", progress: bool = False) -> pd.DataFrame:
        """Tidy rows of all the cells, in their order; finished ones are read from the folder."""
        keys = {self.key(cell): cell for cell in cells}
        done = self._finished(keys)
        with Progress(console=Console(stderr=True), disable=not progress, transient=True) as bar:
            task = bar.add_task(title, total=len(keys))
            for group in self._groups(keys):
                if todo := [(key, cell) for key, cell in group if key not in done]:
                    done |= self._run_group(todo)
                bar.advance(task, len(group))
        return pd.concat([done[key] for key in keys], ignore_index=True) if keys else pd.DataFrame()

    def _groups(self, keys: Mapping[str, Cell]) -> Iterator[list[tuple[str, Cell]]]:
        """The cells in parts of about `GROUP` batches, the same ones whatever is finished."""
        group: list[tuple[str, Cell]] = []
        rows = 0
        for key, cell in keys.items():
            group.append((key, cell))
            rows += len(self.lines(cell) if cell.lines is None else cell.lines)
            if rows >= GROUP * self.plan["rows"]:
                yield group
                group, rows = [], 0
        if group:
            yield group

    def _finished(self, keys: Mapping[str, Cell]) -> dict[str, pd.DataFrame]:
        done: dict[str, pd.DataFrame] = {}
        for file in sorted(self.folder.glob("*.parquet")) if self.folder else []:
            try:
                found = pd.read_parquet(file)
            except (OSError, ValueError) as error:
                raise SteerlabError(
                    f"{file} is truncated or no parquet file ({error}); delete it, run again"
                ) from error
            done |= {str(key): rows for key, rows in found.groupby("cell", sort=False) if key in keys}
        return done

    def _run_group(self, group: Sequence[tuple[str, Cell]]) -> dict[str, pd.DataFrame]:
        table = pd.DataFrame([row for key, cell in group for row in self._rows(key, cell)])
        made = self._decode(table["prompt"].tolist(), table.pop("edit").tolist())
        texts, table["tokens"], table["dose"], table["batch_rows"] = made
        for split, rows in table.groupby("split"):
            told = zip(rows.index, rows.prompt, rows.question, rows.sentence, rows.source, rows.target, strict=True)
            answers = [Answer(first_line(texts[i]), *given) for i, *given in told]
            judge = Retrieval(self.corpus.split(str(split)))
            scores = score(answers, identifier=self.identifier, judge=judge)
            for name, values in scores.items():
                table.loc[rows.index, name] = pd.Series(values, index=rows.index)
        table = table.astype({"in_language": bool, "relevant": bool, "joint": bool})
        table["bits_per_byte_ratio"] = self._fluency(table) if self.fluency else float("nan")
        self._save(table)
        return {str(key): rows for key, rows in table.groupby("cell", sort=False)}

    def _decode(self, prompts: list[str], edits: list[Edit]) -> tuple[list[str], list[int], list[float], int]:
        """(texts, tokens, doses, rows of a batch as run); rows of one prompt without an edit are decoded once."""
        distinct = [
            (given, i if edit.parts else -1) for i, (given, edit) in enumerate(zip(prompts, edits, strict=True))
        ]
        place = {row: number for number, row in enumerate(dict.fromkeys(distinct))}
        rows = [place[row] for row in distinct]
        first = [rows.index(number) for number in range(len(place))]
        edit = stack([edits[i] for i in first])
        options: dict[str, Any] = {"max_new_tokens": NEW_TOKENS, "batch": self.batch}
        made = decode(self.model, [prompts[i] for i in first], edit=edit if edit.parts else None, **options)
        texts, tokens, doses = made.texts, made.tokens, made.dose
        return [texts[r] for r in rows], [tokens[r] for r in rows], [doses[r] for r in rows], made.plan.rows

    def _rows(self, key: str, cell: Cell) -> list[dict[str, Any]]:
        rows, lines = [], self.lines(cell)
        wanted = lines[cell.target]
        told = {k: v for k, v in asdict(cell).items() if k not in ("fits", "form", "lines")}
        texts, form = lines[cell.source], cell.form
        if form == RUN:
            texts, form = tuple(f"{texts[i - 1]}\n{text}" for i, text in enumerate(texts)), "line"
        for i in range(len(lines)) if cell.lines is None else cell.lines:
            number, text = lines.numbers[i], texts[i]
            given = prompt(self.model.tokenizer, form, text, source=cell.source, target=cell.target)
            fit = cell.fits[i % len(cell.fits)] if cell.fits else ""
            more = {"sentence": number, "estimator": fit, "seed": i % max(1, len(cell.fits)), "cell": key}
            rows.append(
                told
                | more
                | {
                    "prompt": given,
                    "question": lines[cell.source][i],
                    "reference": wanted[i],
                    "edit": cell.edit(self.directions, i),
                }
            )
        return rows

    def _fluency(self, table: pd.DataFrame) -> Any:
        return fluency(self.model, table["output"].tolist(), table["reference"].tolist(), known=self._bits)

    def _save(self, table: pd.DataFrame) -> None:
        if self.folder is None:
            return
        name = hashlib.sha256("".join(sorted(set(table["cell"]))).encode()).hexdigest()[:16]
        file = self.folder / f"{name}.parquet"
        try:
            table.to_parquet(file.with_suffix(".new"))
            os.replace(file.with_suffix(".new"), file)
        except OSError as error:
            file.with_suffix(".new").unlink(missing_ok=True)
            raise SteerlabError(
                f"could not write {file} ({error.strerror or error}); finished cells are kept: make room and run again"
            ) from error
