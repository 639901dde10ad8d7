"""Random generators: one stream for each purpose and seed."""

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def generator(purpose: str, seed: int) -> "torch.Generator":
    """A random generator for one purpose and seed, independent of those of all other purposes.

    Formula: it is seeded with the first 63 bits of the SHA-256 of "purpose seed". (Adding the seed
    to a number of the purpose's own would not do: seed k + 1 of one purpose could then equal seed
    k of another.)

    Args:
        purpose: a word for what is drawn, such as "random control".
        seed: the user's seed.
    """
    import torch  # here, so that importing this module does not take the second that torch takes

    return torch.Generator().manual_seed(derived(purpose, seed))


def derived(purpose: str, seed: int) -> int:
    """A seed of 63 bits for one purpose, made of the user's as `generator` does."""
    digest = hashlib.sha256(f"{purpose} {seed}".encode()).digest()
    # `manual_seed` takes signed 64-bit numbers: shift the sign bit away.
    return int.from_bytes(digest[:8], "big") >> 1
