"""The index of each answer's own sentence among the references."""

from collections.abc import Sequence

from steerlab.core.corpus import Corpus
from steerlab.core.errors import SteerlabError
from steerlab.scores.chrf import twins
from steerlab.scores.judges.answers import Answer


def places(references: Corpus, answers: Sequence[Answer]) -> list[int]:
    """The index of each answer's sentence in every list of the references; a sentence that is not
    there raises `SteerlabError`."""
    # An answer has the sentence's number in the corpus' files; a split or a limit leaves out some.
    index_of = {number: index for index, number in enumerate(references.numbers)}
    if missing := [answer.sentence for answer in answers if answer.sentence not in index_of]:
        raise SteerlabError(
            f"sentence {missing[0]} is not among the {len(index_of)} of {references.name!r}; judge "
            "outputs "
            "against the split that they were made from"
        )
    return [index_of[answer.sentence] for answer in answers]


def without_twins(references: Corpus) -> str:
    """What a judge's name says of sentences that are alike, which are not compared with each
    other; nothing where there are none."""
    return " without twins" if twins(references.lines) else ""
