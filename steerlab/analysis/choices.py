"""Which layer and strength stand for a method: chosen on dev, once for each method or for each
of its languages too."""

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd

from steerlab.core.errors import SteerlabError

SETTING = ["layer", "strength"]

Setting = tuple[int, float]


def choose(dev: pd.DataFrame) -> dict[str, Setting]:
    """The best (layer, strength) of each method on dev rows.

    In a race, settings that were dropped early have read fewer lines; only those that read the
    most are compared. Raises `SteerlabError` for rows of another split.
    """
    # A choice made on the lines that are reported would report its own luck.
    if set(dev["split"]) != {"dev"}:
        raise SteerlabError(
            f"a choice is made on dev rows only, not on {sorted(set(dev['split']))}"
        )
    return {str(method): ranking(rows)[0] for method, rows in whole(dev).groupby("method")}


def choose_each(dev: pd.DataFrame, by: str = "target") -> dict[str, dict[str, Setting]]:
    """The best (layer, strength) of each method for each value of a column, such as the target.

    The result is nested, method → value → setting. Raises `SteerlabError` for a missing column and
    for rows of another split.
    """
    need_column(dev, by)
    chosen: dict[str, dict[str, Setting]] = {}
    for value, rows in dev.groupby(by):
        for method, setting in choose(rows).items():
            chosen.setdefault(method, {})[str(value)] = setting
    return chosen


def need_column(rows: pd.DataFrame, name: str) -> None:
    """Raise `SteerlabError` if the rows have no such column."""
    if name not in rows.columns:
        raise SteerlabError(
            f"there is no column {name!r} to choose by; the rows have {', '.join(rows.columns)}"
        )


def whole(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of those settings that read as many lines as any setting of their method."""
    # A mean over fewer lines is luckier: the best of many settings would often be one of these.
    lines = rows.groupby(["method", *SETTING])["joint"].transform("size")
    most = lines.groupby(rows["method"]).transform("max")
    return rows[lines == most]


def ranking(rows: pd.DataFrame) -> list[Setting]:
    """One method's settings by mean `joint`, best first.

    Ties go to the larger share of outputs in the language, then to the smaller dose.
    """
    means = rows.groupby(SETTING)[["joint", "in_language", "dose"]].mean().reset_index()
    best = means.sort_values(["joint", "in_language", "dose"], ascending=[False, False, True])
    return [(int(layer), float(strength)) for layer, strength in best[SETTING].to_numpy()]


def at(rows: pd.DataFrame, method: str, setting: Setting) -> pd.DataFrame:
    """A method's rows at one layer and strength."""
    layer, strength = setting
    return rows[
        (rows["method"] == method) & (rows["layer"] == layer) & (rows["strength"] == strength)
    ]


def at_each(
    rows: pd.DataFrame, method: str, settings: Mapping[str, Setting], by: str = "target"
) -> pd.DataFrame:
    """A method's rows, those of each value of a column at that value's own layer and strength.

    Raises `SteerlabError` for a missing column.

    Args:
        rows: rows of any methods and settings.
        method: the one whose rows are wanted.
        settings: the (layer, strength) of each value of the column.
        by: the column.
    """
    need_column(rows, by)
    return pd.concat(
        [at(rows[rows[by] == value], method, setting) for value, setting in settings.items()]
    )


def held_out(dev: pd.DataFrame, *, folds: int = 2) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What a choice is worth, estimated without test lines: cross-validation by sentence.

    Returns the rows of all methods at (one choice for each method, one choice for each method and
    target). The sentences of dev are dealt into `folds`; the rows of each fold are taken at the
    settings chosen on the other folds, so that no row had a part in its own choice.
    """
    per_method: list[pd.DataFrame] = []
    per_target: list[pd.DataFrame] = []
    for others, own in _folds(whole(dev), folds):
        each = choose_each(others)
        for method, setting in choose(others).items():
            per_method.append(at(own, method, setting))
            per_target.append(at_each(own, method, each[method]))
    return pd.concat(per_method), pd.concat(per_target)


def _folds(rows: pd.DataFrame, folds: int) -> Iterator[tuple[pd.DataFrame, pd.DataFrame]]:
    """For each fold, (the rows of all other sentences, the fold's own rows).

    Sentences are dealt in turn, so that neighbours, which may share a topic, lie in different
    folds.
    """
    sentences = np.unique(rows["sentence"])
    if not 2 <= folds <= len(sentences):
        raise SteerlabError(
            f"{len(sentences)} sentences cannot be dealt into {folds} folds; give 2 folds or more, "
            "and a sentence for each"
        )
    for fold in range(folds):
        own = rows["sentence"].isin(sentences[fold::folds])
        yield rows[~own], rows[own]
