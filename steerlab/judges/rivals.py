"""What an answer's own sentence is compared with: other sentences of the same list, drawn by seed."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from jaxtyping import Int

from steerlab.corpora import Corpus
from steerlab.judges.answers import Answer
from steerlab.terms import SteerlabError


def places(references: Corpus, answers: Sequence[Answer]) -> list[int]:
    """Where each answer's sentence stands in every list of the references; one that is not there raises."""
    known = {number: place for place, number in enumerate(references.numbers)}
    if strange := [answer.sentence for answer in answers if answer.sentence not in known]:
        raise SteerlabError(
            f"sentence {strange[0]} is not among the {len(known)} of {references.name!r}; judge outputs "
            "against the split that they were made from"
        )
    return [known[answer.sentence] for answer in answers]


@lru_cache(maxsize=8)
def rivals(count: int, distractors: int, seed: int) -> Int[np.ndarray, "sentence distractor"]:
    """The places of `distractors` others for each of `count` sentences, the same in every language and every call."""
    if not 1 <= distractors < count:
        raise SteerlabError(
            f"an output is compared with its own sentence and {distractors} others, and there are {count} sentences: "
            f"give at least {distractors + 1} sentences, or between 1 and {count - 1} distractors"
        )
    drawn = [np.random.default_rng([seed, own]).choice(count - 1, distractors, replace=False) for own in range(count)]
    others = np.array(drawn, dtype=np.int64)
    return others + (others >= np.arange(count)[:, None])
