"""Scores of a text alone: its first line, repetition, compression."""

import math
import unicodedata
import zlib

from steerlab.core.columns import Score
from steerlab.core.corpus import split_lines
from steerlab.scores.answer import Answer

# What stands before and behind a thought: of Qwen and DeepSeek, of others, of Mistral, of Kimi.
_THOUGHTS = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<reasoning>", "</reasoning>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
)


def first_line(text: str) -> str:
    """The first line of a text that is not empty, stripped and in NFC; "" where there is none.

    It is the part of an output that is judged, since models go on with other texts after it; what
    they think before it is left out. Lines
    end and letters are composed as in a corpus (`core.corpus`).
    """
    return composed(next(filter(None, split_lines(without_thoughts(text))), ""))


def without_thoughts(text: str) -> str:
    """An output without what a model thinks before it answers, between `<think>` and `</think>` or
    other such marks; "" where it does not come to an end."""
    for opening, closing in _THOUGHTS:
        _, closed, answer = text.rpartition(closing)
        if closed:  # the opening mark may stand in the prompt
            return answer
        if text.lstrip().startswith(opening):
            return ""
    return text


def composed(text: str) -> str:
    """A text stripped and in the composed Unicode form (NFC), as the lines of a corpus are: in
    another form the same letters would be other ones to every score."""
    return unicodedata.normalize("NFC", text.strip())


def repetition(text: str) -> float:
    """The share of character 4-grams that repeat an earlier one: 1 - distinct / all, in [0, 1).

    Whitespace is removed, so that scripts with and without spaces are measured alike. A text of
    n < 8 characters has n // 2 in place of 4, so that "haha" counts; fewer than 2 characters give
    0. Compare it with the repetition of the references: plain sentences have less than a per cent,
    and a loop of a few words tends to 1. This is seq-rep-n of Welleck et al. 2020 (arXiv
    1908.04319), on characters where they count tokens.
    """
    letters = "".join(text.split())
    order = min(4, len(letters) // 2)
    if not order:
        return 0.0
    grams = [letters[start : start + order] for start in range(len(letters) - order + 1)]
    return 1 - len(set(grams)) / len(grams)


def compression(text: str) -> float:
    """How many times shorter zlib makes a text: its UTF-8 bytes over the compressed bytes; NaN for
    an empty text.

    It rises with loops of any length, where `repetition` looks at four characters. A short sentence
    is below 1, since zlib's header and checksum alone take 8 bytes, and scripts of several bytes a
    letter are higher: compare it with the compression of the references.
    """
    # A model may write half of a surrogate pair, which UTF-8 proper refuses.
    data = text.encode("utf-8", "surrogatepass")
    return len(data) / len(zlib.compress(data)) if data else math.nan


def _repetition(answer: Answer) -> float:
    return repetition(answer.output)


RECORDS = {
    "repetition": Score(
        label="repetition",
        compute=_repetition,
        higher_is_better=False,
        on_page=False,
        cites=("welleck2020neural",),
    ),
}
