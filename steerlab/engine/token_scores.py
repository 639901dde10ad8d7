"""How likely tokens are where they stand, and what would have been likelier."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class TokenScore:
    """A token, and what the model thought of it.

    Args:
        token: its number.
        logprob: the natural logarithm of its probability, before any temperature; None for the
            first token of a text, which nothing predicts.
        likeliest: the likeliest tokens at its place, with theirs, from the likeliest on.
    """

    token: int
    logprob: float | None
    likeliest: tuple[tuple[int, float], ...] = ()


@torch.inference_mode()
def token_scores(
    logits: Float[Tensor, "pos vocab"], tokens: Sequence[int], likeliest: int
) -> list[TokenScore]:
    """The score of each token by the logits at the position before it.

    Args:
        logits: of the positions before the tokens.
        tokens: one for each position.
        likeliest: how many of the likeliest tokens are told beside each.
    """
    logprobs = logits.float().log_softmax(-1)
    given = torch.tensor(list(tokens), device=logits.device)
    own = logprobs.gather(-1, given[:, None])[:, 0].tolist()
    best, numbers = logprobs.topk(min(likeliest, logprobs.shape[-1]), dim=-1)
    return [
        TokenScore(token, logprob, tuple(zip(others, theirs, strict=True)))
        for token, logprob, others, theirs in zip(
            tokens, own, numbers.tolist(), best.tolist(), strict=True
        )
    ]
