"""Random generators: one stream for each purpose and seed."""

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def generator(purpose: str, seed: int) -> "torch.Generator":
    """A generator of its own for each purpose and seed: what one purpose draws is no other's,
    whatever their seeds.

    Formula: the first 63 bits of the SHA-256 of "purpose seed". A seed added to a number of the
    purpose's own would make seed k + 1 of one purpose seed k of another.
    """
    import torch  # here, for the words of this module need no second's wait

    digest = hashlib.sha256(f"{purpose} {seed}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
