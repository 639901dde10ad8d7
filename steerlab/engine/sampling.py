"""The next token of each row: the likeliest, or one that is drawn."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from steerlab.core.errors import SteerlabError
from steerlab.engine.inputs import need_count

_TINY, _TINIEST = 1e-3, 1e-30  # temperatures


def need_settings(max_new_tokens: Any, temperature: Any, top_p: Any = 1.0) -> None:
    """Raise `SteerlabError` for settings with which nothing can be generated, and for a `top_p` of
    what is not sampled, which would change nothing."""
    # So that NaN is refused too.
    if not isinstance(temperature, int | float) or not 0 <= temperature < math.inf:
        raise SteerlabError(f"temperature is {temperature!r}; give 0 (greedy) or more")
    if not isinstance(top_p, int | float) or not 0 < top_p <= 1:
        raise SteerlabError(
            f"top_p is {top_p!r}; give a share of the probability above 0, and at most 1 (all)"
        )
    if top_p < 1 and not temperature:
        raise SteerlabError(
            f"top_p is {top_p}, and at temperature 0 nothing is sampled; give a temperature above "
            "0, or leave top_p out"
        )
    need_count("max_new_tokens", max_new_tokens)


def choose(
    logits: Float[Tensor, "row vocab"],
    temperature: float,
    chances: Float[Tensor, " row"] | None,
    top_p: float = 1.0,
) -> Int[Tensor, " row"]:
    """The next token of each row: the likeliest, or one sampled by a random number of each row.

    Args:
        logits: of every token, in each row.
        temperature: what they are divided by before one is sampled.
        chances: the random numbers, from 0 to 1; None takes the likeliest.
        top_p: of what is then left, the likeliest tokens that together have this share are sampled
            from (`nucleus`).
    """
    best, chosen = _largest(logits)
    # The largest alone tells: it is NaN if any logit is, as `max` passes NaN on.
    if not torch.isfinite(best).all():
        raise SteerlabError(
            "the model's logits hold NaN or infinity; its weights are broken, or the edit is "
            "too strong"
        )
    if chances is None:
        return chosen
    # Sampling by the inverse of the distribution function: the first token at which the running
    # sum of probabilities exceeds a random number. The sum's end is 1 only up to rounding, so
    # that the random number is taken as a share of it.
    logits = logits.float()
    if temperature < _TINY:  # over it a logit would overflow; less the largest none does
        logits = logits - logits.max(-1, keepdim=True).values
    shares = torch.softmax(logits / max(temperature, _TINIEST), -1)
    if top_p < 1:
        shares = shares.where(nucleus(logits, shares, top_p), 0)
    running = shares.cumsum(-1)
    threshold = rearrange(chances.to(running.device), "row -> row 1") * running[:, -1:]
    sampled = torch.searchsorted(running, threshold, right=True)[:, 0]
    return sampled.clamp(max=logits.shape[1] - 1)


def nucleus(
    logits: Float[Tensor, "row vocab"], shares: Float[Tensor, "row vocab"], top_p: float
) -> Bool[Tensor, "row vocab"]:
    """Which tokens nucleus sampling keeps: the fewest of the likeliest whose shares reach `top_p`.

    Source: Holtzman et al. 2020, "The curious case of neural text degeneration".
    """
    # By the logits, since shares may round to equal ones; of equals the first comes first, which
    # is the one that greedy decoding takes.
    order = logits.sort(dim=-1, descending=True, stable=True).indices
    running = shares.gather(-1, order).cumsum(-1)
    # A token is kept while those before it do not reach `top_p`; so the first one always is.
    kept = torch.ones_like(order, dtype=torch.bool)
    kept[:, 1:] = running[:, :-1] < top_p
    return torch.zeros_like(kept).scatter(-1, order, kept)


def uniform(rows: int, steps: int, seed: int | Sequence[int]) -> Float[Tensor, "row step"]:
    """Random numbers from 0 to 1: of one seed for all rows, or of a seed for each."""
    # Drawn on the CPU, whose generator gives the same numbers on every machine.
    if isinstance(seed, int):
        return torch.rand(rows, steps, generator=torch.Generator().manual_seed(seed))
    return torch.stack(
        [torch.rand(steps, generator=torch.Generator().manual_seed(each)) for each in seed]
    )


def _largest(
    logits: Float[Tensor, "row vocab"],
) -> tuple[Float[Tensor, " row"], Int[Tensor, " row"]]:
    """The largest logit of each row and its first index: what `max` gives, in less time on a
    CPU."""
    rows, size = logits.shape
    if rows < 16 or size % 128:
        # For few rows the detour costs more than it saves.
        best, chosen = logits.max(-1)
        return best, chosen
    # `amax`, without an index, runs vectorised. So the part of the vocabulary with the largest
    # value is found by it, and `max`, which gives the index, then reads only that part.
    parts = rearrange(logits, "row (part token) -> row part token", token=128)
    part = parts.amax(-1).argmax(-1)
    best, index = parts[torch.arange(rows, device=logits.device), part].max(-1)
    return best, part * 128 + index
