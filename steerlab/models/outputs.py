"""What a module gives: the activations alone, or first among others."""

from typing import Any

from torch import Tensor


def first_of(out: Any) -> Any:
    """The activations."""
    return out[0] if isinstance(out, tuple | list) else out


def with_first(out: Any, new: Tensor) -> Any:
    """The same with other activations."""
    if isinstance(out, list):
        return [new, *out[1:]]
    if hasattr(out, "_make"):  # a tuple whose items have names
        return out._make((new, *out[1:]))
    return (new, *out[1:]) if isinstance(out, tuple) else new
