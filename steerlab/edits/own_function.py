"""A user's own function as the function of a part: how it is called, and what it may return."""

import functools
import inspect
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from types import FunctionType
from typing import Any

import torch
from torch import Tensor

from steerlab.core.errors import SteerlabError
from steerlab.core.parameters import needed
from steerlab.edits.digest import Unreadable, function_digest

_ARGUMENTS = "(h), (h, tensors) or (h, tensors, positions)"


@dataclass(frozen=True, eq=False)
class OwnFunction:
    """A function that is called with as many of (h, tensors, positions) as it takes, and whose
    result is checked.

    Two are equal if they had the same source and values when they were read; a function that
    stands for its `name` alone is equal to itself only.
    """

    function: Callable[..., Tensor]
    name: str
    takes: int
    digest: str
    readable: bool  # whether the digest is of the source and its values, not of the name

    @classmethod
    def of(cls, function: Callable[..., Tensor], name: str | None = None) -> "OwnFunction":
        """Reads the function; one that cannot be read needs a name."""
        if not callable(function):
            raise SteerlabError(
                f"an edit is made of a function of {_ARGUMENTS}, not of {type(function).__name__}"
            )
        label = _name_of(function) if name is None else name
        takes = _count_arguments(function, label)
        try:
            return cls(function, label, takes, function_digest(function), readable=True)
        except Unreadable as error:
            if name is None:
                raise SteerlabError(
                    f"what {label} does cannot be read ({error}), and so it has no digest that "
                    "tells it from others: give name=, another one for each function that does "
                    "something else"
                ) from error
            return cls(function, label, takes, f"name {name}", readable=False)

    def __call__(self, h: Tensor, tensors: Mapping[str, Tensor], positions: Any) -> Tensor:
        """What is added to h; a result that cannot be added raises and names the function."""
        added = self.function(*(h, tensors, positions)[: self.takes])
        if not isinstance(added, Tensor):
            raise SteerlabError(
                f"{self.name} returned {type(added).__name__}; return what is added to h, a tensor"
            )
        if added.dtype != h.dtype:
            raise SteerlabError(
                f"{self.name} returned {_short(added.dtype)}, and h is {_short(h.dtype)} whatever "
                f"the model computes in; return {_short(h.dtype)} too"
            )
        if added.ndim == 1:
            added = added[None, None]
        # A missing axis is not guessed: [row width] would be read as [pos width] where the two
        # are equally many.
        allowed = [(1, size) for size in h.shape[:2]] + [(h.shape[2],)]
        if added.ndim != 3 or any(
            size not in sizes for size, sizes in zip(added.shape, allowed, strict=True)
        ):
            raise SteerlabError(
                f"{self.name} returned the shape {list(added.shape)}, and h has {list(h.shape)} "
                "(row, pos, width); return that shape, with 1 in the place of row or pos where all "
                "of them get the same"
            )
        broken = ~added.isfinite().all(-1) & h.isfinite().all(-1)
        if positions is not None:
            broken = broken & positions.text  # padding may hold anything
        if broken.any():
            raise SteerlabError(
                f"{self.name} returned NaN or infinity at {int(broken.sum())} of "
                f"{broken.numel()} positions, where h is finite; return finite numbers"
            )
        return added

    @property
    def identity(self) -> Hashable:
        """What two functions share that do the same now and later, whatever happens to their
        values: the code, and the very variables that it uses.

        So the lambdas of one loop run together in a stack, and those of two closures do not, even
        if their values are equal now.
        """
        function = self.function
        if not isinstance(function, FunctionType):
            return id(function)
        defaults = (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values())
        used = (*(function.__closure__ or ()), *defaults, function.__globals__)
        return (function.__code__, *map(id, used))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, OwnFunction):
            return NotImplemented
        if self.readable and other.readable:
            return self.digest == other.digest
        return self.function is other.function and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)


def _count_arguments(function: Callable[..., Tensor], name: str) -> int:
    """How many of (h, tensors, positions) a function takes."""
    # A module's own __call__ takes anything and hands it to `forward`.
    called = function.forward if isinstance(function, torch.nn.Module) else function
    positional = needed(called)
    if positional is None:  # functions written in C have no signature, such as torch.relu
        return 1
    others = needed(called, [inspect.Parameter.KEYWORD_ONLY])
    if others or not 1 <= len(positional) <= 3:
        raise SteerlabError(
            f"{name} takes {inspect.signature(called)}; a function of an edit takes {_ARGUMENTS}, "
            "and other parameters have defaults"
        )
    return len(positional)


def _name_of(function: Callable[..., Tensor]) -> str:
    if isinstance(function, functools.partial):
        return _name_of(function.func)
    return getattr(function, "__name__", type(function).__name__)


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
