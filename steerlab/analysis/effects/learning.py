"""What learning one language does to the others: gained, forgotten, in conflict."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from steerlab.analysis.intervals import by_sentence, named, paired_difference
from steerlab.analysis.sentences import Interval
from steerlab.analysis.tables import need_columns
from steerlab.analysis.tests import holm, paired_test
from steerlab.core.errors import SteerlabError

UNSTEERED = "none"  # the edit of rows without one


def few_shot_curve(
    rows: pd.DataFrame,
    *,
    value: str = "joint",
    shots: str = "shots",
    by: Sequence[str] = ("target",),
    seed: int = 0,
) -> pd.DataFrame:
    """The score by how many examples of the language were given, and what each step gained.

    One row for each group and number of examples, with the columns `by`, shots; value, low, high
    (95 %, over sentences); gain, gain_low, gain_high over the fewest examples of the group, paired
    by sentence (NaN there); n sentences; and reached, the share of the group's best score. Raises
    `SteerlabError` for a missing column, a group with one number of examples, and sentences that
    differ between numbers.

    Args:
        rows: outputs with `sentence`, the score, the number of examples and the columns of `by`.
        value: the column of the score.
        shots: the column of the number of examples.
        by: the columns that tell groups apart.
        seed: decides the resampling of sentences.
    """
    by = list(by)
    need_columns(rows, "few_shot_curve", "sentence", value, shots, *by)
    results = []
    for names, group in rows.groupby(by, sort=False):
        parts = dict(iter(group.groupby(shots, sort=True)))
        if len(parts) < 2:
            raise SteerlabError(
                f"{', '.join(map(str, names))} has one number of examples "
                f"({next(iter(parts))!s}); a curve needs two or more"
            )
        first = next(iter(parts.values()))
        best = max(part[value].mean() for part in parts.values())
        for number, part in parts.items():
            interval = by_sentence(*_columns(part, value), seed=seed)
            result = dict(zip(by, names, strict=True)) | {"shots": number}
            result |= {"value": interval[0], "low": interval[1], "high": interval[2]}
            gain: Interval = (np.nan, np.nan, np.nan)
            if part is not first:
                gain = paired_difference(*_columns(part, value), *_columns(first, value), seed=seed)
            result |= named("gain", gain)
            result |= {
                "n": part["sentence"].nunique(),
                "reached": interval[0] / best if best else 1,
            }
            results.append(result)
    return pd.DataFrame(results)


def forgetting(
    before: pd.DataFrame,
    after: pd.DataFrame,
    *,
    value: str = "bits_per_byte",
    language: str = "language",
    learned: Sequence[str] = (),
    seed: int = 0,
) -> pd.DataFrame:
    """What each language gained or lost between two states of a model, on the same sentences.

    One row for each language, with the columns language, learned (whether it was trained on),
    before, after, change = after - before with its 95 % interval (change_low, change_high),
    relative = change / before, p of a paired permutation test over sentences, p_holm over the
    table, and n sentences. Where lower is better, as of bits per byte, forgetting is a change above
    0. Raises `SteerlabError` for a language or a sentence on one side only.

    Args:
        before: rows with `sentence`, the language and the score.
        after: the same of the model after training, an edit, or anything else.
        value: the column of the score.
        language: the column of the language.
        learned: the languages that were trained on.
        seed: decides the resampling.
    """
    for rows in (before, after):
        need_columns(rows, "forgetting", "sentence", value, language)
    langs = list(dict.fromkeys(before[language]))
    if set(langs) != set(after[language]):
        apart = sorted(set(langs) ^ set(after[language]))
        raise SteerlabError(
            f"{', '.join(apart)} stand on one side only; read the same languages before and after"
        )
    results = []
    for lang in langs:
        a = _columns(after[after[language] == lang], value)
        b = _columns(before[before[language] == lang], value)
        change = paired_difference(*a, *b, seed=seed)
        start = float(b[0].mean())
        test = paired_test(*a, *b, seed=seed).p if len(set(a[1])) > 1 else np.nan
        results.append(
            {
                "language": lang,
                "learned": lang in learned,
                "before": start,
                "after": float(a[0].mean()),
            }
            | named("change", change)
            | {
                "relative": change[0] / start if start else np.nan,
                "p": test,
                "n": len(set(a[1])),
            }
        )
    return _with_holm(pd.DataFrame(results))


def abilities_changed(
    rows: pd.DataFrame, *, by: str = "language", value: str = "correct", seed: int = 0
) -> pd.DataFrame:
    """What each edit does to each task in each language: the side-effect matrix, as a table.

    One row for each edit, task and language, with the columns edit, task, `by`, before, after,
    change = after - before with its 95 % interval over items, p of a paired test, p_holm over the
    edit's table, chance and n items. Raises `SteerlabError` for rows without an edit.

    Args:
        rows: of `abilities`.
        by: the column that tells languages apart: "language", "answer" or "instruction".
        value: the column of the score.
        seed: decides the resampling.
    """
    need_columns(rows, "abilities_changed", "edit", "task", by, "sentence", value, "chance")
    before = rows[rows["edit"] == UNSTEERED]
    names = [name for name in rows["edit"].unique() if name != UNSTEERED]
    if before.empty or not names:
        raise SteerlabError(
            "a change needs the rows without an edit ('none') and those of one or more edits; give "
            "abilities() the edits"
        )
    chance = rows.groupby(["task", by])["chance"].mean().to_dict()
    pairs: Any = [tuple(pair) for pair in rows[["task", by]].to_numpy()]
    cells = rows.assign(cell=pairs)
    parts = []
    for name in names:
        sides = [cells[cells["edit"] == which] for which in (UNSTEERED, name)]
        found = forgetting(*sides, value=value, language="cell", seed=seed)
        places = list(found.pop("language"))
        found = found.drop(columns=["learned", "relative"])
        found.insert(0, "edit", name)
        found.insert(1, "task", [task for task, _ in places])
        found.insert(2, by, [lang for _, lang in places])
        found["chance"] = [chance[place] for place in places]
        parts.append(found)
    return pd.concat(parts, ignore_index=True)


def conflict(
    rows: pd.DataFrame, *, value: str = "joint", fitted: str = "fitted", seed: int = 0
) -> pd.DataFrame:
    """What fitting all directions at once costs each of them: joint fit less separate fit.

    One row for each ordered pair of languages, with the columns source, target; joint fit, separate
    fit and difference with their 95 % intervals over sentences; p and p_holm of a paired test; n;
    and back, the difference of the opposite direction, where it was run: a conflict is asymmetric
    where the two differ. Below 0 the languages stood in one another's way. Raises `SteerlabError`
    for a missing column or value of `fitted`, and for sentences on one side only.

    Args:
        rows: outputs with `source`, `target`, `sentence`, the score and the column `fitted`, which
            says "joint" or "separate".
        value: the column of the score.
        fitted: the column that says how the direction was fitted.
        seed: decides the resampling.
    """
    need_columns(rows, "conflict", "source", "target", "sentence", value, fitted)
    odd = set(rows[fitted]) ^ {"joint", "separate"}
    if odd:
        raise SteerlabError(
            f"the column {fitted!r} has to say 'joint' and 'separate', and nothing else; "
            f"{', '.join(sorted(map(str, odd)))} is missing or not known"
        )
    results = []
    for (source, target), part in rows.groupby(["source", "target"], sort=False):
        sides = [_columns(part[part[fitted] == kind], value) for kind in ("joint", "separate")]
        if not all(len(values) for values, _ in sides):
            raise SteerlabError(
                f"{source} to {target} was fitted in one way only; run it joint and separate"
            )
        (joint, one), (separate, other) = sides
        count = len(set(one))
        test = paired_test(joint, one, separate, other, seed=seed).p if count > 1 else np.nan
        results.append(
            {"source": source, "target": target}
            | named("joint_fit", by_sentence(joint, one, seed=seed))
            | named("separate_fit", by_sentence(separate, other, seed=seed))
            | named("difference", paired_difference(joint, one, separate, other, seed=seed))
            | {"p": test, "n": count}
        )
    table = _with_holm(pd.DataFrame(results))
    known = {(a, b): d for a, b, d in table[["source", "target", "difference"]].to_numpy()}
    table["back"] = [known.get((b, a), np.nan) for a, b in table[["source", "target"]].to_numpy()]
    return table


def _columns(rows: pd.DataFrame, value: str) -> tuple[np.ndarray, np.ndarray]:
    """(scores, sentences) of the rows that have a finite score."""
    finite = rows[np.isfinite(rows[value].to_numpy(float))]
    return finite[value].to_numpy(float), finite["sentence"].to_numpy()


def _with_holm(table: pd.DataFrame) -> pd.DataFrame:
    """The table with p_holm: p corrected over all rows that have one."""
    tested = table["p"].notna()
    table["p_holm"] = np.nan
    if tested.any():
        table.loc[tested, "p_holm"] = holm(table.loc[tested, "p"].tolist())
    return table
