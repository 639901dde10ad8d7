"""What a model said: as a whole, and token by token."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from steerlab.core.discovery import language_of
from steerlab.core.display import View, card


@dataclass(frozen=True)
class Token:
    """One generated token, and what stood behind it; `engine.token_stream.stream` gives them.

    Args:
        text: what it adds to the output. A character of several tokens comes with its last one, and
            the others have "".
        id: its number in the vocabulary.
        probability: the share that the model gave it, at temperature 1.
        lang: the language with the most votes; None where no language has at least
            `engine.token_stream.LEAST_VOTE`.
        votes: how much of the probability lay on each language's own tokens where this token was
            chosen (`engine.token_lexicon.Lexicon`).
        projection: where the activations that it was chosen from lie along a direction, in natural
            gaps: 0 at the source's mean. None without a direction.
        index: its number in the output, from 0.
    """

    text: str
    id: int
    probability: float
    lang: str | None
    votes: Mapping[str, float] = field(default_factory=dict)
    projection: float | None = None
    index: int = 0


class Output(str):
    """A continuation: a string that knows its prompt and by how much the model was moved, and that
    shows both in a notebook.

    Attributes:
        prompt: what it continues.
        dose: how far the edit moved the residual stream, over its length (`EditStats`); 0 without
            an edit, and NaN where one was on already, by `edit.on`, which counts it itself.
    """

    prompt: str
    dose: float

    def __new__(cls, text: str, prompt: str = "", dose: float = 0.0) -> "Output":
        made = super().__new__(cls, text)
        made.prompt = prompt
        made.dose = dose
        return made

    @property
    def lang(self) -> str:
        """The language that it is in, by the package's identifier; "none" for no text."""
        return language_of([str(self)])[0]

    def _repr_html_(self) -> str:
        return _shown([self])


class Outputs(list[Output]):
    """Continuations in the order of their prompts: a list of strings that shows itself as a
    table."""

    def _repr_html_(self) -> str:
        return _shown(self)


def _shown(outputs: Iterable[Output]) -> str:
    listed = list(outputs)
    langs = language_of([str(each) for each in listed])
    rows: list[tuple[Any, ...]] = [
        (each.prompt.strip(), each.strip(), lang, "–" if math.isnan(each.dose) else each.dose)
        for each, lang in zip(listed, langs, strict=True)
    ]
    return card(View("", "", head=("prompt", "output", "language", "dose"), rows=rows))
