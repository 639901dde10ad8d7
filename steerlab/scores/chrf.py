"""chrF against many references at once, and relevance as retrieval among them."""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from scipy import sparse

from steerlab.analysis.intervals import harmonic
from steerlab.core.errors import SteerlabError
from steerlab.scores.text import compression, first_line, repetition

__all__ = [
    "ChrfIndex",
    "chance",
    "compression",
    "first_line",
    "harmonic",
    "relevance",
    "repetition",
]


Ints = NDArray[np.int64]

Bools = NDArray[np.bool_]


_ORDER = 6  # character n-grams of 1 to 6

_BETA2 = 4.0  # beta = 2, squared

_BLOCK = 4096  # outputs scored at once

_END = ord("\n")  # after each text: no text holds one once its whitespace is gone

_UNICODE = 0x110000

_TIE = 1e-9  # chrF points: nearer than this is a tie, whichever way it was rounded


class ChrfIndex:
    """chrF2 of many outputs against many references at once, equal to sacrebleu's
    `CHRF().sentence_score`.

    chrF needs sum(min(count in output, count in reference)) over the n-grams of each order. With
    one binary feature for each *k-th occurrence* of an n-gram this is the number of shared
    features: a sparse matrix product. References are counted once, and what no reference holds is
    dropped as an output is read.

    Character orders 1 to 6, whitespace removed, case kept, beta 2 (Popovic 2015). Precision and
    recall are averaged over the orders in which both texts have n-grams (sacrebleu's effective
    order); an empty text scores 0.
    """

    def __init__(self, references: Sequence[str]) -> None:
        _refuse_string(references, "ChrfIndex")
        self._known: list[tuple[Ints, Ints]] = []
        self._features = [matrix.T.tocsr() for matrix in self._read(references, learn=True)]
        self._totals = _totals(references)

    def score(self, outputs: Sequence[str]) -> Float[np.ndarray, "output reference"]:
        """chrF2 from 0 to 100 of each output to each reference, `[output reference]`."""
        _refuse_string(outputs, "ChrfIndex.score")
        starts = range(0, len(outputs), _BLOCK)
        empty = np.zeros((0, self._totals.shape[1]))
        return np.concatenate(
            [empty, *(self._score(outputs[start : start + _BLOCK]) for start in starts)]
        )

    def _score(self, outputs: Sequence[str]) -> Float[np.ndarray, "output reference"]:
        totals = _totals(outputs)
        shape = (len(outputs), self._totals.shape[1])
        precision, recall, orders = np.zeros(shape), np.zeros(shape), np.zeros(shape)
        for order, found in enumerate(self._read(outputs, learn=False)):
            shared = (found @ self._features[order]).toarray()
            own, other = totals[order][:, None], self._totals[order]
            precision += shared / np.maximum(own, 1)
            recall += shared / np.maximum(other, 1)
            orders += (own > 0) & (other > 0)
        precision /= np.maximum(orders, 1)
        recall /= np.maximum(orders, 1)
        weighted = _BETA2 * precision + recall
        return 100 * (1 + _BETA2) * precision * recall / np.where(weighted > 0, weighted, 1)

    def _read(self, texts: Sequence[str], *, learn: bool) -> Iterator[sparse.csr_array]:
        """For each order, which k-th occurrences of which n-grams each text holds: `[text feature]`
        of 0 and 1.

        An n-gram is numbered by its first n - 1 characters' number and its last character, so one
        that is not in the references is dropped here, and all that begins with it is never looked
        at.
        """
        units, owners = _units(texts)
        starts = np.arange(len(units) - _ORDER)
        grams = np.zeros(len(starts), dtype=np.int64)
        for order in range(_ORDER):
            last = units[starts + order]
            inside = last != _END
            starts, keys = starts[inside], grams[inside] * _UNICODE + last[inside]
            if learn:
                vocabulary = np.unique(keys)
            else:
                vocabulary, features = self._known[order]
            grams, known = _find(vocabulary, keys)
            starts, grams = starts[known], grams[known]
            rows = owners[starts]
            occurrences = (
                _occurrence(rows * max(len(vocabulary), 1) + grams) * len(vocabulary) + grams
            )
            if learn:
                features = np.unique(occurrences)
                self._known.append((vocabulary, features))
            columns, known = _find(features, occurrences)
            ones = np.ones(int(known.sum()))
            yield sparse.csr_array(
                (ones, (rows[known], columns[known])), shape=(len(texts), len(features))
            )


def _refuse_string(texts: Sequence[str], what: str) -> None:
    if isinstance(texts, str):
        raise SteerlabError(
            f"{what} takes a list of texts, and was given the one string {texts[:40]!r}: wrap it"
        )


def _totals(texts: Sequence[str]) -> Int[np.ndarray, "order text"]:
    """How many n-grams of each order a text has, `[order text]`."""
    lengths = np.array([len("".join(text.split())) for text in texts], dtype=np.int64)
    return np.maximum(lengths - np.arange(_ORDER)[:, None], 0)


def _units(texts: Sequence[str]) -> tuple[Ints, Ints]:
    """The code points of all texts without whitespace, each text ended by `_END`, and the text
    of each code point."""
    bare = ["".join(text.split()) + chr(_END) for text in texts]
    joined = "".join(bare) + chr(_END) * _ORDER  # so that a start can look ahead
    units = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.int64)
    return units, np.repeat(np.arange(len(bare)), [len(text) for text in bare])


def _find(known: Ints, keys: Ints) -> tuple[Ints, Bools]:
    """Where each key stands in the sorted `known`, and whether it does."""
    if not known.size:
        return np.zeros_like(keys), np.zeros(keys.shape, dtype=bool)
    places = np.minimum(np.searchsorted(known, keys), known.size - 1)
    return places, known[places] == keys


def _occurrence(keys: Ints) -> Ints:
    """0 for the first of equal keys, 1 for the second, and so on."""
    order = np.argsort(keys, kind="stable")
    ranked = keys[order]
    places = np.arange(len(keys))
    first = np.concatenate([[True], ranked[1:] != ranked[:-1]])[: len(keys)]
    counts = np.empty_like(places)
    counts[order] = places - np.maximum.accumulate(np.where(first, places, 0))
    return counts


def chance(distractors: int = 31) -> float:
    """The share of unrelated outputs that `relevance` would pass: 1 / (distractors + 1)."""
    return 1 / (distractors + 1)


def relevance(
    outputs: Sequence[str],
    languages: Sequence[str],
    sentences: Sequence[int] | NDArray[Any],
    references: Mapping[str, Sequence[str]],
    *,
    distractors: int = 31,
    seed: int = 0,
) -> tuple[Bool[np.ndarray, " output"], Float[np.ndarray, " output"]]:
    """Whether each output is nearest to its own sentence, `[output]`, and its chrF to it,
    `[output]`.

    Output i, in the identified language `languages[i]`, was made from sentence `sentences[i]`: an
    index into every list of `references` (aligned lists, one for each language code). It is
    relevant if its chrF to its own reference *in the language that it is in* is higher than to each
    of the distractors: other sentences of that language, drawn once for each sentence from the
    seed, the same in every language. A tie, an empty output and a language without references fail,
    the last two with a chrF of 0. `chance` says what unrelated text reaches.

    Fewer sentences than distractors + 1, lists of unequal length and an index without a sentence
    raise.
    """
    count = _count(references)
    others = rivals(count, distractors, seed)
    index = _checked(outputs, languages, sentences, count)
    spoken = np.array(list(languages), dtype=object)
    relevant, own = np.zeros(len(outputs), dtype=bool), np.zeros(len(outputs))
    for iso in sorted(set(languages) & references.keys()):
        chrf = _index(tuple(references[iso]))
        rows = np.flatnonzero(spoken == iso)
        for block in np.array_split(rows, range(_BLOCK, len(rows), _BLOCK)):
            scores = chrf.score([outputs[row] for row in block])
            own[block] = np.take_along_axis(scores, index[block, None], axis=1)[:, 0]
            nearest = np.take_along_axis(scores, others[index[block]], axis=1).max(axis=1)
            relevant[block] = own[block] > nearest + _TIE
    return relevant, own


_index = lru_cache(maxsize=64)(
    ChrfIndex
)  # a sweep scores cell after cell against the same references


@lru_cache(maxsize=8)
def rivals(count: int, distractors: int, seed: int) -> Int[np.ndarray, "sentence distractor"]:
    """The places of `distractors` others for each of `count` sentences, the same in every
    language and every call."""
    if not 1 <= distractors < count:
        raise SteerlabError(
            f"an output is compared with its own sentence and {distractors} others, and there are "
            f"{count} sentences: "
            f"give at least {distractors + 1} sentences, or between 1 and {count - 1} distractors"
        )
    drawn = [
        np.random.default_rng([seed, own]).choice(count - 1, distractors, replace=False)
        for own in range(count)
    ]
    others = np.array(drawn, dtype=np.int64)
    return others + (others >= np.arange(count)[:, None])


def _count(references: Mapping[str, Sequence[str]]) -> int:
    lengths = {iso: len(lines) for iso, lines in references.items()}
    if len(set(lengths.values())) != 1:
        raise SteerlabError(
            f"references need the same number of sentences in every language; given: {lengths}"
        )
    return next(iter(lengths.values()))


def _checked(
    outputs: Sequence[str],
    languages: Sequence[str],
    sentences: Sequence[int] | NDArray[Any],
    count: int,
) -> Ints:
    index = np.asarray(sentences, dtype=np.int64)
    if not len(outputs) == len(languages) == len(index):
        raise SteerlabError(
            "relevance needs one language and one sentence for each output; there are "
            f"{len(outputs)} outputs, "
            f"{len(languages)} languages and {len(index)} sentences"
        )
    if index.size and not 0 <= index.min() <= index.max() < count:
        wrong = index[(index < 0) | (index >= count)][0]
        raise SteerlabError(
            f"sentence {wrong} is not among the {count} sentences that the references have"
        )
    return index
