"""Rows that go on together, each with settings of its own, and are left one by one."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from steerlab.core.errors import SteerlabError
from steerlab.edits import Edit, stack
from steerlab.engine.decoding import Stops
from steerlab.engine.growing_text import GrowingText
from steerlab.engine.inputs import need_count, need_room
from steerlab.engine.sampling import choose, need_settings, uniform
from steerlab.engine.token_scores import TokenScore, token_scores
from steerlab.engine.walk import Walk
from steerlab.models.model import Model

End = Literal["stop", "length", "failed"]
_LEAVE = 1 / 8  # of a batch: rows that have ended leave it when they are so many (see `decoding`)


@dataclass(frozen=True, eq=False)
class Row:
    """A text to continue, and how.

    Args:
        ids: its tokens, BOS included.
        edit: what is done to the activations; None for the model as it is.
        max_new_tokens: the most tokens.
        temperature: 0 takes the likeliest token; above, tokens are sampled.
        seed: decides what is sampled.
        top_p: sample from the fewest of the likeliest tokens whose probabilities, at the
            temperature, reach this share; 1 samples from all.
        likeliest: of each token its log-probability is told, and how many of the likeliest tokens
            at its place; None tells of none.
        reads: whether the prompt's tokens are told of too.
    """

    ids: Sequence[int]
    edit: Edit | None = None
    max_new_tokens: int = 32
    temperature: float = 0.0
    seed: int = 0
    top_p: float = 1.0
    likeliest: int | None = None
    reads: bool = False

    def need(self, model: Model) -> None:
        """Raise `SteerlabError` for what cannot be run."""
        need_settings(self.max_new_tokens, self.temperature, self.top_p)
        need_count("seed", self.seed, 0)
        if self.likeliest is not None:
            need_count("likeliest", self.likeliest, 0)
        elif self.reads:
            raise SteerlabError(
                "the prompt is read for log-probabilities; give likeliest=0 or more"
            )
        need_room(model, [self.ids], new=self.max_new_tokens)


@dataclass(frozen=True)
class Piece:
    """What one step adds to a row.

    Args:
        row: its number.
        text: what it adds; a character of several tokens comes with its last one.
        tokens: how many tokens the row has now.
        end: why it ended: by itself, by the limit, or because the model gave no numbers any more;
            None where it goes on.
        score: of the token, the one that ends a text included; None where it is not asked for.
        start: with a score, the length of the row's text before the token.
    """

    row: int
    text: str
    tokens: int
    end: End | None = None
    score: TokenScore | None = None
    start: int = 0


class Talk:
    """Rows that begin together and say a token each at every step, as `generate` says them alone.

    The edit is on the model during a step alone, so that several talks may take turns. A row whose
    logits are no numbers, as under an edit that is far too strong, ends; the others go on. Raises
    `SteerlabError` before anything runs, for rows that the model cannot take.

    Args:
        model: what runs the rows.
        rows: what is to be said.
    """

    def __init__(self, model: Model, rows: Sequence[Row]):
        for row in rows:
            row.need(model)
        edits = [Edit(()) if row.edit is None else row.edit for row in rows]
        steered = any(edit.parts for edit in edits)
        room = max(row.max_new_tokens for row in rows)
        self.rows = tuple(rows)
        self.prompt_scores: dict[int, list[TokenScore]] = {}  # of the rows that ask for them
        self._walk = Walk(
            model, [row.ids for row in rows], stack(edits) if steered else None, room=room
        )
        self._stops = Stops.of(model, one_line=False)
        self._texts = [GrowingText(model.tokenizer) for _ in rows]
        self._chances = [
            uniform(1, row.max_new_tokens, row.seed)[0] if row.temperature else None for row in rows
        ]
        self._in_cache = list(range(len(rows)))
        self._live = set(self._in_cache)
        self._next: list[int] | None = None  # the tokens of the rows in the cache

    @property
    def live(self) -> frozenset[int]:
        """The rows that go on."""
        return frozenset(self._live)

    def leave(self, rows: Iterable[int]) -> None:
        """Let rows go that nobody wants any longer."""
        self._live -= set(rows)

    def dose(self, row: int) -> float:
        """How far a row's edit moved the residual stream until now, over its length; 0 without an
        edit, NaN where it is not known."""
        return float(self._walk.touched.doses(len(self.rows))[row])

    def step(self) -> Iterator[Piece]:
        """One more token of each row that goes on."""
        if not self._live:
            return
        logits = self._logits()
        chosen, broken = self._chosen(logits)
        self._next = chosen
        for place, row in enumerate(self._in_cache):
            if row in self._live:
                likeliest, start = self.rows[row].likeliest, len(self._texts[row].given)
                piece = self._piece(row, chosen[place], broken=broken[place])
                if likeliest is not None and not broken[place]:
                    one = slice(place, place + 1)
                    [score] = token_scores(logits[one], chosen[one], likeliest)
                    piece = replace(piece, score=score, start=start)
                if piece.end is not None:
                    self._live.discard(row)
                yield piece

    def _logits(self) -> Float[Tensor, "row vocab"]:
        if self._next is None:
            return self._begin()
        left = [place for place, row in enumerate(self._in_cache) if row in self._live]
        if len(self._in_cache) - len(left) >= max(1, _LEAVE * len(self._in_cache)):
            self._walk.take(left)
            self._in_cache = [self._in_cache[place] for place in left]
            self._next = [self._next[place] for place in left]
        return self._walk.step(self._next)

    def _begin(self) -> Float[Tensor, "row vocab"]:
        """The logits after the prompts, which are read where a row asks for it."""
        if not any(row.reads for row in self.rows):
            return self._walk.begin()
        whole = self._walk.begin_and_read()
        last = whole[:, -1].clone()
        for number, row in enumerate(self.rows):
            if row.reads and row.likeliest is not None:
                first, *others = row.ids
                logits = whole[number, whole.shape[1] - len(row.ids) : -1]
                if not torch.isfinite(logits.amax(-1)).all():
                    last[number] = math.nan  # what has no score has no continuation either
                    continue
                scores = token_scores(logits, others, row.likeliest)
                self.prompt_scores[number] = [TokenScore(first, None), *scores]
        return last

    @torch.inference_mode()
    def _chosen(self, logits: Float[Tensor, "row vocab"]) -> tuple[list[int], list[bool]]:
        """The next token of each row in the cache, and which rows have no numbers to choose by."""
        broken = ~torch.isfinite(logits.amax(-1))
        logits = logits.masked_fill(broken[:, None], 0)
        chosen = choose(logits, 0.0, None).tolist()
        for place, row in enumerate(self._in_cache):
            chances, step = self._chances[row], len(self._texts[row].tokens)
            if chances is not None and row in self._live:
                one, how = logits[place : place + 1], self.rows[row]
                [chosen[place]] = choose(
                    one, how.temperature, chances[step : step + 1], how.top_p
                ).tolist()
        return chosen, broken.tolist()

    def _piece(self, row: int, token: int, *, broken: bool) -> Piece:
        text = self._texts[row]
        if broken or self._stops.end[token]:
            return Piece(row, text.rest(), len(text.tokens), "failed" if broken else "stop")
        last = len(text.tokens) + 1 == self.rows[row].max_new_tokens
        added = text.add(token, last=last)
        return Piece(row, added, len(text.tokens), "length" if last else None)


BROKEN = (
    "the model's logits hold NaN or infinity; its weights are broken, or the edit is too strong"
)


def need_touched(talk: Talk, row: int) -> None:
    """Raise where the edit of a row has moved nothing that it should have: an output that says that
    it is steered, and is not, is worse than none."""
    edit = talk.rows[row].edit
    if edit is None or all(part.identity for part in edit.parts):
        return
    dose = talk.dose(row)
    if dose == 0 and not math.isnan(dose):
        raise SteerlabError("the edit touched no position; the output is unsteered")
