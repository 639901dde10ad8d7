"""What the rows of cells read: sentences, prompts and their tokens, each made once."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from steerlab.core.corpus import Corpus
from steerlab.engine.cross_entropy import bits_per_byte
from steerlab.engine.prompts import encode, prompt
from steerlab.engine.shots import Shot, read_shots, shots
from steerlab.models.model import Model
from steerlab.sweeps.cell import RUN, Cell


@dataclass(frozen=True)
class Inputs:
    """The texts of a run, remembered as they are asked for.

    All follows from a model and a corpus that do not change, so that what is remembered cannot go
    stale; a run with another limit has inputs of its own.
    """

    model: Model
    corpus: Corpus
    limits: dict[str, int | None]  # the most sentences of each split
    template: Mapping[str, Any] | None = None  # options of the chat template
    _lines: dict[str, Corpus] = field(default_factory=dict, init=False, repr=False)
    _prompts: dict[tuple[str, str, str, str, int], str] = field(
        default_factory=dict, init=False, repr=False
    )
    _shots: dict[tuple[str, str, str], tuple[Shot, ...]] = field(
        default_factory=dict, init=False, repr=False
    )
    _tokens: dict[str, list[int]] = field(default_factory=dict, init=False, repr=False)
    _bits: dict[tuple[str, str], dict[str, float]] = field(
        default_factory=dict, init=False, repr=False
    )

    def lines(self, split: str) -> Corpus:
        """The sentences of a split, as many as the limit lets through."""
        if split not in self._lines:
            self._lines[split] = self.corpus.split(split).take(self.limits[split])
        return self._lines[split]

    def prompt(self, cell: Cell, index: int) -> str:
        """What the model reads for a cell and a line of its split."""
        key = (cell.split, cell.form, cell.source, cell.target, index)
        if key not in self._prompts:
            texts = self.lines(cell.split)[cell.source]
            text = texts[index]
            form = cell.form
            if form == RUN:
                text = f"{texts[index - 1]}\n{text}"  # the first line has the last one above it
                form = "line"
            self._prompts[key] = prompt(
                self.model.tokenizer,
                form,
                text,
                source=cell.source,
                target=cell.target,
                shots=self.shots(form, cell.source, cell.target),
                template=self.template,
            )
        return self._prompts[key]

    def shots(self, form: str, source: str, target: str) -> tuple[Shot, ...]:
        """The examples of a form, which are of the whole corpus whatever the limits; none of a
        form without."""
        if read_shots(form) is None:
            return ()
        key = (form, source, target)
        if key not in self._shots:
            self._shots[key] = shots(self.corpus, form, source, target)
        return self._shots[key]

    def tokens(self, text: str) -> list[int]:
        """The token ids of a prompt."""
        if text not in self._tokens:
            self._tokens[text] = encode(self.model.tokenizer, [text])[0]
        return self._tokens[text]

    def reference_bits(self, split: str, target: str) -> dict[str, float]:
        """Bits per byte of each reference of a split in a language."""
        if (split, target) not in self._bits:
            references = self.lines(split)[target]
            bits = np.asarray(bits_per_byte(self.model, references))
            self._bits[split, target] = dict(zip(references, bits.tolist(), strict=True))
        return self._bits[split, target]
