"""Reference retrieval: an output is relevant if it is nearer to its own reference than to other
sentences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from steerlab.core.corpus import Corpus
from steerlab.scores.chrf import relevance
from steerlab.scores.judges.answers import Answer
from steerlab.scores.judges.places import places

DISTRACTORS = 31


@dataclass(frozen=True)
class Retrieval:
    """Rates 1 where chrF finds the own reference, in the language that the output is in, among
    32; chance is 1/32."""

    references: Corpus

    @property
    def name(self) -> str:
        return f"retrieval among {DISTRACTORS + 1} of {self.references.hash}"

    def rate(self, answers: Sequence[Answer]) -> Mapping[str, Any]:
        """`rating` [answer] of 0 or 1, and `chrf` [answer] from 0 to 100 to the own reference."""
        relevant, chrf = relevance(
            [answer.output for answer in answers],
            [answer.language for answer in answers],
            places(self.references, answers),
            self.references.lines,
            distractors=DISTRACTORS,
        )
        return {"rating": relevant.astype(float), "chrf": chrf}
