"""Concepts that can be counted in a text without a judge: how a person is addressed, and the gender
of pronouns."""

import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Float

from steerlab.core.corpus import need_texts
from steerlab.core.errors import SteerlabError
from steerlab.core.labels import language_of

_FILE = Path(__file__).parents[1] / "data" / "word_pairs.tsv"
_WORD = re.compile(r"[^\W\d_]+['’]?")
_CLITIC = re.compile(r"(?<=[a-zà-ù])(?=(?:La|Le|Lei)\b)")  # vederLa: to see you
_MEETING = re.compile(r"rendez-vous", re.IGNORECASE)  # addresses nobody
_ENDS = frozenset('.!?…:;\n"“”«»„¿¡–—')


def word_counts(text: str, lang: str, kind: str) -> tuple[int, int]:
    """How many words of a text are of the first and of the second sort, such as (informal, formal).

    The lists are short and know no grammar. A word that only its capital tells from another one
    (Sie and sie, Lei and lei) does not count where a sentence begins. French `vous`, Russian `вы`
    and Spanish `ustedes` may also address several people, German `Sie` never means less than one.

    Raises `SteerlabError` for a language without a list.

    Args:
        text: what is counted in.
        lang: its language, or a label with one.
        kind: "register" (de es fr it nl ru) or "gender" (en sv: she, then he).
    """
    first, second = _lists(language_of(lang) or lang, kind)
    counts = [0, 0]
    for word, begins in _words(text):
        for side, forms in enumerate((first, second)):
            if word.lower() in forms or (word in forms and not begins):
                counts[side] += 1
                break
    return counts[0], counts[1]


def formal_share(outputs: Sequence[str], targets: Sequence[str]) -> Float[np.ndarray, " output"]:
    """The share of formal words among those that address somebody, in each output; NaN where nobody
    is addressed. `targets` are languages or labels; `sweep(scorers={"formal": formal_share})`
    makes it a column."""
    return _shares(outputs, targets, "register")


def she_share(outputs: Sequence[str], targets: Sequence[str]) -> Float[np.ndarray, " output"]:
    """The share of pronouns for a woman among those for a woman or a man, in each output; NaN
    without either. `targets` are languages or labels."""
    return 1 - _shares(outputs, targets, "gender")


def _shares(
    outputs: Sequence[str], targets: Sequence[str], kind: str
) -> Float[np.ndarray, " output"]:
    need_texts(outputs, "what counts words")
    if isinstance(targets, str) or len(outputs) != len(targets):
        raise SteerlabError(
            f"counting needs a language for each output; {len(outputs)} outputs and "
            f"{1 if isinstance(targets, str) else len(targets)} were given"
        )
    shares = np.full(len(outputs), np.nan)
    for index, (text, lang) in enumerate(zip(outputs, targets, strict=True)):
        first, second = word_counts(text, lang, kind)
        if first + second:
            shares[index] = second / (first + second)
    return shares


def _words(text: str) -> list[tuple[str, bool]]:
    """The words of a text, and whether each begins a sentence."""
    parted = _CLITIC.sub(" ", _MEETING.sub("", text)).replace("’", "'")
    words = []
    end = 0
    begins = True
    for found in _WORD.finditer(parted):
        between = parted[end : found.start()]
        begins = begins if end == 0 else any(mark in _ENDS for mark in between)
        words.append((found.group(), begins))
        end = found.end()
    return words


def _lists(lang: str, kind: str) -> tuple[frozenset[str], frozenset[str]]:
    table = _tables()
    if (kind, lang) not in table:
        kinds = {name for name, _ in table}
        langs = " ".join(code for name, code in table if name == kind)
        raise SteerlabError(
            f"no words of {kind!r} are listed for {lang!r}; "
            + (f"there are those of {langs}" if kind in kinds else f"give {' or '.join(kinds)}")
        )
    return table[kind, lang]


@lru_cache(maxsize=1)
def _tables() -> dict[tuple[str, str], tuple[frozenset[str], frozenset[str]]]:
    found = {}
    for line in _FILE.read_text("utf-8").splitlines()[1:]:
        kind, lang, first, second = line.split("\t")
        found[kind, lang] = (frozenset(first.split()), frozenset(second.split()))
    return found
