"""From rows to the scores of CLaS-Bench, all in percent, with 95 % intervals over
questions.

LFS (language forcing success): the share of answers that the identifier reads as the target
language. OR (output relevance): the mean rating, the answers without a readable rating dropped. S =
2 LFS OR / (LFS + OR) of these two *averages*, 0 where either is 0: it is no mean of the answers'
own scores, and half copies with half gibberish have a high one. Joint: the share of answers that
are in the language and have the full rating, an unread rating being none.
"""

from collections.abc import Iterator
from typing import Any

import pandas as pd
from numpy.typing import NDArray

from steerlab.analysis.comparisons import comparisons
from steerlab.analysis.intervals import by_sentence, harmonic_by_sentence, named, paired_difference
from steerlab.analysis.sentences import Interval
from steerlab.core.errors import SteerlabError

SCORES = ("lfs", "or", "s", "joint")
RESAMPLES = 2000
UNKNOWN = (float("nan"),) * 3


def scores(rows: pd.DataFrame, *, seed: int = 0) -> dict[str, Any]:
    """LFS, OR, S and joint of the rows, each [value, low, high] in percent, and what they count.

    `n` answers, of them `unread` without a rating, `empty` without text, `same` whose target is the
    prompt's language.
    """
    if rows.empty:
        raise SteerlabError("there are no answers to score; the filter left none")
    rated = rows[rows["rating"].notna()]
    intervals = {
        "lfs": _mean(rows, "in_language", seed),
        "or": _mean(rated, "rating", seed) if len(rated) else UNKNOWN,
        "s": _combined(rows, seed),
        "joint": _mean(rows, "joint", seed) if len(rated) else UNKNOWN,
    }
    counts = {
        "n": len(rows),
        "unread": len(rows) - len(rated),
        "empty": int((rows["output"].str.len() == 0).sum()),
        "same": int((rows["source"] == rows["target"]).sum()),
    }
    percent = {name: [100 * value for value in ends] for name, ends in intervals.items()}
    return percent | counts


def table(rows: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """The scores of each method: `pooled` over all rows, `across` two different languages, by
    `source` and `target`.

    Tidy: method, group, language, the scores with `_low` and `_high`, and the counts.
    """
    records = []
    for method, part in rows.groupby("method", sort=False):
        for group, lang, some in _groups(part):
            names = {"method": str(method), "group": group, "language": lang}
            records.append(names | _flat(scores(some, seed=seed)))
    return pd.DataFrame(records)


def _groups(rows: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """The rows of one method in the groups of `table`: group, language, rows."""
    yield "pooled", "", rows
    across = rows[rows["source"] != rows["target"]]
    if len(across):
        yield "across", "", across
    for column in ("source", "target"):
        for lang, some in rows.groupby(column, sort=False):
            yield column, str(lang), some


def differences(rows: pd.DataFrame, method: str, *, seed: int = 0) -> dict[str, Any]:
    """A method less every other on the same questions, between two different languages: `joint` and
    `in_language`.

    Each with what `analysis.comparisons` gives (paired tests, Holm's correction, what they could
    have shown) and, as "intervals", the difference with its 95 % interval. In shares, not in
    percent.
    """
    across = rows[rows["source"] != rows["target"]]
    tables = {str(name): part for name, part in across.groupby("method", sort=False)}
    others = [name for name in tables if name != method]
    if not others or across["sentence"].nunique() < 2:  # nothing to flip
        return {}
    tests = {}
    for column in ("joint", "in_language"):
        tests[column] = comparisons(
            tables,
            [(method, other) for other in others],
            family=f"{method} less {len(others)} controls and methods",
            value=column,
            seed=seed,
        )
        tests[column]["intervals"] = {
            other: _less(tables[method], tables[other], column, seed) for other in others
        }
    return tests


def _less(a: pd.DataFrame, b: pd.DataFrame, column: str, seed: int) -> list[float]:
    """Rows a less rows b on the same questions: [difference, low, high]."""
    interval = paired_difference(
        a[column].to_numpy(float),
        a["sentence"].to_numpy(),
        b[column].to_numpy(float),
        b["sentence"].to_numpy(),
        share=True,
        strata=a["target"].to_numpy(),
        a_seeds=_seeds(a),
        b_seeds=_seeds(b),
        resamples=RESAMPLES,
        seed=seed,
    )
    return list(interval)


def _flat(scored: dict[str, Any]) -> dict[str, Any]:
    """What `scores` gives as columns: value, low and high of each interval."""
    flat: dict[str, Any] = {}
    for name, value in scored.items():
        flat |= named(name, tuple(value)) if name in SCORES else {name: value}
    return flat


def _mean(rows: pd.DataFrame, column: str, seed: int) -> Interval:
    return by_sentence(rows[column].to_numpy(float), share=True, **_drawn(rows, seed))


def _combined(rows: pd.DataFrame, seed: int) -> Interval:
    """S with its interval: LFS is averaged over all answers and OR over its rated ones."""
    rated = rows["rating"].notna().to_numpy()
    if not rated.any():
        return UNKNOWN
    spoken = rows["in_language"].to_numpy(float)
    relevance = rows["rating"].to_numpy(float)
    return harmonic_by_sentence(spoken, relevance, has_b=rated, share=True, **_drawn(rows, seed))


def _drawn(rows: pd.DataFrame, seed: int) -> dict[str, Any]:
    """What varies: questions, within targets if those share none, and the seeds of a control, as in
    `results.result`."""
    return {
        "sentences": rows["sentence"].to_numpy(),
        "strata": rows["target"].to_numpy(),
        "control_seeds": _seeds(rows),
        "resamples": RESAMPLES,
        "seed": seed,
    }


def _seeds(rows: pd.DataFrame) -> NDArray[Any] | None:
    """The seed of a control of each row, if the rows say it."""
    return rows["seed"].to_numpy() if "seed" in rows.columns else None
