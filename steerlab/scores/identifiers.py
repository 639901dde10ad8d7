"""A second opinion on the language of outputs: another identifier, and the first one's own
probability.

LFS rests on one identifier, which is unsure of short texts and of languages that lie near one
another. Beside it stand the share that counts only what it holds as likely as not, and the share by
an identifier of another kind. docs/identifiers.md has how right both are, by language and length.
"""

from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from steerlab.analysis.intervals import statistic_by_sentence
from steerlab.analysis.tables import need_columns
from steerlab.core.columns import Score
from steerlab.scores.confusion import label_agreement
from steerlab.scores.langid import Identifier, lingua, lingua_languages

Key = TypeVar("Key")

PROBABLE = 0.5  # the least probability of the first identifier's label that counts as probable

_SHARE: dict[str, Any] = {"aggregate": "share", "on_page": False}  # a table of its own has them
RECORDS = {
    "in_language_probable": Score(label="LFS, p ≥ .5", key="lfs_probable", **_SHARE),
    "in_language_second": Score(label="LFS, second identifier", key="lfs_second", **_SHARE),
    "joint_second": Score(label="joint, second identifier", key="joint_second", **_SHARE),
}


def second_identifier(langs: Iterable[str]) -> Identifier | None:
    """lingua among those of the languages that it knows; None where it is not installed, or knows
    fewer than two of them.

    It chooses among the languages given, since among all of its own it takes 1.3 GB and twice the
    time. So it finds every text that has letters to be in one of them.
    """
    if find_spec("lingua") is None:
        return None
    known = sorted(set(langs) & lingua_languages())
    return lingua(known) if len(known) > 1 else None


def with_opinions(
    tables: Mapping[Key, pd.DataFrame], first: Identifier, second: Identifier | None
) -> dict[Key, pd.DataFrame]:
    """The tables with more columns; each distinct output is identified once.

    - `language_probability`: the first identifier's, of the language that it names;
    - `in_language_probable`: in the target language with a probability of `PROBABLE` or more;
    - with a second identifier `language_second`; `in_language_second`, whether that is the target,
      NaN for a target that it does not know; and `joint_second`, that and `relevant`.

    Raises `SteerlabError` for a missing column.

    Args:
        tables: rows with "output", "target", "language", "in_language" and "relevant".
        first: the identifier that made "language".
        second: another one.
    """
    for rows in tables.values():
        for column in ("output", "target", "in_language", "relevant"):
            need_columns(rows, "a second opinion on languages", column)
    texts = list(dict.fromkeys(text for rows in tables.values() for text in rows["output"]))
    probability = dict(zip(texts, first.weigh(texts)[1].tolist(), strict=True))
    languages: dict[str, str] = {}
    if second is not None:
        languages = dict(zip(texts, second.identify(texts), strict=True))
    more = {}
    for name, rows in tables.items():
        likely = rows["output"].map(probability).astype(float)
        probable = rows["in_language"].astype(bool) & (likely >= PROBABLE)
        columns: dict[str, Any] = {"language_probability": likely, "in_language_probable": probable}
        if second is not None:
            columns |= _of_second(rows, rows["output"].map(languages), second.languages)
        more[name] = rows.assign(**columns)
    return more


def _of_second(rows: pd.DataFrame, named: pd.Series, known: frozenset[str]) -> dict[str, pd.Series]:
    """The columns of the second identifier; `named` are the languages that it names."""
    hits: Any = named == rows["target"]
    both: Any = hits & rows["relevant"].astype(bool)
    judged = rows["target"].isin(known)
    if not judged.all():  # of a target that it does not know it can say nothing
        hits, both = hits.astype(float).where(judged), both.astype(float).where(judged)
    return {"language_second": named, "in_language_second": hits, "joint_second": both}


def agreement_on_target(
    tables: Sequence[pd.DataFrame], *, resamples: int = 1000, seed: int = 0, most: int = 5
) -> dict[str, Any]:
    """How far the two identifiers agree whether an output is in its target language.

    {"n": outputs, "equal": the share on which they agree, "kappa": Cohen's with its 95 % interval
    over sentences, "pairs": the labels that differ most often, [first, second, how often]}; empty
    where there is no second identifier.

    Args:
        tables: rows of `with_opinions`, of the methods and controls together.
        resamples: how many draws of sentences.
        seed: decides the draws.
        most: how many pairs.
    """
    rows = pd.concat(tables, ignore_index=True)
    if "in_language_second" not in rows:
        return {}
    rows = rows[rows["in_language_second"].notna()]
    if rows.empty:
        return {}
    a = rows["in_language"].to_numpy(bool)
    b = rows["in_language_second"].to_numpy(bool)
    kappa = statistic_by_sentence(
        kappa_of_two,
        [a, b],
        rows["sentence"].to_numpy(),
        strata=rows["target"].to_numpy(),
        resamples=resamples,
        seed=seed,
    )
    labels = label_agreement(rows["language"].tolist(), rows["language_second"].tolist())
    return {
        "n": len(rows),
        "equal": float((a == b).mean()),
        "kappa": [None if value != value else value for value in kappa],
        "pairs": labels.pairs.head(most).to_numpy(object).tolist(),
    }


def kappa_of_two(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Cohen's kappa of two yes or no answers (Cohen 1960): the agreement beyond chance, over the
    most that it could be; NaN where both always give the same one answer."""
    yes_a, yes_b = a.mean(), b.mean()
    chance = yes_a * yes_b + (1 - yes_a) * (1 - yes_b)
    if chance == 1:
        return float("nan")
    return float(((a == b).mean() - chance) / (1 - chance))
