"""Prompts with given answers: their tokens, and the log-probability of each answer, through which a
gradient can run."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from steerlab.core.errors import SteerlabError
from steerlab.engine.inputs import need_room
from steerlab.engine.prompts import encode, pad
from steerlab.models.kv_cache import keep_rows, only_keys
from steerlab.models.model import Model
from steerlab.models.positions import HookFn

Look = tuple[str, int, HookFn]  # (site, layer, function) of what is attached


@dataclass(frozen=True)
class Answered:
    """Rows of tokens, each a prompt and its answer.

    Args:
        ids: the tokens of each row, BOS included.
        lengths: how many of them, at the end, are the answer.
    """

    ids: tuple[tuple[int, ...], ...]
    lengths: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def tokens(self) -> int:
        """How many tokens one pass of all rows reads."""
        return sum(map(len, self.ids))

    @property
    def longest(self) -> int:
        """How many of the last positions predict an answer's token."""
        return max(self.lengths)

    def take(self, rows: Sequence[int]) -> "Answered":
        """These rows, in this order."""
        return Answered(
            tuple(self.ids[row] for row in rows), tuple(self.lengths[row] for row in rows)
        )

    def __add__(self, other: "Answered") -> "Answered":
        return Answered(self.ids + other.ids, self.lengths + other.lengths)


def answered(model: Model, prompts: Sequence[str], answers: Sequence[str]) -> Answered:
    """Prompts with their answers as tokens.

    An answer gets a space before it, unless its prompt ends in space. Raises `SteerlabError` for an
    empty answer and for rows that the model has no room for.
    """
    starts, ends = item_tokens(model, list(zip(prompts, answers, strict=True)))
    rows = Answered(
        tuple((*start, *end) for start, end in zip(starts, ends, strict=True)),
        tuple(map(len, ends)),
    )
    need_room(model, rows.ids)
    return rows


def item_tokens(
    model: Model, pairs: Sequence[tuple[str, str]]
) -> tuple[list[list[int]], list[list[int]]]:
    """The token ids of the prompts, with BOS, and of the answers; an empty answer raises."""
    prompts = encode(model.tokenizer, [prompt for prompt, _ in pairs])
    texts = [answer if prompt[-1:].isspace() else f" {answer}" for prompt, answer in pairs]
    answers = [list(model.tokenizer(text, add_special_tokens=False).input_ids) for text in texts]
    for (prompt, answer), ids in zip(pairs, answers, strict=True):
        if not answer.strip() or not ids:
            raise SteerlabError(
                f"the prompt {prompt[:60]!r} has an empty answer, of which nothing can be a "
                "gradient; give it an answer"
            )
    return prompts, answers


def padded(
    model: Model, rows: Answered
) -> tuple[Int[Tensor, "row pos"], Bool[Tensor, "row pos"], Bool[Tensor, "row pos"]]:
    """(tokens, where there is no padding, where the answer is) of rows in one batch."""
    tokens, mask = pad(rows.ids, model.padding, model.device)
    in_answer = torch.zeros_like(mask)
    for row, length in enumerate(rows.lengths):
        in_answer[row, -length:] = True  # the padding is on the left
    return tokens, mask, in_answer


def answer_log_probs(
    model: Model, rows: Answered, looks: Sequence[Look] = ()
) -> Float[Tensor, " row"]:
    """log p(answer | prompt) of each row, in nats: the sum over the answer's tokens.

    What is attached by `looks` may carry a gradient. The last token predicts nothing, so that it is
    not run.
    """
    tokens, mask, in_answer = padded(model, rows)
    with model.attached(list(looks)):
        logits, _ = model.forward(tokens[:, :-1], mask[:, :-1], last=rows.longest)
    return summed(logits, tokens[:, 1:], in_answer[:, 1:])


def shares_prompts(model: Model) -> bool:
    """Whether two answers can go on from one pass of their prompt, `both_log_probs`: from keys and
    values, that is. Of a state that is written over, as state-space models have, gradients would
    be lost."""
    ids = torch.tensor([[0]], device=model.device)
    with torch.no_grad():
        _, cache = model.forward(ids, torch.ones_like(ids, dtype=torch.bool), last=1, room=1)
    return only_keys(cache)


def both_log_probs(
    model: Model,
    chosen: Answered,
    rejected: Answered,
    looks: Sequence[Look] = (),
    behind: Sequence[Look] = (),
) -> Float[Tensor, "two row"]:
    """log p(answer | prompt) of two answers to each prompt, which is read once for the two.

    Args:
        model: one that `shares_prompts`.
        chosen: rows of one answer.
        rejected: rows of the same prompts with another answer.
        looks: what is attached while the prompts are read.
        behind: what is attached while the answers are: the rows of `chosen`, then of `rejected`.
    """
    prompts = [row[:-length] for row, length in zip(chosen.ids, chosen.lengths, strict=True)]
    prompt, mask = pad(prompts, model.padding, model.device)
    with model.attached(list(looks)):
        first, cache = model.forward(
            prompt, mask, last=1, room=max(chosen.longest, rejected.longest) - 1
        )
    rows = chosen + rejected
    # Behind a shorter answer stands its last token again, which none of its own reads.
    tails = [list(row[-length:]) for row, length in zip(rows.ids, rows.lengths, strict=True)]
    tails = [tail + tail[-1:] * (rows.longest - len(tail)) for tail in tails]
    answers = torch.tensor(tails, device=model.device)
    lengths = torch.tensor(rows.lengths, device=model.device)
    in_answer = torch.arange(rows.longest, device=model.device) < lengths[:, None]
    each = torch.arange(len(prompts), device=model.device).repeat(2)
    chances = summed(first[each], answers[:, :1], in_answer[:, :1])
    if rows.longest > 1:
        keep_rows(cache, each)
        # The last token predicts nothing, so that it is not run.
        seen = torch.cat([mask[each], in_answer[:, 1:]], 1)
        with model.attached(list(behind)):
            logits, _ = model.forward(answers[:, :-1], seen, past=cache)
        chances = chances + summed(logits, answers[:, 1:], in_answer[:, 1:])
    return rearrange(chances, "(two row) -> two row", two=2)


def summed(
    logits: Float[Tensor, "row last vocab"],
    following: Int[Tensor, "row pos"],
    in_answer: Bool[Tensor, "row pos"],
) -> Float[Tensor, " row"]:
    """The log-probability of what follows, added up where `in_answer`; the logits may be of the
    last positions alone."""
    last = logits.shape[1]
    following, in_answer = following[:, -last:], in_answer[:, -last:]
    # Only the answers' logits become float32: with a large vocabulary, all would fill the memory.
    log_chances = -torch.nn.functional.cross_entropy(
        logits[in_answer].float(), following[in_answer], reduction="none"
    )
    by_place = torch.zeros(in_answer.shape, device=logits.device)
    return by_place.masked_scatter(in_answer, log_chances).sum(1)
