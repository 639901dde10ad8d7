"""Text generation under edits, with a cache and in batches.

Rows that share a prompt run it once, and rows that have ended leave their batch.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

import steerlab.engine.batching as batches
from steerlab.core.corpus import as_texts
from steerlab.core.errors import SteerlabError
from steerlab.core.generated import Output, Outputs
from steerlab.edits import Edit, EditStats
from steerlab.edits.edit import need_edit
from steerlab.engine.doubled import Doubled, doubled
from steerlab.engine.forward import Rows, rows_on
from steerlab.engine.prompts import encode
from steerlab.engine.sampling import choose, need_settings, uniform
from steerlab.models.loading import load
from steerlab.models.model import Model

# Rows that have ended leave their batch when they are this share of it. At once would be too often:
# leaving copies the cache.
LEAVE = 1 / 8


@dataclass
class Decoded:
    """What `decode` gives, in the order of the prompts.

    Args:
        texts: the continuations.
        tokens: how many tokens each has.
        touched: which layers the edit touched, at how many positions.
        plan: which rows ran together.
        dose: how far the edit moves the residual stream, over its length, in each row (see
            `EditStats`).
        site_doses: the same as shares of what is at the edit's sites that do not lie in the stream.
        displacement: how far the last of the stream is from what it is without the edit, over its
            length, at the row's prompt (see `Displacement`). It is 0 without an edit, and NaN where
            it was not asked for, where the edit touches only what is generated, and where another
            edit is on already.
        ended: whether each ended by itself, by a token that ends the text or a line break; if not,
            the limit of tokens cut it off.
    """

    texts: list[str]
    tokens: list[int]
    touched: EditStats
    plan: batches.Plan
    dose: list[float] = field(default_factory=list)
    site_doses: dict[str, list[float]] = field(default_factory=dict)
    displacement: list[float] = field(default_factory=list)
    ended: list[bool] = field(default_factory=list)


def generate(
    model: Any,
    prompts: Any,
    *,
    max_new_tokens: int = 32,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    one_line: bool = True,
    edit: Edit | None = None,
    batch: int | None = None,
) -> Any:  # an Output, which is a str, for a str, else Outputs, a list of them
    """Continue each prompt, under an edit or as the model is; an edit may also be on already, by
    `edit.on`. One string in gives one string. In a notebook it is shown with its prompt, language
    and dose.

    Args:
        model: what `load` takes.
        prompts: the texts to continue, or one text.
        max_new_tokens: the most tokens of a continuation.
        temperature: 0 takes the likeliest token; above, tokens are sampled.
        top_p: sample from the fewest of the likeliest tokens whose probabilities, at the
            temperature, reach this share; 1 samples from all.
        seed: decides what is sampled.
        one_line: whether a row ends at the first line break after some text.
        edit: the edit of all rows, or a stack with one edit for each prompt; one that `amplify`
            made runs each row twice.
        batch: the most rows that run together; by default as many as speed and memory advise.
    """
    model = load(model)
    given = as_texts(prompts, "what reads texts")
    # Of an edit that is on already nothing is counted here.
    counted = not model.attachments
    decoded = decode(
        model,
        given,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_p=top_p,
        seed=seed,
        one_line=one_line,
        edit=edit,
        batch=batch,
    )
    doses = decoded.dose if counted else [math.nan] * len(given)
    outputs = Outputs(map(Output, decoded.texts, given, doses))
    return outputs[0] if isinstance(prompts, str) else outputs


@torch.inference_mode()
def decode(
    model: Any,
    prompts: Sequence[str],
    *,
    max_new_tokens: int = 32,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int | Sequence[int] = 0,
    one_line: bool = True,
    edit: Edit | None = None,
    batch: int | None = None,
    displacement: bool = False,
) -> Decoded:
    """Continue each prompt as `generate` does, and tell what happened on the way.

    Args:
        model: what `load` takes.
        prompts: the texts to continue.
        max_new_tokens: the most tokens of a continuation.
        temperature: 0 takes the likeliest token; above, tokens are sampled.
        top_p: sample from the fewest of the likeliest tokens whose probabilities, at the
            temperature, reach this share; 1 samples from all.
        seed: decides what is sampled: one for all rows, or one for each. With one for each, a row
            does not depend on which others it is decoded with.
        one_line: whether a row ends at the first line break after some text.
        edit: the edit of all rows, or a stack with one edit for each prompt.
        batch: the most rows that run together; by default as many as speed and memory advise.
        displacement: measure how far the edit moves the last of the stream; each distinct prompt
            then runs once more, as it is.
    """
    model = load(model)
    need_settings(max_new_tokens, temperature, top_p)
    given: Any = seed  # checked, since what a caller gives may be anything
    one = not isinstance(given, Sequence) or isinstance(given, str)
    for number in (given,) if one else given:
        if not isinstance(number, int | np.integer) or not -(2**63) <= number < 2**63:
            raise SteerlabError(f"a seed is {number!r}; give a whole number of at most 64 bits")
    if batch is not None and not isinstance(batch, int):
        raise SteerlabError(f"batch is {batch!r}; give a number of rows, or None")
    ids = encode(model.tokenizer, prompts)
    if not isinstance(seed, int) and len(seed) != len(ids):
        raise SteerlabError(
            f"there are {len(ids)} prompts and {len(seed)} seeds; give one seed, or one for each "
            "prompt"
        )
    if edit is not None:
        need_edit(edit)  # raises, and says what makes one of it
    stops = Stops.of(model, one_line=one_line)
    runs, single, plain = doubled(ids, edit)
    with rows_on(model, runs, single, new=max_new_tokens, displacement=displacement) as rows:
        one_of = rows if edit is None or not plain else Doubled.of(rows, edit, len(ids), plain)
        decoding = _Decoding(one_of, max_new_tokens, stops, temperature, top_p, seed)
        greedy = temperature == 0
        if plain:  # a row may be two, so that half as many are a batch
            longest = max(map(len, ids))
            fit = batches.advise(model, longest, new=max_new_tokens, greedy=greedy)
            batch = max(1, (fit if batch is None else batch) // 2)
        plan = batches.plan(model, ids, rows.depth, new=max_new_tokens, greedy=greedy, batch=batch)
        plan = rows.run(decoding.run, plan)
    texts = [model.tokenizer.decode(tokens, skip_special_tokens=True) for tokens in decoding.new]
    touched = rows.touched
    return Decoded(
        texts,
        [len(tokens) for tokens in decoding.new],
        touched,
        plan,
        touched.doses(len(ids)).tolist(),
        {site: each.tolist() for site, each in touched.site_doses(len(ids)).items()},
        _displacement(rows, single)[: len(ids)] if displacement else [math.nan] * len(ids),
        decoding.ended,
    )


def _displacement(rows: Rows, edit: Edit | None) -> list[float]:
    """That of each row; NaN where its edit does not touch the prompt, which is then as it was."""
    count = len(rows.ids)
    edited = set() if edit is None else edit.rows_touched(count)
    if rows.displaced is None:
        return [math.nan if edited or rows.model.attachments else 0.0] * count
    later = edited if edit is None else edited - edit.rows_touched(count, "prompt")
    values = rows.displaced.values.tolist()
    return [math.nan if row in later else value for row, value in enumerate(values)]


class _Decoding:
    """One call of `decode`: the tokens of all rows, filled batch by batch."""

    def __init__(
        self,
        rows: Rows | Doubled,
        steps: int,
        stops: "Stops",
        temperature: float,
        top_p: float,
        seed: int | Sequence[int],
    ):
        self.rows = rows
        self.steps = steps
        self.stops = stops
        self.temperature = temperature
        self.top_p = top_p
        self.new: list[list[int]] = [[] for _ in rows.ids]
        self.ended = [True for _ in rows.ids]
        # One random number for each row and step, drawn here once: what is sampled then does not
        # depend on the batches.
        self.chances: Tensor | None = None
        if temperature:
            self.chances = uniform(len(rows.ids), steps, seed)

    def run(self, rows: Sequence[int]) -> None:
        """Fill in the new tokens of some rows; rows that have ended leave the batch and its
        cache."""
        device = self.rows.model.device
        numbers = torch.tensor(rows, device=device)
        tokens = torch.full((len(rows), self.steps), -1, device=device)  # -1: the row has ended
        # Of the batch, which becomes smaller: the index of each row in `rows`, whether it goes on,
        # and whether it has said anything but spaces.
        active = torch.arange(len(rows), device=device)
        live = torch.ones(len(rows), dtype=torch.bool, device=device)
        begun = ~live
        logits, batch = self.rows.forward(rows, room=self.steps)
        logits = logits[:, -1]
        for step in range(self.steps):
            chosen = self._choose(logits, numbers[active], step)
            # A token that ends the text does not belong to it; a line break does.
            going = live & ~self.stops.end[chosen]
            tokens[active, step] = torch.where(going, chosen, -1)
            if self.stops.one_line:
                begun = begun | ~self.stops.blank[chosen]
                going = going & ~(self.stops.line[chosen] & begun)
            live = going
            left = int(live.sum())
            if not left or step + 1 == self.steps:
                break
            if len(live) - left >= max(1, LEAVE * len(live)):
                keep = live.nonzero()[:, 0]
                active = active[keep]
                begun = begun[keep]
                chosen = chosen[keep]
                live = live[keep]
                batch.take(keep)
            # Rows that have ended and not left yet run on; no edit touches or counts them.
            logits = batch.step(chosen, None if left == len(live) else live)
        for row, of_row in zip(rows, tokens.tolist(), strict=True):
            self.new[row] = [token for token in of_row if token >= 0]
        # What is live after the last step would have gone on.
        for index in active[live].tolist():
            self.ended[rows[index]] = False

    def _choose(
        self, logits: Float[Tensor, "row vocab"], numbers: Int[Tensor, " row"], step: int
    ) -> Int[Tensor, " row"]:
        """The next token of each of the rows of these numbers."""
        chances = None if self.chances is None else self.chances[numbers.cpu(), step]
        return choose(logits, self.temperature, chances, self.top_p)


@dataclass(frozen=True)
class Stops:
    """What each token of the vocabulary says about the end of a row.

    Args:
        end: whether it ends the text.
        line: whether it has a line break.
        blank: whether it is nothing but space.
        one_line: whether a row ends at a line break; without, `line` and `blank` are not filled.
    """

    end: Bool[Tensor, " vocab"]
    line: Bool[Tensor, " vocab"]
    blank: Bool[Tensor, " vocab"]
    one_line: bool

    @classmethod
    def of(cls, model: Model, *, one_line: bool) -> "Stops":
        """Those of a model's tokenizer, kept with the model: to decode a whole vocabulary takes its
        time."""
        cached: dict[Any, Stops] = model.__dict__.setdefault("_stops", {})
        key = (one_line, frozenset(model.ends), model.device)
        if key not in cached:
            cached[key] = cls._of(model, one_line=one_line)
        return cached[key]

    @classmethod
    def _of(cls, model: Model, *, one_line: bool) -> "Stops":
        # A model may have more logits than its tokenizer has tokens, and the other way round.
        size = max(len(model.tokenizer), int(model.vocabulary))
        end = torch.zeros(size, dtype=torch.bool)
        line = torch.zeros(size, dtype=torch.bool)
        blank = torch.zeros(size, dtype=torch.bool)
        end[[token for token in model.ends if token < size]] = True
        if one_line:
            tokens = range(len(model.tokenizer))
            texts = model.tokenizer.batch_decode([[token] for token in tokens])
            for token, text in enumerate(texts):
                line[token] = "\n" in text
                blank[token] = not text.strip()
        device = model.device
        return cls(end.to(device), line.to(device), blank.to(device), one_line)
