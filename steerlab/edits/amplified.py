"""What is made of two models' logits, the edited one's and the plain one's: rules as values, and
their formulas."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from steerlab.core.errors import SteerlabError
from steerlab.core.settings import need_finite
from steerlab.core.sources import Source

# The rules, and where they come from.
RULES = {
    "kl": Source(cites=("hu2025distribution",)),
    "difference": Source(cites=("liu2024tuning",)),
}


@dataclass(frozen=True)
class Amplification:
    """z' = z + μ δ where the edited model gives a token at least `mask` times its largest
    probability, and -∞ elsewhere.

    With p of the edited model, q of the plain one and r = log p - log q, δ is -p (r - E_p[r]), the
    negative gradient of KL(p ‖ q) in the edited logits, for `kl`, and r for `difference`. Where
    p = q, δ is 0.

    Args:
        strength: μ, of either sign.
        rule: kl or difference.
        mask: the share of the largest probability; 0 leaves no token out.
    """

    strength: float
    rule: str = "kl"
    mask: float = 0.1

    def __post_init__(self) -> None:
        need_finite("strength", self.strength)
        if self.rule not in RULES:
            raise SteerlabError(f"rule is {self.rule!r}; give {' or '.join(RULES)}")
        if not 0 <= need_finite("mask", self.mask) <= 1:
            raise SteerlabError(f"mask is {self.mask}; give a share from 0 (none) to 1")


def moves(
    edited: Float[Tensor, "row vocab"], plain: Float[Tensor, "row vocab"], rule: str
) -> Float[Tensor, "row vocab"]:
    """δ of each row, in float32."""
    log_p, log_q = (logits.float().log_softmax(-1) for logits in (edited, plain))
    ratio = log_p - log_q
    if rule == "difference":
        return ratio
    p = log_p.exp()
    return -p * (ratio - (p * ratio).sum(-1, keepdim=True))


def kept(edited: Float[Tensor, "row vocab"], mask: float) -> Bool[Tensor, "row vocab"]:
    """Where the edited model's probability is `mask` times the largest or more."""
    if not mask:
        return torch.ones_like(edited, dtype=torch.bool)
    # Written with logits, so that the largest itself never falls out by rounding.
    most = edited.amax(-1, keepdim=True)
    return edited.float() - most.float() >= torch.tensor(mask).log().to(edited.device)


def amplified_logits(
    edited: Float[Tensor, "row vocab"],
    plain: Float[Tensor, "row vocab"],
    each: Sequence[Amplification],
) -> Float[Tensor, "row vocab"]:
    """The logits to choose from, each row's by a rule of its own."""
    made = edited.float().clone()
    for setting in dict.fromkeys(each):
        rows = [row for row, other in enumerate(each) if other == setting]
        some = edited[rows].float() + setting.strength * moves(
            edited[rows], plain[rows], setting.rule
        )
        # After the sum: a strength below 0 would turn -∞ round.
        made[rows] = some.masked_fill(~kept(edited[rows], setting.mask), -torch.inf)
    return made
