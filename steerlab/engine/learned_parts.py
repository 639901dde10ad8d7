"""What can be learnt under a frozen model: a vector, a code of an SAE, a direction that scales
itself; each with the function that acts on the activations."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import final

from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from steerlab.models.positions import HookFn, Positions
from steerlab.sae import SAE

TOP, SPARSE = 8, 0.005  # of ReFT-r1: positions that count, and the price of the others


@dataclass
class Learnt(ABC):
    """Numbers that are learnt, and what they do.

    Args:
        value: the numbers.
        penalty: what the last pass adds to the loss of each row; 0 where nothing is.
    """

    value: Float[Tensor, " number"]
    penalty: Tensor | float = 0.0

    @abstractmethod
    def added(
        self, h: Float[Tensor, "row pos width"], positions: Positions, signs: Float[Tensor, " row"]
    ) -> Float[Tensor, "row pos width"]:
        """What is added to h, in float32, before places that are no text are left out."""

    @abstractmethod
    def vector(self) -> Float[Tensor, " width"]:
        """The vector of the residual stream that the numbers stand for."""

    def hook(self, signs: Float[Tensor, " row"]) -> HookFn:
        """The function to attach, each row's with a sign of its own."""

        def push(h: Tensor, positions: Positions) -> Tensor:
            change = self.added(h.float(), positions, signs)
            is_text = rearrange(positions.text, "row pos -> row pos 1")
            return h + (change * is_text).to(h.dtype)

        return push


@final
@dataclass
class Vector(Learnt):
    """h + s v (BiPO)."""

    def added(self, h: Tensor, positions: Positions, signs: Tensor) -> Tensor:
        return signs[:, None, None] * self.value.expand(1, 1, -1)

    def vector(self) -> Tensor:
        return self.value


@final
@dataclass
class Code(Learnt):
    """h + Dec(relu(z + s v)) - Dec(z), z = Enc(h): the error of the reconstruction stays (YaPO)."""

    sae: SAE = field(kw_only=True)

    def added(self, h: Tensor, positions: Positions, signs: Tensor) -> Tensor:
        latents = self.sae.encode(h.detach())
        moved = (latents + signs[:, None, None] * self.value).relu()
        return (moved - latents) @ self.sae.W_dec

    def vector(self) -> Tensor:
        return self.value @ self.sae.W_dec


@final
@dataclass
class Rank1(Learnt):
    """h + m w, w of length 1, m the mean of the row's TOP largest relu(h·w) (ReFT-r1)."""

    def added(self, h: Tensor, positions: Positions, signs: Tensor) -> Tensor:
        unit = self.vector()
        found = (h @ unit).relu() * positions.text
        top = found.topk(min(TOP, found.shape[1]), dim=1).values.sum(1)
        self.penalty = SPARSE * (found.sum(1) - top) / positions.text.sum(1).clamp(min=1)
        return signs[:, None, None] * rearrange(top / TOP, "row -> row 1 1") * unit

    def vector(self) -> Tensor:
        return self.value / self.value.norm().clamp(min=1e-30)
