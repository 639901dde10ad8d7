"""Reference retrieval: an output is relevant if its own reference is the nearest of several
sentences by chrF."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from steerlab.core.corpus import Corpus
from steerlab.core.labels import language_of
from steerlab.scores.chrf import relevance
from steerlab.scores.judges.answers import Answer
from steerlab.scores.judges.places import places, without_twins

DISTRACTORS = 31  # other sentences beside the own one, so that chance is 1/32


@dataclass(frozen=True)
class Retrieval:
    """Rates 1 where chrF finds the output's own reference among 32 sentences, else 0.

    The sentences are in the language that the output is in, so that an output in the wrong language
    can be relevant, too. Unrelated text is rated 1 with a chance of 1/32.
    """

    references: Corpus

    @property
    def name(self) -> str:
        """Everything that decides a rating: the number of sentences, and which they are."""
        corpus = f"{self.references.hash}{without_twins(self.references)}"
        return f"retrieval among {DISTRACTORS + 1} of {corpus}"

    def _among(self, answer: Answer) -> str:
        """Whose references an output is compared with: those of the language that it is in, and
        of the target's label, where concepts in that language are several piles."""
        fits = language_of(answer.target) in (answer.language, None)
        return answer.target if fits else answer.language

    def rate(self, answers: Sequence[Answer]) -> Mapping[str, Any]:
        """`rating` [answer] of 0 or 1, and `chrf` [answer], the output's chrF to its own reference,
        from 0 to 100."""
        relevant, chrf = relevance(
            [answer.output for answer in answers],
            [self._among(answer) for answer in answers],
            places(self.references, answers),
            self.references.lines,
            distractors=DISTRACTORS,
        )
        return {"rating": relevant.astype(float), "chrf": chrf}
