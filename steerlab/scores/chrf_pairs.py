"""chrF and chrF++ of outputs to one reference each, and how much of either text the other has."""

import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float

from steerlab.core.errors import SteerlabError

CHARACTERS = 6  # character n-grams of 1 to 6
WORDS = 2  # and of words, in chrF++, of 1 and 2
_BETA2 = 4.0  # beta = 2, squared: recall counts four times as much as precision

Grams = tuple[dict[str, int], ...]  # of each order, how often each n-gram occurs


@dataclass(frozen=True)
class Pairs:
    """Scores from 0 to 100 of each output to its own reference, `[pair]`.

    Args:
        chrf: chrF2, sacrebleu's `CHRF()`.
        chrfpp: chrF++, sacrebleu's `CHRF(word_order=2)`.
        overlap: the harmonic mean of chrF's precision and recall, of equal weight: what an output
            says beside its sentence costs as much here as what it leaves out.
    """

    chrf: Float[np.ndarray, " pair"]
    chrfpp: Float[np.ndarray, " pair"]
    overlap: Float[np.ndarray, " pair"]


def chrf_pairs(outputs: Sequence[str], references: Sequence[str]) -> Pairs:
    """chrF, chrF++ and the balanced overlap of each output with the reference beside it.

    n-grams of characters are of orders 1 to 6, whitespace removed; those of words of orders 1 and
    2, punctuation set apart (Popovic 2015, 2017). Precision and recall are averaged over the orders
    in which both texts have n-grams, as sacrebleu does. Lists of unequal length raise
    `SteerlabError`.
    """
    if len(outputs) != len(references):
        raise SteerlabError(
            f"there are {len(outputs)} outputs and {len(references)} references; give one "
            "reference for each output"
        )
    scores = np.zeros((3, len(outputs)))
    for index, (output, reference) in enumerate(zip(outputs, references, strict=True)):
        given, wanted = _grams(output), _grams(reference)
        scores[0, index] = _score(given[:CHARACTERS], wanted[:CHARACTERS], _BETA2)
        scores[1, index] = _score(given, wanted, _BETA2)
        scores[2, index] = _score(given[:CHARACTERS], wanted[:CHARACTERS], 1.0)
    return Pairs(*scores)


def _score(given: Grams, wanted: Grams, beta2: float) -> float:
    """The F-score of precision and recall, each averaged over the orders that both texts have."""
    precision = recall = 0.0
    orders = 0
    for of_output, of_reference in zip(given, wanted, strict=True):
        if not of_output or not of_reference:
            continue
        shared = sum(
            min(count, of_reference[gram])
            for gram, count in of_output.items()
            if gram in of_reference
        )
        precision += shared / sum(of_output.values())
        recall += shared / sum(of_reference.values())
        orders += 1
    if not precision or not recall:
        return 0.0
    precision /= orders
    recall /= orders
    return 100 * (1 + beta2) * precision * recall / (beta2 * precision + recall)


@lru_cache(maxsize=16384)
def _grams(text: str) -> Grams:
    """The n-grams of a text: of characters, orders 1 to 6, then of words, orders 1 and 2."""
    letters = "".join(text.split())
    pieces = _words(text)
    counts = [
        Counter(letters[start : start + order] for start in range(len(letters) - order + 1))
        for order in range(1, CHARACTERS + 1)
    ]
    counts += [
        # No word holds a space, so that joined words are told apart.
        Counter(" ".join(pieces[start : start + order]) for start in range(len(pieces) - order + 1))
        for order in range(1, WORDS + 1)
    ]
    return tuple(counts)


def _words(text: str) -> list[str]:
    """The words of a text with one mark of punctuation at their end, or else at their beginning,
    set apart: chrF++'s own rule."""
    pieces = []
    for word in text.split():
        if len(word) > 1 and word[-1] in string.punctuation:
            pieces += [word[:-1], word[-1]]
        elif len(word) > 1 and word[0] in string.punctuation:
            pieces += [word[0], word[1:]]
        else:
            pieces.append(word)
    return pieces
