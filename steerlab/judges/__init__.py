"""Judges: whether an output is in its language, and how well it says its own thing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np

from steerlab.judges.retrieval import DISTRACTORS, Retrieval
from steerlab.langid import Identifier
from steerlab.scores import repetition

__all__ = ["DISTRACTORS", "Answer", "Judge", "Retrieval", "score"]


@dataclass(frozen=True)
class Answer:
    """An output and what it came from: the prompt as the model read it, and the question or sentence in it."""

    output: str
    prompt: str
    question: str
    sentence: int  # its number in the corpus' files
    source: str
    target: str
    language: str = ""  # that the output is in, once it is identified


@runtime_checkable
class Judge(Protocol):
    """Rates what outputs say, whatever language they say it in; `name` holds everything that decides a rating."""

    @property
    def name(self) -> str: ...

    def rate(self, answers: Sequence[Answer]) -> Mapping[str, Any]:
        """Columns of one value for each answer: `rating` from 0 to 1, NaN where none could be had, and its own."""


def score(answers: Sequence[Answer], *, identifier: Identifier, judge: Judge) -> dict[str, Any]:
    """Columns of scores, one value for each answer.

    `in_language`: the identifier's first label is the target. `relevant`: the judge gives the full rating, 1.
    `joint`: both, so that the output is in the target language and says its own thing.
    """
    languages = identifier.identify([answer.output for answer in answers])
    read = [replace(answer, language=found) for answer, found in zip(answers, languages, strict=True)]
    rated = dict(judge.rate(read))
    in_language = np.array([answer.language == answer.target for answer in read], dtype=bool)
    relevant = np.asarray(rated["rating"], dtype=float) >= 1
    return {
        "output": [answer.output for answer in read],
        "language": languages,
        "in_language": in_language,
        "relevant": relevant,
        "joint": in_language & relevant,
        **rated,
        "repetition": [repetition(answer.output) for answer in read],
    }
