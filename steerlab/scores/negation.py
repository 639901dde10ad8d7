"""Whether a sentence is negated, by a short list of words for each language of the package."""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path

from steerlab.scores.words import words

_FILE = Path(__file__).parents[1] / "data" / "negation.tsv"


@dataclass(frozen=True)
class Negation:
    """What negates in one language.

    Args:
        negates: words that negate, in lower case; `*` stands for any letters.
        spares: words that these patterns find and that negate nothing.
        inserted: the word that makes a hard negative of a sentence.
        place: where it goes: behind the "first" word, before the "last" one, or at the "end".
    """

    negates: tuple[str, ...]
    spares: tuple[str, ...]
    inserted: str
    place: str

    def finds(self, word: str) -> bool:
        """Whether a word, in lower case, negates."""
        return any(fnmatchcase(word, pattern) for pattern in self.negates) and not any(
            fnmatchcase(word, pattern) for pattern in self.spares
        )


@lru_cache(maxsize=1)
def negations() -> dict[str, Negation]:
    """What negates, by language, from the packaged file; languages that it lacks have no check.

    It is a list of words and endings and knows no grammar: it does not see that two negations
    cancel, misses what negates without one of these words ("without", "hardly"), and in Turkish and
    Japanese, where an ending negates, takes some other endings for it.
    """
    found = {}
    for line in _FILE.read_text("utf-8").splitlines()[1:]:
        lang, negates, spares, inserted, place = line.split("\t")
        found[lang] = Negation(tuple(negates.split()), tuple(spares.split()), inserted, place)
    return found


@lru_cache(maxsize=65536)
def is_negated(text: str, lang: str) -> bool | None:
    """Whether a text has a word that negates in its language; None for a language without a
    list."""
    negation = negations().get(lang)
    if negation is None:
        return None
    return any(negation.finds(word) for word in words(text))


def negated(pieces: Sequence[str], lang: str) -> list[str] | None:
    """The words of a sentence with a negation, or without the ones that it has; None for a
    language without a list.

    The words are as the sentence has them, with their punctuation.
    """
    negation = negations().get(lang)
    if negation is None:
        return None
    kept = [piece for piece in pieces if not any(map(negation.finds, words(piece)))]
    if len(kept) < len(pieces):
        return kept
    place = {"first": 1, "last": len(pieces) - 1, "end": len(pieces)}[negation.place]
    return [*pieces[:place], negation.inserted, *pieces[place:]]
