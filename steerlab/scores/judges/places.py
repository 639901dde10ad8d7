"""Where each answer's own sentence stands among the references."""

from collections.abc import Sequence

from steerlab.core.corpus import Corpus
from steerlab.core.errors import SteerlabError
from steerlab.scores.judges.answers import Answer


def places(references: Corpus, answers: Sequence[Answer]) -> list[int]:
    """Where each answer's sentence stands in every list of the references; one that is not there
    raises."""
    known = {number: place for place, number in enumerate(references.numbers)}
    if strange := [answer.sentence for answer in answers if answer.sentence not in known]:
        raise SteerlabError(
            f"sentence {strange[0]} is not among the {len(known)} of {references.name!r}; judge "
            "outputs "
            "against the split that they were made from"
        )
    return [known[answer.sentence] for answer in answers]
