"""The words of a sentence in any script, which of them two sentences share, and whether they come
in the same order."""

import re
import unicodedata
from bisect import bisect_left
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

# A piece of text without spaces ends where kana that end a word meet the next word's first letter.
_KANA = "\u3040-\u309f"
_SPACELESS = re.compile(
    # Kanji or katakana with the hiragana that follow, or hiragana or any other letters alone.
    rf"[\u30a0-\u30ff\uff66-\uff9f]+[{_KANA}]*|[\u3400-\u9fff々〇]+[{_KANA}]*|[{_KANA}]+"
    r"|[^\s\u3040-\u30ff\u3400-\u9fff々〇\uff66-\uff9f]+"
)
_HAS_SPACELESS = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]")
_STEM = 4  # letters that two forms of one word begin with, at least
_SAME = 0.6  # and the share of the longer form that these are


@lru_cache(maxsize=65536)
def words(text: str) -> tuple[str, ...]:
    """The words of a text: what stands between spaces, without punctuation, in lower case.

    Japanese and Chinese have no spaces: there a word is a run of kanji or katakana with the
    hiragana behind it, which is near to what a phrase of Japanese is.
    """
    return tuple(word.casefold() for piece in pieces(text) if (word := bare(piece)))


def pieces(text: str) -> list[str]:
    """The words of a text as they stand in it, with their punctuation."""
    found: list[str] = []
    for part in text.split():
        found += _SPACELESS.findall(part) if _HAS_SPACELESS.search(part) else [part]
    return found


def bare(piece: str) -> str:
    """A piece of text without the punctuation around it."""
    first, last = 0, len(piece)
    while first < last and _is_punctuation(piece[first]):
        first += 1
    while first < last and _is_punctuation(piece[last - 1]):
        last -= 1
    return piece[first:last]


def _is_punctuation(char: str) -> bool:
    return unicodedata.category(char)[0] in "PSZC"


def alike(first: str, second: str) -> bool:
    """Whether two words are the same or may be two forms of one: both begin with the same four
    letters, which are most of the longer one."""
    if first == second:
        return True
    common = 0
    for a, b in zip(first, second, strict=False):
        if a != b:
            break
        common += 1
    return common >= _STEM and common >= _SAME * max(len(first), len(second))


def matches(output: Sequence[str], reference: Sequence[str]) -> list[int]:
    """For each word of an output that the reference has too, the index of that word in it.

    Each word of the reference is taken once: the one behind the last taken where that fits, else
    the first that is left.
    """
    free = set(range(len(reference)))
    taken: list[int] = []
    for word in output:
        following = taken[-1] + 1 if taken else 0
        fitting = [index for index in sorted(free) if alike(word, reference[index])]
        if not fitting:
            continue
        index = following if following in fitting else fitting[0]
        free.remove(index)
        taken.append(index)
    return taken


def order(output: Sequence[str], reference: Sequence[str]) -> float:
    """How well the words that two sentences share keep their order, from 0 to 1.

    The mean of two shares, among the words that both have; words that only one has are passed over:

    - of neighbours that are neighbours, in this order, in the reference too: METEOR's count of
      chunks (Banerjee and Lavie 2005), which a phrase that moves changes at three places;
    - of words in the longest run that is in the reference's order, with gaps, the first one left
      out. A phrase that moves costs its own words here.

    With fewer than two shared words there is no order: 1.
    """
    taken = matches(output, reference)
    if len(taken) < 2:
        return 1.0
    rank = {index: place for place, index in enumerate(sorted(taken))}
    ranks = [rank[index] for index in taken]
    together = sum(second == first + 1 for first, second in pairwise(ranks))
    return (together + _longest_rising(ranks) - 1) / (2 * (len(taken) - 1))


def _longest_rising(ranks: Sequence[int]) -> int:
    """The length of the longest rising part of a sequence, with gaps."""
    ends: list[int] = []  # the least end of a rising part of each length
    for rank in ranks:
        place = bisect_left(ends, rank)
        ends[place : place + 1] = [rank]
    return len(ends)
