"""Equality by content, for values that hold tensors and arrays."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any


def by_content(one: Any, other: Any) -> Any:
    """The `__eq__` of a dataclass that holds tensors: equal where the classes are one and all
    fields are `same`.

    A class that takes it has no hash: a tensor can change in place, and a set would not find it
    again.
    """
    if type(one) is not type(other):
        return NotImplemented
    return all(same(getattr(one, each.name), getattr(other, each.name)) for each in fields(one))


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal, and so are all tensors and arrays in them: never raises, and
    NaN is NaN.

    Tensors are equal in shape, dtype and numbers, on whatever device they lie.
    """
    import numpy as np
    import torch

    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        if (one.shape, one.dtype) != (other.shape, other.dtype):
            return False
        return torch.allclose(one.cpu(), other.cpu(), rtol=0, atol=0, equal_nan=True)
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(
            same(value, other[key]) for key, value in one.items()
        )
    if isinstance(one, list | tuple) and type(one) is type(other):
        if len(one) != len(other):
            return False
        return all(same(*both) for both in zip(one, other, strict=True))
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return np.array_equal(one, other)
    arrays = (torch.Tensor, np.ndarray)  # whose == gives no single answer
    return not isinstance(one, arrays) and not isinstance(other, arrays) and bool(one == other)
