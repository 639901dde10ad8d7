"""What a user's function asks for: its parameters without a default."""

import inspect
from collections.abc import Callable, Iterable
from typing import Any

BY_PLACE = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def needed(
    function: Callable[..., Any], kinds: Iterable[Any] = BY_PLACE
) -> list[inspect.Parameter] | None:
    """The parameters of some kinds that have no default, by default those that are given by their
    place; None where a function does not say, as some that are written in C.

    One with a default is the function's own, as in `lambda h, scale=2.0: scale * h`.
    """
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    return [each for each in parameters if each.default is each.empty and each.kind in set(kinds)]
