"""Cached, batched decoding under an edit: rows that share a prompt run it once, and rows that
have ended leave."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

import steerlab.engine.batching as batches
from steerlab.core.errors import SteerlabError
from steerlab.edits import Edit, EditStats
from steerlab.engine.prompts import encode, pad
from steerlab.models.branching import branch
from steerlab.models.huggingface import Model
from steerlab.models.kv_cache import keep_rows
from steerlab.models.loading import load

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
    longest = max(map(len, ids), default=0) + max_new_tokens
    if longest > model.context:
        raise SteerlabError(
            f"a prompt of {longest - max_new_tokens} tokens and {max_new_tokens} new ones make "
            f"{longest}; {model.name} "
            f"was made for {model.context}: shorten the prompt or max_new_tokens"
        )
    stacked = edit is not None and edit.rows is not None
    if edit is not None and stacked and edit.rows != len(ids):
        raise SteerlabError(
            f"there are {len(ids)} prompts and the stack has {edit.rows} edits; give each prompt "
            "one"
        )
    depth = edit.joins(range(len(ids)), model.n_layers) if edit else [0] * len(ids)
    plan = batches.plan(model, ids, depth, new=max_new_tokens, batch=batch)
    decoding = _Decoding(
        model, ids, max_new_tokens, _Stops.of(model, one_line=one_line), temperature, seed
    )
    if stacked and model.branches and not model.attachments:
        decoding.depth = depth
    with edit.on(model) if edit else nullcontext(EditStats()) as touched:
        plan = batches.run(plan, decoding.run, touched.mark, touched.undo)
    texts = [model.tokenizer.decode(tokens, skip_special_tokens=True) for tokens in decoding.new]
    dose = touched.doses(len(ids)).tolist() if edit else [0.0] * len(ids)
    return Decoded(texts, [len(tokens) for tokens in decoding.new], touched, plan, dose)


class _Decoding:
    """One call of `decode`: the tokens of all rows, filled batch by batch."""

    def __init__(
        self,
        model: Model,
        ids: list[list[int]],
        steps: int,
        stops: "_Stops",
        temperature: float,
        seed: int | Sequence[int],
    ):
        self.model, self.ids, self.steps, self.stops, self.temperature = (
            model,
            ids,
            steps,
            stops,
            temperature,
        )
        self.new: list[list[int]] = [[] for _ in ids]
        self.depth: Sequence[int] | None = (
            None  # where rows join the prompt that they share; None: each runs its own
        )
        # one number for each row and step, so that what is sampled does not depend on the batches
        self.chances = None
        if temperature:
            self.chances = _chances(len(ids), steps, seed)

    def run(self, rows: Sequence[int]) -> None:
        """Fill in the new tokens of some rows; a row that has ended leaves the batch and its
        cache."""
        model = self.model
        prompts, joined = [self.ids[row] for row in rows], None
        if self.depth is not None:
            prompts, joined = branch(prompts, [self.depth[row] for row in rows], rows, model.device)
        names = torch.tensor(rows, device=model.device) if joined is None else joined.names
        feed, mask = pad(prompts, model.tokenizer.pad_token_id, model.device)
        made = torch.full((len(rows), self.steps), -1, device=model.device)
        active = torch.arange(
            len(rows), device=model.device
        )  # of the rows, those still in the batch
        live = torch.ones(
            len(rows), dtype=torch.bool, device=model.device
        )  # of the batch, those that have not ended
        said = ~live
        try:
            model.rows = (
                names if joined is None else torch.full((len(prompts),), -1, device=model.device)
            )
            logits, past = model.forward(feed, mask, last=True, room=self.steps, branch=joined)
            mask = mask if joined is None else mask[joined.parent]
            for step in range(self.steps):
                chosen = self._choose(logits[:, -1], names[active], step)
                going = live & ~self.stops.end[chosen]
                made[active, step] = torch.where(going, chosen, -1)
                if self.stops.one_line:
                    said = said | ~self.stops.blank[chosen]
                    going = going & ~(self.stops.line[chosen] & said)
                live = going
                left = int(live.sum())
                if not left or step + 1 == self.steps:
                    break
                if len(live) - left >= max(1, LEAVE * len(live)):
                    keep = live.nonzero()[:, 0]
                    active, live, said, mask, chosen = (
                        part[keep] for part in (active, live, said, mask, chosen)
                    )
                    keep_rows(past, keep)
                    model.rows = names[active]
                elif not step:
                    model.rows = names
                model.live = None if left == len(live) else live
                mask = torch.cat([mask, mask.new_ones(len(live), 1)], 1)
                logits, past = model.forward(chosen[:, None], mask, past=past, last=True)
        finally:
            model.rows = model.live = None
        for name, tokens in zip(names.tolist(), made.tolist(), strict=True):
            self.new[name] = [token for token in tokens if token >= 0]

    def _choose(
        self, logits: Float[Tensor, "row vocab"], names: Tensor, step: int
    ) -> Int[Tensor, " row"]:
        best, chosen = _largest(logits)
        if not torch.isfinite(best).all():
            raise SteerlabError(
                "the model's logits hold NaN or infinity; its weights are broken, or the edit is "
                "too strong"
            )
        if self.chances is None:
            return chosen
        share = torch.softmax(logits.float() / self.temperature, -1).cumsum(-1)
        chance = self.chances[names.cpu(), step].to(share.device)[:, None] * share[:, -1:]
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
    """The largest logit of each row and its first place, as `max` gives them, in less time on a
    CPU."""
    rows, size = logits.shape
    if rows < 16 or size % 128:
        best, chosen = logits.max(-1)
        return best, chosen
    parts = logits.reshape(rows, -1, 128)
    part = parts.amax(-1).argmax(-1)
    best, place = parts[torch.arange(rows, device=logits.device), part].max(-1)
    return best, part * 128 + place


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
        known: dict[Any, _Stops] = model.__dict__.setdefault("_stops", {})
        key = (one_line, frozenset(model.ends), model.device)
        if key not in known:
            size = max(len(model.tokenizer), int(model.vocabulary))
            end, line, blank = (torch.zeros(size, dtype=torch.bool) for _ in range(3))
            end[[token for token in model.ends if token < size]] = True
            if one_line:
                texts = model.tokenizer.batch_decode([[i] for i in range(len(model.tokenizer))])
                for token, text in enumerate(texts):
                    line[token], blank[token] = "\n" in text, not text.strip()
            known[key] = cls(
                end.to(model.device), line.to(model.device), blank.to(model.device), one_line
            )
        return known[key]
