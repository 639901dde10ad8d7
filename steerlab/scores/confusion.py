"""Language confusion: lines and words of another language, letters of another script, and what else
goes wrong.

Line- and word-level pass rates are those of Marchisio et al. 2024 (arXiv 2406.20052; their code at
github.com/for-ai/language-confusion was read for the cut-offs). Words differ: see `word_pass`.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
import regex  # type: ignore[import-untyped]
from jaxtyping import Float

from steerlab.analysis.clustered import harmonic
from steerlab.analysis.intervals import named
from steerlab.analysis.results import column_mean
from steerlab.analysis.tables import need_columns
from steerlab.core.corpus import need_texts, split_lines
from steerlab.core.errors import SteerlabError
from steerlab.core.labels import labelled, language_of, languages_of
from steerlab.core.languages import LANGUAGES, UNKNOWN
from steerlab.scores.langid import Identifier
from steerlab.scores.text import compression

__all__ = [
    "Agreement",
    "columns",
    "label_agreement",
    "line_pass",
    "pass_rates",
    "script_mixing",
    "word_pass",
]


# ISO 15924 has one code for a way of writing, such as Jpan; Unicode gives each letter one script.
# So each code has the Unicode scripts that its languages mix as a matter of course.
_SCRIPTS = {
    "Latn": ("Latin",),
    "Cyrl": ("Cyrillic",),
    "Grek": ("Greek",),
    "Geor": ("Georgian",),
    "Thai": ("Thai",),
    "Arab": ("Arabic",),
    "Hebr": ("Hebrew",),
    "Deva": ("Devanagari",),
    "Beng": ("Bengali",),
    "Tibt": ("Tibetan",),
    "Jpan": ("Han", "Hiragana", "Katakana"),
    "Kore": ("Hangul", "Han"),
    "Hans": ("Han", "Bopomofo"),
}
# The same of languages that the package does not list.
_MORE_SCRIPTS = {"Hant": ("Han", "Bopomofo"), "Hani": ("Han", "Bopomofo"), "Hrkt": ("Hiragana",)}


_SPACELESS = ("Jpan", "Hans", "Hant", "Thai", "Tibt", "Khmr", "Laoo", "Mymr")


_LETTERS_OF_A_WORD = 2  # where a script has no spaces: about so many letters count as a word


# The three patterns are compiled on first use, so that importing this module costs nothing. In
# version 1 of `regex`, `--` takes a set away from a set and `&&` intersects two. Common and
# Inherited are what Unicode calls the script of letters that several scripts share.


def _unicode_scripts(script: str) -> tuple[str, ...]:
    """The Unicode scripts of an ISO 15924 code, by which name Unicode knows most of them too."""
    return _SCRIPTS.get(script) or _MORE_SCRIPTS.get(script, (script,))


@lru_cache(maxsize=1)
def _letters() -> Any:
    """The pattern of runs of letters that have a script of their own, unlike the long vowel mark
    that two kanas share."""
    return regex.compile(r"[\p{L}--\p{Common}--\p{Inherited}]+", regex.V1)


@lru_cache(maxsize=64)
def _outside(script: str) -> Any:
    """The pattern of runs of letters of other scripts than this one."""
    less_own = "".join(rf"--\p{{{name}}}" for name in _unicode_scripts(script))
    return regex.compile(rf"[\p{{L}}--\p{{Common}}--\p{{Inherited}}{less_own}]+", regex.V1)


@lru_cache(maxsize=64)
def _words_outside(script: str) -> Any:
    """The pattern of a word in another script than this one: what `word_pass` looks for."""
    less_own = "".join(rf"--\p{{{name}}}" for name in (*_unicode_scripts(script), "Latin"))
    other = rf"[\p{{L}}--\p{{Common}}--\p{{Inherited}}{less_own}]{{2,}}"
    if script == "Latn":
        return regex.compile(other, regex.V1)
    # Latin has a rule of its own: four small letters with no Latin letter on either side. A capital
    # is the mark of a name or an acronym, and fewer letters may be a unit such as "km".
    latin = r"(?<!\p{Latin})[\p{Ll}&&\p{Latin}]{4,}(?!\p{Latin})"
    return regex.compile(f"{other}|{latin}", regex.V1)


def script_mixing(text: str, target: str) -> float:
    """The share of a text's letters that are not of the target language's script; NaN without
    letters, and where nobody knows the script.

    Letters are those of Unicode's categories L*, by their property Script. Digits, punctuation,
    marks, and letters that several scripts share do not count. Japanese has Han and both kanas,
    Korean Hangul and Han. Languages of one script cannot be told apart by it.
    """
    letters = _matched_letters(_letters(), text)
    if not letters:
        return math.nan
    script = labelled(target).script
    if script == UNKNOWN:
        return math.nan
    return _matched_letters(_outside(script), text) / letters


def _matched_letters(pattern: Any, text: str) -> int:
    """How many letters all matches of a pattern have together."""
    return sum(len(match) for match in pattern.findall(text))


def columns(
    outputs: Sequence[str],
    targets: Sequence[str],
    references: Sequence[str] | None = None,
    *,
    languages: Sequence[str] | None = None,
) -> dict[str, list[Any]]:
    """The scores of every output that cost next to nothing (about 20 µs each), as columns.

    Each column has one value for each output: `script_mixing`; `compression`; `length` in
    characters; with `references` also `length_ratio`; with `languages` also `unidentified`. Columns
    of unequal length raise `SteerlabError`.

    Args:
        outputs: the texts to score.
        targets: the code of the language that each should be in.
        references: what each should say; `length_ratio` is the output's length over the
            reference's, and NaN for an empty reference.
        languages: the identified language of each; `unidentified` is whether it is "none" or a
            language that is neither in `core.languages.LANGUAGES` nor among the targets.
    """
    given = {
        "outputs": outputs,
        "targets": targets,
        "references": references,
        "languages": languages,
    }
    lengths = {name: len(column) for name, column in given.items() if column is not None}
    if len(set(lengths.values())) > 1:
        raise SteerlabError(
            f"scores need one value for each output; given: {lengths}; take columns of the same "
            "rows"
        )
    scores: dict[str, list[Any]] = {
        "script_mixing": [
            script_mixing(output, target) for output, target in zip(outputs, targets, strict=True)
        ],
        "compression": [compression(output) for output in outputs],
        "length": [len(output.strip()) for output in outputs],
    }
    if references is not None:
        ideal_lengths = [len(reference.strip()) for reference in references]
        scores["length_ratio"] = [
            length / ideal if ideal else math.nan
            for length, ideal in zip(scores["length"], ideal_lengths, strict=True)
        ]
    if languages is not None:
        named = LANGUAGES.keys() | set(languages_of(targets))
        scores["unidentified"] = [lang not in named for lang in languages]
    return scores


# ---------------------------------------------------------------------------------------- confusion


def line_pass(
    outputs: Sequence[str],
    targets: Sequence[str],
    identifier: Identifier,
    *,
    least: int = 5,
    threshold: float = 0.3,
) -> Float[np.ndarray, " output"]:
    """Whether every line of each output is in its target language: 1, 0, or NaN where no line is
    long enough to tell.

    A line passes if its identified language is the target, with a probability above `threshold`.
    The defaults are those of Marchisio et al. 2024.

    Args:
        outputs: the texts to judge.
        targets: the code of the language that each should be in.
        identifier: what names the language of a line.
        least: how many words a line must have to count; in scripts without spaces two letters
            stand for a word.
        threshold: the probability that the identifier must exceed.
    """
    _need_pairs(outputs, targets)
    lines_of_outputs = [
        _lines_that_count(output, target, least)
        for output, target in zip(outputs, targets, strict=True)
    ]
    # Each distinct line is identified once, and all in one call: that is where the time goes.
    distinct = list(dict.fromkeys(line for lines in lines_of_outputs for line in lines))
    codes, probabilities = identifier.weigh(distinct)
    identified = {}
    for line, code, probability in zip(distinct, codes, probabilities, strict=True):
        # "" is no language's code, so that an unsure line passes for no target.
        identified[line] = code if probability > threshold else ""
    passed = np.full(len(outputs), np.nan)
    for index, (lines, target) in enumerate(zip(lines_of_outputs, targets, strict=True)):
        if lines:
            passed[index] = all(identified[line] == language_of(target) for line in lines)
    return passed


def _lines_that_count(output: str, target: str, least: int) -> list[str]:
    """The lines of an output that have enough words for an identifier to be trusted."""
    return [line for line in split_lines(output) if _word_count(line, target) >= least]


def _word_count(line: str, target: str) -> int:
    """How many words of letters a line has, as the target's script divides words."""
    if labelled(target).script in _SPACELESS:
        return _matched_letters(_letters(), line) // _LETTERS_OF_A_WORD
    # Between spaces, a number or a dash alone is no word.
    return sum(any(map(str.isalpha, word)) for word in line.split())


def word_pass(outputs: Sequence[str], targets: Sequence[str]) -> Float[np.ndarray, " output"]:
    """Whether no word of each output is in another script than its target's: 1 or 0; NaN where
    nobody knows the target's script.

    In a target without Latin letters a Latin word counts if it has four letters or more, all small,
    since names, units and acronyms are no confusion. (Marchisio et al. look such words up in an
    English list, for ar hi ja ko ru zh; here any Latin word counts, for any such target.) Letters
    of a third script count from two in a row, in a Latin target too. Words of another language in
    the same script are not seen: `line_pass` has to find those.
    """
    _need_pairs(outputs, targets)
    passed = np.zeros(len(outputs))
    for index, (output, target) in enumerate(zip(outputs, targets, strict=True)):
        script = labelled(target).script
        if script == UNKNOWN:
            passed[index] = math.nan
        else:
            passed[index] = _words_outside(script).search(output) is None
    return passed


def _need_pairs(outputs: Sequence[str], targets: Sequence[str]) -> None:
    """Raise where there is not one target for each output."""
    need_texts(outputs, "confusion")
    need_texts(targets, "confusion")
    if len(outputs) != len(targets):
        raise SteerlabError(
            f"confusion needs a target for each output; {len(outputs)} outputs, {len(targets)} "
            "targets were given"
        )


def pass_rates(
    rows: pd.DataFrame,
    identifier: Identifier,
    *,
    by: str = "target",
    least: int = 5,
    threshold: float = 0.3,
) -> pd.DataFrame:
    """Line and word pass rates for each value of a column, with 95 % intervals by resampling
    sentences.

    `lpr` = outputs whose lines all pass / outputs with a line that counts (`n`; `too_short` is how
    many have none). `wpr` = outputs whose lines and words all pass / outputs whose lines all pass
    (`n_wpr`); NaN where there are none. `lcpr` = 2 lpr wpr / (lpr + wpr), their harmonic mean.
    Source: Marchisio et al. 2024.

    Args:
        rows: a row for each output, with the columns `output`, `target` and `sentence`.
        identifier: what names the language of a line.
        by: the column whose values each have a row in the result.
        least: how many words a line must have to count, as for `line_pass`.
        threshold: the probability that the identifier must exceed, as for `line_pass`.
    """
    need_columns(rows, "pass_rates", "output", "target", "sentence", by)
    outputs = rows["output"].tolist()
    targets = rows["target"].tolist()
    passes = pd.DataFrame(
        {
            "line": line_pass(outputs, targets, identifier, least=least, threshold=threshold),
            "word": word_pass(outputs, targets),
        },
        index=rows.index,
    )
    groups = passes.join(rows[[by, "sentence"]]).groupby(by, sort=False)
    return pd.DataFrame([{by: name} | _rates(part) for name, part in groups])


def _rates(part: pd.DataFrame) -> dict[str, Any]:
    """The pass rates of outputs, of which `line` and `word` say whether each passed."""
    counted = part[part["line"].notna()]
    # Words are asked about only where the lines pass, so that a whole line in another language is
    # one failure and not two.
    passed = counted[counted["line"] == 1]
    line_rate = column_mean(counted, "line")
    word_rate = column_mean(passed, "word")
    if counted.empty:
        both = math.nan
    elif passed.empty:
        both = 0.0  # the word rate is not defined, but with a line rate of 0 any would give 0
    else:
        both = harmonic(line_rate[0], word_rate[0])
    sizes = {"n": len(counted), "too_short": len(part) - len(counted), "n_wpr": len(passed)}
    return sizes | named("lpr", line_rate) | named("wpr", word_rate) | {"lcpr": both}


# ---------------------------------------------------------------------------------------- agreement


@dataclass(frozen=True)
class Agreement:
    """How far two identifiers agree on the languages of the same texts.

    Args:
        share: the share of texts to which both give the same label.
        kappa: Cohen's kappa of the labels; NaN where there is only one label.
        n: the number of texts.
        pairs: where they differ, the labels `first` and `second` and how often (`n`), most often
            first.
    """

    share: float
    kappa: float
    n: int
    pairs: pd.DataFrame


def label_agreement(first: Sequence[str], second: Sequence[str]) -> Agreement:
    """The agreement of two identifiers' labels of the same texts, such as `a.identify(texts)` and
    `b.identify(texts)`.

    kappa = (share - chance) / (1 - chance), where chance is the share of equal labels to expect if
    each gave its labels as often as it does, but regardless of the other (Cohen 1960). No labels,
    and unequal numbers of them, raise `SteerlabError`.
    """
    if len(first) != len(second) or not len(first):
        raise SteerlabError(
            "agreement needs two labels for each text, and at least one text; "
            f"given {len(first)} and {len(second)} labels"
        )
    from sklearn.metrics import cohen_kappa_score  # here, as importing it takes long

    pairs_of_labels = list(zip(first, second, strict=True))
    differing = Counter((a, b) for a, b in pairs_of_labels if a != b)
    equal = len(pairs_of_labels) - differing.total()
    # With one label in all, chance agreement is 1, and kappa would be 0 / 0.
    one_label = len({*first, *second}) == 1
    kappa = math.nan if one_label else float(cohen_kappa_score(first, second))
    pairs = pd.DataFrame(
        [(a, b, count) for (a, b), count in differing.most_common()],
        columns=["first", "second", "n"],
    )
    return Agreement(equal / len(first), kappa, len(first), pairs)
