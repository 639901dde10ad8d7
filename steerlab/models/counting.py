"""Counting the tokens that a model reads, whoever has it read them."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from jaxtyping import Bool
from torch import Tensor

from steerlab.core.costs import Cost
from steerlab.models.model import Model


class Count:
    """The tokens and seconds since a `with counted(model)` began."""

    def __init__(self) -> None:
        self.tokens = 0
        self.seconds = 0.0

    def add(self, real: Bool[Tensor, "row pos"]) -> None:
        """The tokens of one pass, which are padding where not `real`."""
        self.tokens += int(real.sum())

    @property
    def cost(self) -> Cost:
        """Both, once the `with` is over."""
        return Cost(self.seconds, self.tokens)


@contextmanager
def counted(model: Model) -> Iterator[Count]:
    """Count what the model reads for the length of a `with`, and how long it takes.

    A token counts in each pass that it is in: one behind a cache once, a beginning that rows share
    once for all of them, one of a pass that gradients go back through once as well. Passes that
    somebody else begins, as `hf.generate`, are not seen.

    Args:
        model: what reads.
    """
    count = Count()
    begun = time.perf_counter()
    model.counts.append(count)
    try:
        yield count
    finally:
        model.counts.remove(count)
        count.seconds = time.perf_counter() - begun
