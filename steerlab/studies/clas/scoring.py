"""From rows to the scores of CLaS-Bench, all in percent, with 95 % intervals by resampling
questions.

LFS (language forcing success): the share of answers that the identifier reads as the target
language. OR (output relevance): the mean rating, the answers without a readable rating dropped. S =
2 LFS OR / (LFS + OR) of these two *averages*, 0 where either is 0: it is no mean of the answers'
own scores, and half copies with half gibberish have a high one. Joint: the share of answers that
are in the language and have the full rating, an unread rating being none.
"""

from typing import Any

import pandas as pd

from steerlab.analysis.comparisons import comparisons
from steerlab.analysis.intervals import (
    Interval,
    by_sentence,
    harmonic_by_sentence,
    named,
    paired_difference,
)
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
    found = {
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
    return {name: [100 * value for value in interval] for name, interval in found.items()} | counts


def table(rows: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """The scores of each method: `pooled` over all rows, `across` two different languages, by
    `source` and `target`.

    Tidy: method, group, language, the scores with `_low` and `_high`, and the counts.
    """
    found = []
    for method, part in rows.groupby("method", sort=False):
        across = part[part["source"] != part["target"]]
        groups = [("pooled", "", part)] + ([("across", "", across)] if len(across) else [])
        groups += [("source", str(iso), some) for iso, some in part.groupby("source", sort=False)]
        groups += [("target", str(iso), some) for iso, some in part.groupby("target", sort=False)]
        for group, iso, some in groups:
            found.append(
                {"method": str(method), "group": group, "language": iso}
                | _flat(scores(some, seed=seed))
            )
    return pd.DataFrame(found)


def differences(rows: pd.DataFrame, method: str, *, seed: int = 0) -> dict[str, Any]:
    """A method less every other on the same questions, between two different languages: `joint` and
    `in_language`.

    Each with what `summaries.comparisons` gives (paired tests, Holm's correction, what they could
    have shown) and, as "intervals", the difference with its 95 % interval. In shares, not in
    percent.
    """
    across = rows[rows["source"] != rows["target"]]
    tables = {str(name): part for name, part in across.groupby("method", sort=False)}
    others = [name for name in tables if name != method]
    if not others or across["sentence"].nunique() < 2:  # nothing to flip
        return {}
    pairs, found = [(method, other) for other in others], {}
    for column in ("joint", "in_language"):
        told = comparisons(
            tables,
            pairs,
            family=f"{method} less {len(others)} controls and methods",
            value=column,
            seed=seed,
        )
        found[column] = told | {
            "intervals": {
                other: _less(tables[method], tables[other], column, seed) for other in others
            }
        }
    return found


def _less(a: pd.DataFrame, b: pd.DataFrame, column: str, seed: int) -> list[float]:
    sides = [
        part
        for rows in (a, b)
        for part in (rows[column].to_numpy(float), rows["sentence"].to_numpy())
    ]
    return list(
        paired_difference(*sides, strata=a["target"].to_numpy(), resamples=RESAMPLES, seed=seed)
    )


def _flat(found: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in found.items():
        flat |= named(name, tuple(value)) if name in SCORES else {name: value}
    return flat


def _mean(rows: pd.DataFrame, column: str, seed: int) -> Interval:
    return by_sentence(rows[column].to_numpy(float), **_drawn(rows, seed))


def _combined(rows: pd.DataFrame, seed: int) -> Interval:
    """S with its interval: each draw averages LFS over its answers and OR over its rated ones."""
    rated = rows["rating"].notna().to_numpy()
    if not rated.any():
        return UNKNOWN
    spoken, relevance = rows["in_language"].to_numpy(float), rows["rating"].to_numpy(float)
    return harmonic_by_sentence(spoken, relevance, has_b=rated, **_drawn(rows, seed))


def _drawn(rows: pd.DataFrame, seed: int) -> dict[str, Any]:
    """What is drawn: questions, within targets if those share none, as in `summaries.result`."""
    sentences, strata = rows["sentence"].to_numpy(), rows["target"].to_numpy()
    return {"sentences": sentences, "strata": strata, "resamples": RESAMPLES, "seed": seed}
