"""How far two models are apart in what they say next."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Apart:
    """How far a model with changed weights is from the same model under hooks, on some texts.

    Args:
        nats: the Kullback-Leibler divergence of the next token, from the hooked to the changed
            model; the mean over positions.
        other: the share of positions at which another token is likeliest.
        largest: the largest difference of a logit, over the standard deviation of logits.
        positions: how many were compared.
    """

    nats: float
    other: float
    largest: float
    positions: int

    def __str__(self) -> str:
        return (
            f"{self.nats:.3g} nats a token, another likeliest token at {self.other:.1%} of "
            f"{self.positions} positions, logits up to {self.largest:.2g} standard deviations away"
        )
