"""Cached, batched decoding under an edit: rows that share a prompt run it once, and rows that
have ended leave."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

import steerlab.engine.batching as batches
from steerlab.core.errors import SteerlabError
from steerlab.edits import Edit, EditStats
from steerlab.engine.forward import Rows, rows_on
from steerlab.engine.prompts import encode
from steerlab.models.loading import load
from steerlab.models.model import Model

LEAVE = (
    1 / 8
)  # rows that have ended leave when they are this share of the batch: leaving copies the cache


@dataclass
class Decoded:
    """Texts in the order of the prompts, how many tokens each took, what the edit touched, and
    the plan of batches."""

    texts: list[str]
    tokens: list[int]
    touched: EditStats
    plan: batches.Plan
    dose: list[float] = field(default_factory=list)


def generate(
    model: Any,
    prompts: Sequence[str],
    *,
    max_new_tokens: int = 32,
    temperature: float = 0.0,
    seed: int = 0,
    one_line: bool = True,
    edit: Edit | None = None,
    batch: int | None = None,
) -> list[str]:
    """Continue each prompt: greedy at temperature 0, else sampled with the seed; under `edit`, or
    inside `edit.on`.

    `one_line` stops a row at the first line break after some text. A stacked edit needs one row for
    each prompt. `batch` is the most rows that run together; without it, as many as speed and memory
    advise.
    """
    decoded = decode(
        model,
        prompts,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        seed=seed,
        one_line=one_line,
        edit=edit,
        batch=batch,
    )
    return decoded.texts


@torch.inference_mode()
def decode(
    model: Any,
    prompts: Sequence[str],
    *,
    max_new_tokens: int = 32,
    temperature: float = 0.0,
    seed: int | Sequence[int] = 0,
    one_line: bool = True,
    edit: Edit | None = None,
    batch: int | None = None,
) -> Decoded:
    """Like `generate`, with what each row took, what was touched, and which rows ran together.

    With a seed for each row, what a row says does not depend on which rows it is decoded with.
    """
    model = load(model)
    if not temperature >= 0:
        raise SteerlabError(f"temperature is {temperature}; give 0 (greedy) or more")
    if max_new_tokens < 1:
        raise SteerlabError(f"max_new_tokens is {max_new_tokens}; give 1 or more")
    ids = encode(model.tokenizer, prompts)
    if not isinstance(seed, int) and len(seed) != len(ids):
        raise SteerlabError(
            f"there are {len(ids)} prompts and {len(seed)} seeds; give one seed, or one for each "
            "prompt"
        )
    stops = _Stops.of(model, one_line=one_line)
    with rows_on(model, ids, edit, new=max_new_tokens) as rows:
        decoding = _Decoding(rows, max_new_tokens, stops, temperature, seed)
        plan = batches.plan(model, ids, rows.depth, new=max_new_tokens, batch=batch)
        plan = rows.run(decoding.run, plan)
    texts = [model.tokenizer.decode(tokens, skip_special_tokens=True) for tokens in decoding.new]
    dose = rows.touched.doses(len(ids)).tolist()
    return Decoded(texts, [len(tokens) for tokens in decoding.new], rows.touched, plan, dose)


class _Decoding:
    """One call of `decode`: the tokens of all rows, filled batch by batch."""

    def __init__(
        self,
        rows: Rows,
        steps: int,
        stops: "_Stops",
        temperature: float,
        seed: int | Sequence[int],
    ):
        self.rows, self.steps, self.stops, self.temperature = rows, steps, stops, temperature
        self.new: list[list[int]] = [[] for _ in rows.ids]
        # One number for each row and step, so that what is sampled does not depend on the batches.
        self.chances: Tensor | None = None
        if temperature:
            self.chances = _chances(len(rows.ids), steps, seed)

    def run(self, rows: Sequence[int]) -> None:
        """Fill in the new tokens of some rows; a row that has ended leaves the batch and its
        cache."""
        device = self.rows.model.device
        numbers = torch.tensor(rows, device=device)
        made = torch.full((len(rows), self.steps), -1, device=device)
        active = torch.arange(len(rows), device=device)  # of the rows, those still in the batch
        # Of the batch: the rows that have not ended, and those that have said more than spaces.
        live = torch.ones(len(rows), dtype=torch.bool, device=device)
        begun = ~live
        logits, batch = self.rows.forward(rows, room=self.steps)
        logits = logits[:, -1]
        for step in range(self.steps):
            chosen = self._choose(logits, numbers[active], step)
            going = live & ~self.stops.end[chosen]
            made[active, step] = torch.where(going, chosen, -1)
            if self.stops.one_line:
                begun = begun | ~self.stops.blank[chosen]
                going = going & ~(self.stops.line[chosen] & begun)
            live = going
            left = int(live.sum())
            if not left or step + 1 == self.steps:
                break
            if len(live) - left >= max(1, LEAVE * len(live)):
                keep = live.nonzero()[:, 0]
                active, begun, chosen = active[keep], begun[keep], chosen[keep]
                live = live[keep]
                batch.take(keep)
            logits = batch.step(chosen, None if left == len(live) else live)
        for row, tokens in zip(rows, made.tolist(), strict=True):
            self.new[row] = [token for token in tokens if token >= 0]

    def _choose(
        self, logits: Float[Tensor, "row vocab"], numbers: Int[Tensor, " row"], step: int
    ) -> Int[Tensor, " row"]:
        """The next token of each of the rows of these numbers."""
        best, chosen = _largest(logits)
        if not torch.isfinite(best).all():
            raise SteerlabError(
                "the model's logits hold NaN or infinity; its weights are broken, or the edit is "
                "too strong"
            )
        if self.chances is None:
            return chosen
        # By the inverse of the distribution function. Its end is 1 only up to rounding, so that the
        # chance is taken as a share of it.
        share = torch.softmax(logits.float() / self.temperature, -1).cumsum(-1)
        chance = self.chances[numbers.cpu(), step].to(share.device)[:, None] * share[:, -1:]
        return torch.searchsorted(share, chance, right=True)[:, 0].clamp(max=logits.shape[1] - 1)


def _chances(rows: int, steps: int, seed: int | Sequence[int]) -> Float[Tensor, "row step"]:
    """Numbers from 0 to 1: of one seed for all rows, or of a seed for each."""
    if isinstance(seed, int):
        return torch.rand(rows, steps, generator=torch.Generator().manual_seed(seed))
    return torch.stack(
        [torch.rand(steps, generator=torch.Generator().manual_seed(each)) for each in seed]
    )


def _largest(
    logits: Float[Tensor, "row vocab"],
) -> tuple[Float[Tensor, " row"], Int[Tensor, " row"]]:
    """The largest logit of each row and its first index, as `max` gives them, in less time on a
    CPU."""
    rows, size = logits.shape
    if rows < 16 or size % 128:
        best, chosen = logits.max(-1)
        return best, chosen
    # Of parts of the vocabulary the largest values alone run fast; `max` with its index need then
    # look at one part only.
    parts = rearrange(logits, "row (part token) -> row part token", token=128)
    part = parts.amax(-1).argmax(-1)
    best, index = parts[torch.arange(rows, device=logits.device), part].max(-1)
    return best, part * 128 + index


@dataclass(frozen=True)
class _Stops:
    """For every token of the vocabulary: does it end the text, hold a line break, hold nothing
    but space?"""

    end: Bool[Tensor, " vocab"]
    line: Bool[Tensor, " vocab"]
    blank: Bool[Tensor, " vocab"]
    one_line: bool

    @classmethod
    def of(cls, model: Model, *, one_line: bool) -> "_Stops":
        """Looked up once for a model, as decoding a whole vocabulary takes its time."""
        cached: dict[Any, _Stops] = model.__dict__.setdefault("_stops", {})
        key = (one_line, frozenset(model.ends), model.device)
        if key not in cached:
            size = max(len(model.tokenizer), int(model.vocabulary))
            end, line, blank = (torch.zeros(size, dtype=torch.bool) for _ in range(3))
            end[[token for token in model.ends if token < size]] = True
            if one_line:
                texts = model.tokenizer.batch_decode([[i] for i in range(len(model.tokenizer))])
                for token, text in enumerate(texts):
                    line[token], blank[token] = "\n" in text, not text.strip()
            cached[key] = cls(
                end.to(model.device), line.to(model.device), blank.to(model.device), one_line
            )
        return cached[key]
