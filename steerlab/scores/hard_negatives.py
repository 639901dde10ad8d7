"""Hard negatives: texts that are near to a reference and do not say what it says.

They are what a score of meaning has to tell from a translation, made from the reference itself by
means that need no model and, but for negation, no knowledge of the language.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from steerlab.scores.negation import negated
from steerlab.scores.words import bare, pieces

GOLD = "the reference itself"
SHUFFLES = 3  # orders of the words that a text is compared with


@dataclass(frozen=True)
class Sentence:
    """What a hard negative is made of.

    Args:
        reference: the sentence in the target language, and its own.
        source: the sentence that it translates.
        other: an unrelated sentence in the target language.
        lang: the target's code.
    """

    reference: str
    source: str
    other: str
    lang: str

    @property
    def parts(self) -> list[str]:
        """The words of the reference with their punctuation."""
        return pieces(self.reference)

    def joined(self, parts: Sequence[str]) -> str:
        """Words as a text, with spaces where the reference has them."""
        return (" " if " " in self.reference.strip() else "").join(parts)


Maker = Callable[[Sentence, np.random.Generator], str | None]


def make(kind: str, sentence: Sentence, rng: np.random.Generator) -> str | None:
    """A hard negative of a kind of `KINDS`; None where the sentence has none, such as an order of
    words other than its own."""
    return KINDS[kind](sentence, rng)


def hard_negatives(
    reference: str, *, source: str, other: str, lang: str, seed: int = 0
) -> tuple[str, ...]:
    """What a text that says the reference must be nearer to it than to: every kind of `KINDS` but
    the reference itself, and its words in several orders.

    Args:
        reference: the sentence in the target language.
        source: the sentence that it translates.
        other: an unrelated sentence in the target language.
        lang: the target's code.
        seed: decides the orders.
    """
    sentence = Sentence(reference, source, other, lang)
    rng = np.random.default_rng(seed)
    kinds = [kind for kind in KINDS if kind != GOLD] + ["its words shuffled"] * (SHUFFLES - 1)
    made = (make(kind, sentence, rng) for kind in kinds)
    return tuple(dict.fromkeys(text for text in made if text is not None and text != reference))


def _gold(sentence: Sentence, _: np.random.Generator) -> str | None:
    return sentence.reference


def _shuffled(sentence: Sentence, rng: np.random.Generator) -> str | None:
    parts = sentence.parts
    for _ in range(20):
        order = rng.permutation(len(parts))
        shuffled = [parts[index] for index in order]
        if shuffled != parts:
            return sentence.joined(shuffled)
    return None  # one word, or the same word throughout


def _negated(sentence: Sentence, _: np.random.Generator) -> str | None:
    parts = negated(sentence.parts, sentence.lang)
    return None if not parts else sentence.joined(parts)


def _word_changed(sentence: Sentence, _: np.random.Generator) -> str | None:
    """The longest word, which is rarely a function word, exchanged for another sentence's."""
    parts = sentence.parts
    longest = _longest(sentence.reference)
    index = next(index for index, part in enumerate(parts) if bare(part) == longest)
    parts[index] = parts[index].replace(longest, _longest(sentence.other))
    return sentence.joined(parts)


def _half(sentence: Sentence, _: np.random.Generator) -> str | None:
    parts = sentence.parts
    return sentence.joined(parts[: (len(parts) + 1) // 2]) if len(parts) > 1 else None


def _stuffed(sentence: Sentence, _: np.random.Generator) -> str | None:
    return sentence.joined([_longest(sentence.reference)] * 6)


def _word_and_other(sentence: Sentence, _: np.random.Generator) -> str | None:
    return sentence.joined([_longest(sentence.reference), sentence.other])


def _source_and_other(sentence: Sentence, _: np.random.Generator) -> str | None:
    return f"{sentence.source} {sentence.other}"


def _source_and_reference(sentence: Sentence, _: np.random.Generator) -> str | None:
    return f"{sentence.source} {sentence.reference}"


def _loop(sentence: Sentence, _: np.random.Generator) -> str | None:
    parts = sentence.parts
    return sentence.joined(parts[: max(1, len(parts) // 3)] * 4)


def _twice(sentence: Sentence, _: np.random.Generator) -> str | None:
    return sentence.joined([sentence.reference] * 3)


def _other(sentence: Sentence, _: np.random.Generator) -> str | None:
    return sentence.other


def _source(sentence: Sentence, _: np.random.Generator) -> str | None:
    return sentence.source


def _longest(text: str) -> str:
    return max(map(bare, pieces(text)), key=len)


KINDS: Mapping[str, Maker] = {
    GOLD: _gold,
    "its words shuffled": _shuffled,
    "negated": _negated,
    "one word exchanged": _word_changed,
    "its first half": _half,
    "one word of it, six times": _stuffed,
    "one word of it, then another sentence": _word_and_other,
    "the source, then another sentence": _source_and_other,
    "the source, then the reference": _source_and_reference,
    "its beginning, four times": _loop,
    "the reference, three times": _twice,
    "another sentence": _other,
    "the source": _source,
}
