"""Reference retrieval: an output is relevant if it is nearer to its own reference than to other sentences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from steerlab.corpora import Corpus
from steerlab.scores import relevance
from steerlab.terms import SteerlabError

if TYPE_CHECKING:
    from steerlab.judges import Answer

DISTRACTORS = 31


@dataclass(frozen=True)
class Retrieval:
    """Rates 1 where chrF finds the own reference, in the language that the output is in, among 32; chance is 1/32."""

    references: Corpus

    @property
    def name(self) -> str:
        return f"retrieval among {DISTRACTORS + 1} of {self.references.hash}"

    def rate(self, answers: Sequence["Answer"]) -> Mapping[str, Any]:
        """`rating` [answer] of 0 or 1, and `chrf` [answer] from 0 to 100 to the own reference."""
        places = {number: place for place, number in enumerate(self.references.numbers)}
        if strange := [answer.sentence for answer in answers if answer.sentence not in places]:
            raise SteerlabError(
                f"sentence {strange[0]} is not among the {len(places)} of {self.references.name!r}; judge outputs "
                "against the split that they were made from"
            )
        relevant, chrf = relevance(
            [answer.output for answer in answers],
            [answer.language for answer in answers],
            [places[answer.sentence] for answer in answers],
            self.references.lines,
            distractors=DISTRACTORS,
        )
        return {"rating": relevant.astype(float), "chrf": chrf}
