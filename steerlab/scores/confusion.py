"""Language confusion: lines and words of another language, letters of another script, and what else
goes wrong.

Line- and word-level pass rates are those of Marchisio et al. 2024 (arXiv 2406.20052; their code at
github.com/for-ai/language-confusion was read for the cut-offs), but for the words, see `word_pass`.
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

from steerlab.analysis.intervals import by_sentence, harmonic, named, paired_difference
from steerlab.analysis.tables import need_columns
from steerlab.core.errors import SteerlabError
from steerlab.core.languages import LANGUAGES, language
from steerlab.scores.langid import Identifier
from steerlab.scores.text import compression, repetition

__all__ = [
    "Agreement",
    "columns",
    "label_agreement",
    "line_pass",
    "pass_rates",
    "script_mixing",
    "side_effects",
    "word_pass",
]

# What ISO 15924 calls a script -> Unicode's names of the scripts that its languages are written in.
_SCRIPTS = {
    **{
        "Latn": ("Latin",),
        "Cyrl": ("Cyrillic",),
        "Grek": ("Greek",),
        "Geor": ("Georgian",),
        "Thai": ("Thai",),
    },
    **{
        "Arab": ("Arabic",),
        "Hebr": ("Hebrew",),
        "Deva": ("Devanagari",),
        "Beng": ("Bengali",),
        "Tibt": ("Tibetan",),
    },
    **{
        "Jpan": ("Han", "Hiragana", "Katakana"),
        "Kore": ("Hangul", "Han"),
        "Hans": ("Han", "Bopomofo"),
    },
}
_SPACELESS = ("Jpan", "Hans", "Thai", "Tibt")
_LETTERS_OF_A_WORD = 2  # where a script has no spaces: about so many letters count as a word
SIDE_EFFECTS = (
    "repetition",
    "compression",
    "length_ratio",
    "script_mixing",
    "unidentified",
    "bits_per_byte_ratio",
)


@lru_cache(maxsize=1)
def _letters() -> Any:
    """Runs of letters that have a script of their own, unlike the long vowel mark that two kanas
    share."""
    return regex.compile(r"[\p{L}--\p{Common}--\p{Inherited}]+", regex.V1)


@lru_cache(maxsize=64)
def _outside(script: str) -> Any:
    """Runs of letters of other scripts than this one."""
    own = "".join(rf"--\p{{{name}}}" for name in _SCRIPTS[script])
    return regex.compile(rf"[\p{{L}}--\p{{Common}}--\p{{Inherited}}{own}]+", regex.V1)


@lru_cache(maxsize=64)
def _words_outside(script: str) -> Any:
    """A word in another script than this one: what `word_pass` looks for."""
    own = "".join(rf"--\p{{{name}}}" for name in (*_SCRIPTS[script], "Latin"))
    other = rf"[\p{{L}}--\p{{Common}}--\p{{Inherited}}{own}]{{2,}}"
    latin = r"(?<!\p{Latin})[\p{Ll}&&\p{Latin}]{4,}(?!\p{Latin})"
    return regex.compile(other if script == "Latn" else f"{other}|{latin}", regex.V1)


def script_mixing(text: str, target: str) -> float:
    """The share of a text's letters that are not of the target's script, by Unicode's Script; NaN
    without letters.

    Letters are those of categories L*; digits, punctuation and marks, and letters that scripts
    share, do not count. Japanese has Han and both kanas, Korean Hangul and Han. It cannot tell
    languages of one script apart.
    """
    letters = _count(_letters(), text)
    return _count(_outside(language(target).script), text) / letters if letters else math.nan


def _count(pattern: Any, text: str) -> int:
    return sum(map(len, pattern.findall(text)))


def columns(
    outputs: Sequence[str],
    targets: Sequence[str],
    references: Sequence[str] | None = None,
    *,
    languages: Sequence[str] | None = None,
) -> dict[str, list[Any]]:
    """The cheap scores of every output, about 20 µs each: columns of one value for each.

    `script_mixing`; `compression`; `length` in characters; with references `length_ratio`, that
    over the reference's; with the identified `languages` `unidentified`: none, or one that is not
    in `terms.LANGUAGES`.
    """
    given = {
        "outputs": outputs,
        "targets": targets,
        "references": references,
        "languages": languages,
    }
    lengths = {name: len(column) for name, column in given.items() if column is not None}
    if len(set(lengths.values())) > 1:
        raise SteerlabError(f"scores need one value for each output; given: {lengths}")
    found: dict[str, list[Any]] = {
        "script_mixing": [script_mixing(*pair) for pair in zip(outputs, targets, strict=True)],
        "compression": [compression(output) for output in outputs],
        "length": [len(output.strip()) for output in outputs],
    }
    if references is not None:
        sizes = [len(reference.strip()) for reference in references]
        found["length_ratio"] = [
            a / b if b else math.nan for a, b in zip(found["length"], sizes, strict=True)
        ]
    if languages is not None:
        found["unidentified"] = [iso not in LANGUAGES for iso in languages]
    return found


# ---------------------------------------------------------------------------------------- confusion


def line_pass(
    outputs: Sequence[str],
    targets: Sequence[str],
    identifier: Identifier,
    *,
    least: int = 5,
    threshold: float = 0.3,
) -> Float[np.ndarray, " output"]:
    """Whether every line of each output is in its target, 1 or 0, `[output]`; NaN where no line is
    long enough.

    A line counts if it has `least` words or more (2 letters stand for a word in scripts without
    spaces), and passes if its identified language is the target with a probability above
    `threshold`. 5 and .3 are the benchmark's own.
    """
    _paired(outputs, targets)
    lines = [
        [line for line in output.splitlines() if _words(line, target) >= least]
        for output, target in zip(outputs, targets, strict=True)
    ]
    distinct = list(dict.fromkeys(line for own in lines for line in own))
    named, chances = identifier.weigh(distinct)
    spoken = {
        line: iso if chance > threshold else ""
        for line, iso, chance in zip(distinct, named, chances, strict=True)
    }
    passed = [
        float(all(spoken[line] == target for line in own)) if own else math.nan
        for own, target in zip(lines, targets, strict=True)
    ]
    return np.array(passed, dtype=np.float64)


def _words(line: str, target: str) -> int:
    """How many words of letters a line has."""
    runs = _letters().findall(line)
    if language(target).script in _SPACELESS:
        return sum(map(len, runs)) // _LETTERS_OF_A_WORD
    return sum(any(map(str.isalpha, word)) for word in line.split())


def word_pass(outputs: Sequence[str], targets: Sequence[str]) -> Float[np.ndarray, " output"]:
    """Whether no word of each output is in another script than its target's, 1 or 0, `[output]`.

    In a target without Latin letters a Latin word counts if it has four letters or more, all small,
    since names, units and acronyms are no confusion. (The benchmark looks such words up in an
    English list, in ar hi ja ko ru zh; here any Latin word counts, in any such target.) Letters of
    a third script count from two in a row, in a Latin target too. Words of another language in the
    same script are not seen: the line's identifier has to.
    """
    _paired(outputs, targets)
    pairs = zip(outputs, targets, strict=True)
    seen = [_words_outside(language(target).script).search(output) for output, target in pairs]
    return np.array([float(found is None) for found in seen], dtype=np.float64)


def _paired(outputs: Sequence[str], targets: Sequence[str]) -> None:
    if len(outputs) != len(targets):
        raise SteerlabError(
            f"confusion needs a target for each output; {len(outputs)} outputs, {len(targets)} "
            "targets"
        )


def pass_rates(
    rows: pd.DataFrame,
    identifier: Identifier,
    *,
    by: str = "target",
    least: int = 5,
    threshold: float = 0.3,
) -> pd.DataFrame:
    """Pass rates of tidy rows (`output`, `target`, `sentence`), a line for each value of `by`, with
    95 % intervals.

    `lpr` = outputs whose lines all pass / outputs with a line that counts (`n`). `wpr` = outputs
    whose lines and words all pass / outputs whose lines all pass (`n_wpr`); NaN where there are
    none. `lcpr` = 2 lpr wpr / (lpr + wpr).
    """
    need_columns(rows, "pass_rates", "output", "target", "sentence", by)
    outputs, targets = rows["output"].tolist(), rows["target"].tolist()
    lines = line_pass(outputs, targets, identifier, least=least, threshold=threshold)
    told = pd.DataFrame({"line": lines, "word": word_pass(outputs, targets)}, index=rows.index)
    table = []
    for name, part in told.join(rows[[by, "sentence"]]).groupby(by, sort=False):
        counted = part[part["line"].notna()]
        passed = counted[counted["line"] == 1]
        lpr, wpr = _interval(counted, "line"), _interval(passed, "word")
        row = {
            by: name,
            "n": len(counted),
            "too_short": len(part) - len(counted),
            "n_wpr": len(passed),
        }
        lcpr = harmonic(lpr[0], wpr[0]) if len(passed) else 0.0
        table.append(
            row
            | named("lpr", lpr)
            | named("wpr", wpr)
            | {"lcpr": lcpr if len(counted) else math.nan}
        )
    return pd.DataFrame(table)


def _interval(rows: pd.DataFrame, name: str) -> tuple[float, float, float]:
    if rows.empty:
        return math.nan, math.nan, math.nan
    return by_sentence(rows[name].to_numpy(float), rows["sentence"].to_numpy())


# ---------------------------------------------------------------------------------------- agreement


@dataclass(frozen=True)
class Agreement:
    """How far two identifiers agree on `n` texts: the `share` of texts with the same label, Cohen's
    `kappa` of it.

    `pairs`: the labels `first` and `second` where they differ, and how often (`n`), most often
    first. Kappa is NaN where there is only one label.
    """

    share: float
    kappa: float
    n: int
    pairs: pd.DataFrame


def label_agreement(first: Sequence[str], second: Sequence[str]) -> Agreement:
    """The agreement of two identifiers' labels of the same texts, such as `a.identify(texts)` and
    `b.identify(texts)`.

    kappa = (share - chance) / (1 - chance), chance = the share if each kept how often it says what
    (Cohen 1960).
    """
    if len(first) != len(second) or not len(first):
        raise SteerlabError(
            f"agreement needs two labels of each of one text or more; given {len(first)} and "
            f"{len(second)} labels"
        )
    from sklearn.metrics import cohen_kappa_score

    same = [a == b for a, b in zip(first, second, strict=True)]
    kappa = float(cohen_kappa_score(first, second)) if len({*first, *second}) > 1 else math.nan
    differing = Counter((a, b) for a, b in zip(first, second, strict=True) if a != b).most_common()
    pairs = pd.DataFrame(
        [(*pair, count) for pair, count in differing], columns=["first", "second", "n"]
    )
    return Agreement(sum(same) / len(same), kappa, len(same), pairs)


# ------------------------------------------------------------------------------------- side effects


def side_effects(
    rows: pd.DataFrame, *, control: str | None = None, by: str = "target"
) -> pd.DataFrame:
    """What else an edit did, for each method and value of `by`, beside the method `control`: a line
    for each score.

    `rows`: one setting of each method, with `method`, `output`, `reference`, `target`, `language`
    and `sentence`; what `columns` gives is made where it is missing, and `bits_per_byte_ratio`
    (fluency) is read where it is there. `value` with `low` and `high`, on `n` outputs (`missing`:
    those for which the score is not defined); `reference`: the same score of the reference texts;
    the control's `control`, `control_low`, `control_high`, `control_n`; and `difference` from it
    with `difference_low` and `difference_high`, on the sentences that both have. Intervals are of
    95 %, by resampling sentences.
    """
    need_columns(
        rows, "side_effects", "method", "output", "reference", "target", "language", "sentence", by
    )
    methods = rows["method"].drop_duplicates().tolist()
    if control is not None and control not in methods:
        raise SteerlabError(
            f"there are no rows of the control {control!r}; the methods are {', '.join(methods)}"
        )
    scored = _scored(rows)
    table = []
    for (method, name), part in scored.groupby(["method", by], sort=False):
        beside = scored[(scored["method"] == control) & (scored[by] == name)]
        for score in SIDE_EFFECTS:
            line = {"method": method, by: name, "score": score, **_side("value", part, score)}
            line |= {
                "reference": float(part[f"reference {score}"].mean())
                if f"reference {score}" in part
                else math.nan
            }
            if control is not None:
                line |= _side("control", beside, score) | _difference(part, beside, score)
            table.append(line)
    return pd.DataFrame(table)


def _scored(rows: pd.DataFrame) -> pd.DataFrame:
    told = [rows[name].tolist() for name in ("output", "target", "reference", "language")]
    made = columns(*told[:3], languages=told[3]) | {
        "repetition": [repetition(output) for output in told[0]]
    }
    scored = rows.assign(**{name: values for name, values in made.items() if name not in rows})
    ideal = columns(told[2], told[1]) | {"repetition": [repetition(text) for text in told[2]]}
    scored = scored.assign(
        **{f"reference {name}": ideal[name] for name in ideal if name in SIDE_EFFECTS}
    )
    return (
        scored if "bits_per_byte_ratio" in scored else scored.assign(bits_per_byte_ratio=math.nan)
    )


def _side(label: str, rows: pd.DataFrame, score: str) -> dict[str, Any]:
    known = _known(rows, score)
    prefix = "" if label == "value" else f"{label}_"
    value, low, high = _interval(known, score)
    found = {label: value, f"{prefix}low": low, f"{prefix}high": high, f"{prefix}n": len(known)}
    return found | ({} if prefix else {"missing": len(rows) - len(known)})


def _difference(rows: pd.DataFrame, control: pd.DataFrame, score: str) -> dict[str, float]:
    a, b = _known(rows, score), _known(control, score)
    shared = set(a["sentence"]) & set(b["sentence"])
    a, b = a[a["sentence"].isin(shared)], b[b["sentence"].isin(shared)]
    found = (math.nan,) * 3
    if shared:
        sides = [(side[score].to_numpy(float), side["sentence"].to_numpy()) for side in (a, b)]
        found = paired_difference(*sides[0], *sides[1])
    return named("difference", found)


def _known(rows: pd.DataFrame, score: str) -> pd.DataFrame:
    return rows[np.isfinite(rows[score].to_numpy(float))]
