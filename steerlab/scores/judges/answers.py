"""What a judge is given, and what it is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable


@dataclass(frozen=True)
class Answer:
    """An output of a model, and what it came from.

    Args:
        output: what the model wrote.
        prompt: the whole prompt, as the model read it.
        question: the question or sentence in the prompt.
        sentence: the number of the question or sentence in the corpus' files.
        source: the code of the language that the question is in.
        target: the code of the language that the model was steered to.
        language: the code of the language that the output is in; "" until it is identified.
    """

    output: str
    prompt: str
    question: str
    sentence: int
    source: str
    target: str
    language: str = ""


@runtime_checkable
class Judge(Protocol):
    """Rates what outputs say, whatever language they say it in.

    `name` tells apart any two judges that might rate differently: it goes into manifests and
    decides which scores may stand in one folder.
    """

    # For type checkers only: `isinstance` of Python 3.11 would ask the object for its `name`, and
    # to name themselves some judges load a model.
    if TYPE_CHECKING:

        @property
        def name(self) -> str: ...

    def rate(self, answers: Sequence[Answer]) -> Mapping[str, Any]:
        """Columns with one value for each answer: `rating` from 0 to 1, NaN where there is none,
        and others of the judge's own."""
