"""A vector for each word type, over all places where texts have it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from steerlab.core.errors import SteerlabError


@dataclass(frozen=True, eq=False)
class WordVectors:
    """The mean vector of each word of a list, `[word layer width]`, and how often it was read.

    Args:
        words: the words that some text holds.
        vectors: of each.
        count: in how many places it was read.
        layers: the layers, in the order of the tensors.
        site: where in a layer.
        provenance: what made them.
        absent: the words that no text holds.
    """

    words: tuple[str, ...]
    vectors: Float[Tensor, "word layer width"]
    count: Int[Tensor, " word"]
    layers: tuple[int, ...]
    site: str = "resid_post"
    provenance: Mapping[str, Any] = field(default_factory=dict)
    absent: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.words:
            listed = ", ".join(self.absent[:5])
            raise SteerlabError(f"no text holds any of the words {listed} ...; give other texts")
        if not torch.isfinite(self.vectors).all():
            raise SteerlabError("the vectors of words hold NaN or infinity")
