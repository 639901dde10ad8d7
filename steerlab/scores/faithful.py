"""Whether an output says what its sentence says, by means that need no model.

`joint` asks only which of 32 sentences an output is nearest to. `faithful` asks as well for what
tells a translation from texts that are made to be near: see `hard_negatives`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Bool

from steerlab.core.errors import SteerlabError
from steerlab.core.labels import language_of
from steerlab.scores.chrf import ChrfIndex
from steerlab.scores.chrf_pairs import chrf_pairs
from steerlab.scores.endings import is_loop
from steerlab.scores.lexicon import lexicon
from steerlab.scores.negation import is_negated
from steerlab.scores.words import alike, order, words

# Each is the loosest at which no more than one in twenty of the hard negatives that it is there for
# passes it, over the dev lines of the packaged corpus in 15 languages (docs/faithful.md).
OVERLAP = 35.0  # of a balanced chrF: one word of the sentence, then another sentence
ORDER = 0.59  # of shared words in order: the words shuffled
SHORTEST = 0.67  # of the reference's letters: the first half
LONGEST = 1.7  # of the reference's letters: the source, then the reference
COPIED = 0.35  # of the letters: the source, then the reference

_TIE = 1e-9  # chrF points: scores nearer than this tie
_NUMBER = re.compile(r"\d+")
CHECKS = (
    "language",
    "loop",
    "end",
    "nearest",
    "overlap",
    "length",
    "order",
    "negation",
    "number",
    "copied",
    "stranger",
)


@dataclass(frozen=True)
class Outputs:
    """Outputs with what they should say; all lists are of one length.

    Args:
        texts: the outputs.
        sources: the sentence that each was made from.
        references: what each should say.
        langs: the language that each should be in.
        source_langs: the language of each source.
        in_language: whether it is.
        truncated: whether it stopped at the limit of tokens without having ended.
        index: which of all lines of its language its reference is.
    """

    texts: Sequence[str]
    sources: Sequence[str]
    references: Sequence[str]
    langs: Sequence[str]
    source_langs: Sequence[str]
    in_language: Sequence[bool]
    truncated: Sequence[bool]
    index: Sequence[int]

    def __post_init__(self) -> None:
        lengths = {name: len(values) for name, values in vars(self).items()}
        if len(set(lengths.values())) > 1:
            raise SteerlabError(f"outputs need one value of each kind; given: {lengths}")


def columns(
    outputs: Outputs,
    lines: Mapping[str, Sequence[str]],
    *,
    corpus: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, Any]:
    """Columns with a value for each output.

    - `chrf_reference`, `chrfpp`: chrF and chrF++ to the own reference *in the target language*.
    - `joint_all`: in the target language, and nearer by chrF to the own reference than to every
      other line of its split: `joint` with all lines for distractors.
    - `faithful`: all of `CHECKS` hold.
    - `unfaithful`: the first of them that does not, or "".

    Args:
        outputs: the outputs, and what each should say.
        lines: by language, the lines among which an output's own is looked for.
        corpus: by language, all lines that are known to be translations of one another, for the
            check of words that belong to other sentences; None for none.
    """
    pairs = chrf_pairs(outputs.texts, outputs.references)
    nearest = nearest_of_all(outputs.texts, outputs.langs, outputs.index, lines)
    failed = [
        _first_failed(outputs, row, nearest=bool(nearest[row]), overlap=float(pairs.overlap[row]))
        or ("stranger" if corpus and _strangers(outputs, row, corpus) else "")
        for row in range(len(outputs.texts))
    ]
    return {
        "chrf_reference": pairs.chrf,
        "chrfpp": pairs.chrfpp,
        "joint_all": np.asarray(outputs.in_language, dtype=bool) & nearest,
        "faithful": np.array([not name for name in failed], dtype=bool),
        "unfaithful": failed,
    }


def _first_failed(outputs: Outputs, row: int, *, nearest: bool, overlap: float) -> str:
    """The first of `CHECKS` but the last that an output fails; "" for none."""
    text, reference = outputs.texts[row], outputs.references[row]
    if not outputs.in_language[row]:
        return "language"
    if is_loop(text):
        return "loop"
    length = letters(text) / max(1, letters(reference))
    if outputs.truncated[row] and length < 1:
        return "end"
    if not nearest:
        return "nearest"
    if overlap < OVERLAP:
        return "overlap"
    if not SHORTEST <= length <= LONGEST:
        return "length"
    if order(words(text), words(reference)) < ORDER:
        return "order"
    source, lang = outputs.sources[row], language_of(outputs.langs[row]) or ""
    if not negation_kept(
        text=is_negated(text, lang),
        reference=is_negated(reference, lang),
        source=is_negated(source, language_of(outputs.source_langs[row]) or ""),
    ):
        return "negation"
    if not numbers_kept(text, reference):
        return "number"
    return "copied" if copied(text, reference, source) > COPIED else ""


def _strangers(outputs: Outputs, row: int, corpus: Mapping[str, Sequence[str]]) -> list[str]:
    """The words of an output that belong to other sentences of a corpus."""
    source, lang = outputs.source_langs[row], outputs.langs[row]
    known = lexicon(tuple(corpus[source]), tuple(corpus[lang]))
    return known.strangers(outputs.texts[row], outputs.references[row], outputs.sources[row])


def nearest_of_all(
    texts: Sequence[str],
    langs: Sequence[str],
    index: Sequence[int],
    lines: Mapping[str, Sequence[str]],
) -> Bool[np.ndarray, " output"]:
    """Whether chrF finds each output's own line among all lines of its language, `[output]`; a tie
    is none.

    Args:
        texts: the outputs.
        langs: the language of each.
        index: which of its language's lines is its own.
        lines: the lines by language.
    """
    found = np.zeros(len(texts), dtype=bool)
    of_lang = np.array(list(langs), dtype=object)
    for lang in sorted(set(langs)):
        rows = np.flatnonzero(of_lang == lang)
        own = np.asarray(index)[rows]
        scores = _index(tuple(lines[lang])).score([texts[row] for row in rows.tolist()])
        to_own = scores[np.arange(len(rows)), own].copy()
        scores[np.arange(len(rows)), own] = -np.inf
        found[rows] = to_own > scores.max(axis=1, initial=0.0) + _TIE
    return found


@lru_cache(maxsize=64)
def _index(lines: tuple[str, ...]) -> ChrfIndex:
    """The index of a language's lines, kept: every cell of a sweep is scored against the same."""
    return ChrfIndex(lines)


def letters(text: str) -> int:
    """How many characters of a text are no space."""
    return sum(map(len, text.split()))


def negation_kept(*, text: bool | None, reference: bool | None, source: bool | None) -> bool:
    """Whether a text is negated as its reference is, or as its source, where the two differ ("she
    failed", "she did not pass"); true where it is not known of the text or of the reference.

    Args:
        text: whether the output is negated; None for a language without a list.
        reference: whether its reference is.
        source: whether its source is.
    """
    return text is None or reference is None or text in (reference, source)


def numbers_kept(text: str, reference: str) -> bool:
    """Whether a text has the reference's numbers, where both write some in digits."""
    given = sorted(int(digits) for digits in _NUMBER.findall(text))
    wanted = sorted(int(digits) for digits in _NUMBER.findall(reference))
    return not given or not wanted or given == wanted


def copied(text: str, reference: str, source: str) -> float:
    """The share of a text's letters in words that the source has and the reference has not, from 0
    to 1."""
    wanted = words(reference)
    foreign = set(words(source)) - set(wanted)
    spoken = words(text)
    total = sum(map(len, spoken))
    taken = sum(
        len(word)
        for word in spoken
        if word in foreign and not any(alike(word, other) for other in wanted)
    )
    return taken / total if total else 0.0
