"""What a judge is given, and what it is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable


@dataclass(frozen=True)
class Answer:
    """An output and what it came from: the prompt as the model read it, and the question or
    sentence in it."""

    output: str
    prompt: str
    question: str
    sentence: int  # its number in the corpus' files
    source: str
    target: str
    language: str = ""  # that the output is in, once it is identified


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
