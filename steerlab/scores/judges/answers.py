"""What a judge is."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from steerlab.scores.answer import Answer as Answer


@runtime_checkable
class Judge(Protocol):
    """Rates what outputs say, whatever language they say it in; `name` holds everything that
    decides a rating."""

    if (
        TYPE_CHECKING
    ):  # `isinstance` of Python 3.11 would ask for it, and a name may take a model to be loaded

        @property
        def name(self) -> str: ...

    def rate(self, answers: Sequence[Answer]) -> Mapping[str, Any]:
        """Columns of one value for each answer: `rating` from 0 to 1, NaN where none could be
        had, and its own."""
