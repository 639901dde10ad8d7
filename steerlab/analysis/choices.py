"""Which layer and strength stand for a method: chosen on dev, once for each method or for each
of its languages too."""

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd

from steerlab.core.errors import SteerlabError

SETTING = ["layer", "strength"]

Setting = tuple[int, float]


def choose(dev: pd.DataFrame) -> dict[str, Setting]:
    """The best layer and strength of each method on dev, of those that read the most lines (all
    did, but in a race)."""
    if set(dev["split"]) != {"dev"}:
        raise SteerlabError(
            f"a choice is made on dev rows only, not on {sorted(set(dev['split']))}"
        )
    return {str(method): ranking(rows)[0] for method, rows in whole(dev).groupby("method")}


def choose_each(dev: pd.DataFrame, by: str = "target") -> dict[str, dict[str, Setting]]:
    """The best layer and strength of each method for each value of a column, such as the target:
    method → value."""
    need_column(dev, by)
    chosen: dict[str, dict[str, Setting]] = {}
    for value, rows in dev.groupby(by):
        for method, setting in choose(rows).items():
            chosen.setdefault(method, {})[str(value)] = setting
    return chosen


def need_column(rows: pd.DataFrame, name: str) -> None:
    """Raise where the rows have no such column."""
    if name not in rows.columns:
        raise SteerlabError(
            f"there is no column {name!r} to choose by; the rows have {', '.join(rows.columns)}"
        )


def whole(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of the settings that read as many lines as any of their method."""
    size = rows.groupby(["method", *SETTING])["joint"].transform("size")
    return rows[size == size.groupby(rows["method"]).transform("max")]


def ranking(rows: pd.DataFrame) -> list[Setting]:
    """One method's settings by `joint`, best first; ties go to LFS, then to the smaller dose."""
    means = rows.groupby(SETTING)[["joint", "in_language", "dose"]].mean().reset_index()
    best = means.sort_values(["joint", "in_language", "dose"], ascending=[False, False, True])
    return [(int(layer), float(strength)) for layer, strength in best[SETTING].to_numpy()]


def at(rows: pd.DataFrame, method: str, setting: Setting) -> pd.DataFrame:
    """A method's rows at one layer and strength."""
    return rows[
        (rows["method"] == method)
        & (rows["layer"] == setting[0])
        & (rows["strength"] == setting[1])
    ]


def at_each(
    rows: pd.DataFrame, method: str, settings: Mapping[str, Setting], by: str = "target"
) -> pd.DataFrame:
    """A method's rows, those of each value of a column at that value's own layer and strength."""
    need_column(rows, by)
    return pd.concat(
        [at(rows[rows[by] == value], method, setting) for value, setting in settings.items()]
    )


def held_out(dev: pd.DataFrame, *, folds: int = 2) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What choosing is worth, without test lines: (choice per method, choice per method and
    target), rows of each.

    The sentences of dev are dealt into folds; the rows of each are taken at the settings chosen on
    the other folds, so that no row had a part in its own choice.
    """
    sides: tuple[list[pd.DataFrame], list[pd.DataFrame]] = ([], [])
    for others, own in _folds(whole(dev), folds):
        each = choose_each(others)
        for method, setting in choose(others).items():
            sides[0].append(at(own, method, setting))
            sides[1].append(at_each(own, method, each[method]))
    return pd.concat(sides[0]), pd.concat(sides[1])


def _folds(rows: pd.DataFrame, folds: int) -> Iterator[tuple[pd.DataFrame, pd.DataFrame]]:
    """(the other sentences' rows, the fold's own rows), sentences dealt in turn."""
    sentences = np.unique(rows["sentence"])
    if not 2 <= folds <= len(sentences):
        raise SteerlabError(
            f"{len(sentences)} sentences cannot be dealt into {folds} folds; 2 or more, one "
            "sentence each"
        )
    for fold in range(folds):
        own = rows["sentence"].isin(sentences[fold::folds])
        yield rows[~own], rows[own]
