"""chrF against many references at once, and relevance as retrieval among them."""

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from scipy import sparse

from steerlab.analysis.clustered import harmonic
from steerlab.core.corpus import need_texts
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
Twins = tuple[tuple[int, frozenset[int]], ...]  # sentences that have twins, and these

_ORDER = 6  # character n-grams of 1 to 6
_BETA2 = 4.0  # beta = 2, squared: recall counts four times as much as precision
_BLOCK = 4096  # outputs scored at once: a bound on the memory of outputs × references
_END = ord("\n")  # after each text: no text holds one once its whitespace is gone
_UNICODE = 0x110000  # one more than the largest code point
_TIE = 1e-9  # chrF points: scores nearer than this tie, whichever way they were rounded


class ChrfIndex:
    """chrF2 of many outputs against many references at once, equal to sacrebleu's
    `CHRF().sentence_score`.

    chrF needs sum(min(count in output, count in reference)) over the n-grams of each order. With
    one binary feature for each *k-th occurrence* of an n-gram this is the number of features that
    both texts have: a sparse matrix product. References are counted once, and n-grams that no
    reference has are dropped as an output is read.

    Character orders 1 to 6, whitespace removed, letters composed (NFC) on both sides, case kept,
    beta 2 (Popovic 2015). Precision and
    recall are averaged over the orders in which both texts have n-grams (sacrebleu's effective
    order); an empty text scores 0. One string in place of a list raises `SteerlabError`.
    """

    def __init__(self, references: Sequence[str]) -> None:
        references = need_texts(references, "ChrfIndex")
        # Of each order: the sorted numbers of the references' n-grams, and of their features.
        self._vocabularies: list[tuple[Ints, Ints]] = []
        matrices = self._feature_matrices(references, learn=True)
        self._features = [matrix.T.tocsr() for matrix in matrices]
        self._totals = _gram_counts(references)

    def score(self, outputs: Sequence[str]) -> Float[np.ndarray, "output reference"]:
        """chrF2 from 0 to 100 of each output to each reference, `[output reference]`."""
        outputs = need_texts(outputs, "ChrfIndex.score")
        # The empty block makes a matrix of the right width where there is no output.
        blocks = [np.zeros((0, self._totals.shape[1]))]
        for start in range(0, len(outputs), _BLOCK):
            blocks.append(self._score_block(outputs[start : start + _BLOCK]))
        return np.concatenate(blocks)

    def _score_block(self, outputs: Sequence[str]) -> Float[np.ndarray, "output reference"]:
        """chrF2 of outputs that are few enough to be scored at once."""
        totals = _gram_counts(outputs)
        shape = (len(outputs), self._totals.shape[1])
        precision = np.zeros(shape)
        recall = np.zeros(shape)
        orders = np.zeros(shape)  # how many orders both texts have n-grams of
        for order, features in enumerate(self._feature_matrices(outputs, learn=False)):
            shared = (features @ self._features[order]).toarray()
            of_output = totals[order][:, None]
            of_reference = self._totals[order]
            # A text without n-grams of this order shares none, so that 0 / 1 adds nothing.
            precision += shared / np.maximum(of_output, 1)
            recall += shared / np.maximum(of_reference, 1)
            orders += (of_output > 0) & (of_reference > 0)
        precision /= np.maximum(orders, 1)
        recall /= np.maximum(orders, 1)
        weighted = _BETA2 * precision + recall
        return 100 * (1 + _BETA2) * precision * recall / np.where(weighted > 0, weighted, 1)

    def _feature_matrices(self, texts: Sequence[str], *, learn: bool) -> Iterator[sparse.csr_array]:
        """For each order, which k-th occurrences of which n-grams each text has: `[text feature]`
        of 0 and 1.

        `learn` makes the vocabularies from these texts; else they are those of the references.

        An n-gram is identified by the number of its first n - 1 characters and by its last
        character. So if those first characters are in no reference, the n-gram cannot be either,
        and longer n-grams that begin with them are never looked at.
        """
        codes, owners = _code_points(texts)
        # Of every n-gram that is still in play: where it begins, and its number so far.
        starts = np.arange(len(codes) - _ORDER)
        numbers = np.zeros(len(starts), dtype=np.int64)
        for order in range(_ORDER):
            last = codes[starts + order]
            # What runs into the end of its text is no n-gram, and no longer one either.
            inside = last != _END
            starts = starts[inside]
            keys = numbers[inside] * _UNICODE + last[inside]
            if learn:
                vocabulary = np.unique(keys)
            else:
                vocabulary, features = self._vocabularies[order]
            numbers, present = _find(vocabulary, keys)
            starts = starts[present]
            numbers = numbers[present]
            rows = owners[starts]
            size = len(vocabulary)
            # The k-th occurrence of an n-gram in its text has the feature k · size + n-gram.
            k = _occurrence(rows * max(size, 1) + numbers)
            occurrences = k * size + numbers
            if learn:
                features = np.unique(occurrences)
                self._vocabularies.append((vocabulary, features))
            columns, present = _find(features, occurrences)
            ones = np.ones(int(present.sum()))
            yield sparse.csr_array(
                (ones, (rows[present], columns[present])), shape=(len(texts), len(features))
            )


def _gram_counts(texts: Sequence[str]) -> Int[np.ndarray, "order text"]:
    """How many n-grams of each order a text has, `[order text]`."""
    lengths = np.array([len(_without_space(text)) for text in texts], dtype=np.int64)
    # A text of length L has L - n + 1 n-grams, and the orders count from n = 1.
    return np.maximum(lengths - np.arange(_ORDER)[:, None], 0)


def _without_space(text: str) -> str:
    """A text without whitespace, its letters composed (NFC): one letter has several encodings."""
    return unicodedata.normalize("NFC", "".join(text.split()))


def _code_points(texts: Sequence[str]) -> tuple[Ints, Ints]:
    """The code points of all texts without whitespace, one text after the other, each ended by
    `_END`; and the index of the text that each belongs to."""
    ended = [_without_space(text) + chr(_END) for text in texts]
    # More ends at the very end, so that the last start can look so many characters ahead.
    joined = "".join(ended) + chr(_END) * _ORDER
    # UTF-32 has 4 bytes for each code point. Models write halves of surrogate pairs, too.
    encoded = joined.encode("utf-32-le", "surrogatepass")
    codes = np.frombuffer(encoded, dtype="<u4").astype(np.int64)
    owners = np.repeat(np.arange(len(ended)), [len(text) for text in ended])
    return codes, owners


def _find(vocabulary: Ints, keys: Ints) -> tuple[Ints, Bools]:
    """The index of each key in a sorted vocabulary, and whether it is there at all."""
    if not vocabulary.size:
        return np.zeros_like(keys), np.zeros(keys.shape, dtype=bool)
    # A key behind the last one would get an index that there is not.
    index = np.minimum(np.searchsorted(vocabulary, keys), vocabulary.size - 1)
    return index, vocabulary[index] == keys


def _occurrence(keys: Ints) -> Ints:
    """Of each key, how many equal ones stand before it: 0 for the first, 1 for the second."""
    # A stable sort brings equal keys together and leaves them in their order, so that the count is
    # the distance from the first of its group.
    order = np.argsort(keys, kind="stable")
    ranked = keys[order]
    index = np.arange(len(keys))
    is_first = np.concatenate([[True], ranked[1:] != ranked[:-1]])[: len(keys)]
    first = np.maximum.accumulate(np.where(is_first, index, 0))
    counts = np.empty_like(index)
    counts[order] = index - first
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

    An output is relevant if its chrF to its own reference, *in the language that it is in*, is
    higher than to each of some distractors: other sentences of that language. These are drawn once
    for each sentence, and are the same in every language; sentences that are alike in some language
    are not each other's. A tie, an empty output and a language
    without references are not relevant; the last two have a chrF of 0. `chance` is the share that
    unrelated text reaches.

    Fewer sentences than distractors + 1, lists of unequal length and an index without a sentence
    raise `SteerlabError`.

    Args:
        outputs: the texts to judge.
        languages: the identified language of each output.
        sentences: the sentence that each was made from, as an index into every list of
            `references`.
        references: by the code of a language its sentences, in the same order in every language.
        distractors: with how many other sentences the own one is compared.
        seed: decides which these are.
    """
    outputs = need_texts(outputs, "relevance")
    count = _sentence_count(references)
    others = rivals(count, distractors, seed, twins(references))
    index = _checked_index(outputs, languages, sentences, count)
    lang_of_output = np.array(list(languages), dtype=object)
    relevant = np.zeros(len(outputs), dtype=bool)
    own = np.zeros(len(outputs))
    for lang in sorted(set(languages) & references.keys()):
        chrf = _chrf_index(tuple(references[lang]))
        rows = np.flatnonzero(lang_of_output == lang)
        for block in np.array_split(rows, range(_BLOCK, len(rows), _BLOCK)):
            scores = chrf.score([outputs[row] for row in block])
            own[block] = np.take_along_axis(scores, index[block, None], axis=1)[:, 0]
            nearest = np.take_along_axis(scores, others[index[block]], axis=1).max(axis=1)
            relevant[block] = own[block] > nearest + _TIE
    return relevant, own


@lru_cache(maxsize=64)
def _chrf_index(references: tuple[str, ...]) -> ChrfIndex:
    """The index of some references, kept: a sweep scores cell after cell against the same ones."""
    return ChrfIndex(references)


@lru_cache(maxsize=8)
def rivals(
    count: int, distractors: int, seed: int, alike: Twins = ()
) -> Int[np.ndarray, "sentence distractor"]:
    """For each of `count` sentences, the indices of `distractors` others that it is compared with.

    They are the same in every language and every call. A twin, than which no output could be
    nearer, gives its place to another sentence; where there are too few others, some stand twice.
    More distractors than there are other sentences, none, and a sentence that all others are twins
    of raise `SteerlabError`.

    Args:
        count: the number of sentences.
        distractors: how many others each one gets.
        seed: decides which.
        alike: the twins of each sentence that has some, as `twins` finds them.
    """
    if not 1 <= distractors < count:
        raise SteerlabError(
            f"an output is compared with its own sentence and {distractors} others, and there are "
            f"{count} sentences: "
            f"give at least {distractors + 1} sentences, or between 1 and {count - 1} distractors"
        )
    # A generator for each sentence, so that its distractors do not depend on those before it.
    drawn = [
        np.random.default_rng([seed, own]).choice(count - 1, distractors, replace=False)
        for own in range(count)
    ]
    others = np.array(drawn, dtype=np.int64)
    # Drawn from one sentence fewer: from the own one on all move up by one, which leaves it out.
    others = others + (others >= np.arange(count)[:, None])
    for own, same in alike:
        others[own] = _without_twins(own, same, others[own], count, seed)
    return others


def _without_twins(own: int, same: frozenset[int], drawn: Ints, count: int, seed: int) -> Ints:
    """The distractors of a sentence, with others in the places of its twins."""
    excluded = same | {own}
    kept = [other for other in drawn.tolist() if other not in excluded]
    spare = [other for other in range(count) if other not in excluded and other not in set(kept)]
    np.random.default_rng([seed, own, 1]).shuffle(spare)
    chosen = (kept + spare)[: len(drawn)]
    if not chosen:
        raise SteerlabError(
            f"all {count} sentences are alike in some language, so that no output could be nearer "
            "to its own; give sentences that differ"
        )
    return np.array([chosen[place % len(chosen)] for place in range(len(drawn))], dtype=np.int64)


def twins(references: Mapping[str, Sequence[str]]) -> Twins:
    """The sentences that have twins, each with them: those that are the same text, but for
    whitespace and the form of letters, in some language."""
    return _twins(tuple(tuple(lines) for lines in references.values()))


@lru_cache(maxsize=16)
def _twins(languages: tuple[tuple[str, ...], ...]) -> Twins:
    found: dict[int, set[int]] = {}
    for lines in languages:
        places: dict[str, list[int]] = {}
        for place, line in enumerate(lines):
            places.setdefault(_without_space(line), []).append(place)
        for group in places.values():
            for place in group if len(group) > 1 else ():
                found.setdefault(place, set()).update(other for other in group if other != place)
    return tuple((place, frozenset(found[place])) for place in sorted(found))


def _sentence_count(references: Mapping[str, Sequence[str]]) -> int:
    """How many sentences every language has; unequal numbers raise."""
    lengths = {lang: len(lines) for lang, lines in references.items()}
    if len(set(lengths.values())) != 1:
        raise SteerlabError(
            f"references need the same number of sentences in every language; given: {lengths}; "
            "give aligned texts"
        )
    return next(iter(lengths.values()))


def _checked_index(
    outputs: Sequence[str],
    languages: Sequence[str],
    sentences: Sequence[int] | NDArray[Any],
    count: int,
) -> Ints:
    """The sentence of each output as an array; lists of unequal length and sentences that are not
    there raise."""
    index = np.asarray(sentences, dtype=np.int64)
    if not len(outputs) == len(languages) == len(index):
        raise SteerlabError(
            "relevance needs one language and one sentence for each output; there are "
            f"{len(outputs)} outputs, "
            f"{len(languages)} languages and {len(index)} sentences"
        )
    # numpy would take a negative index for one from the end.
    if index.size and not 0 <= index.min() <= index.max() < count:
        wrong = index[(index < 0) | (index >= count)][0]
        raise SteerlabError(
            f"sentence {wrong} is not among the {count} sentences that the references have; give "
            f"indices from 0 to {count - 1}"
        )
    return index
