"""Whether a probe knows a concept or the texts that it was shown: accuracy on groups of texts that
it was not fitted on."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from steerlab.analysis.intervals import by_sentence, named
from steerlab.core.errors import SteerlabError


def held_out_probe(
    vectors: Mapping[str, Any],
    groups: Mapping[str, Sequence[Any]] | None = None,
    *,
    by: str | None = "template",
    layers: Sequence[int] | None = None,
    folds: int = 5,
    shuffles: int = 5,
    seed: int = 0,
) -> pd.DataFrame:
    """The accuracy of a linear probe for the label of a text, on folds that hold out whole groups.

    Texts made from templates are near copies of one another: on random splits a probe may know the
    template by heart, and be perfect. `by="template"` keeps all texts of a template in one fold;
    `by=None` deals texts at random, for comparison. Standardised activations, then logistic
    regression (C = 1), both fitted without the fold.

    A row for each layer: `accuracy` with its interval over groups, `shuffled`, the mean accuracy
    where the labels are dealt anew, `chance`, `n`, `groups`.

    Raises `SteerlabError` for one label, a group column that is not there or of another length,
    fewer groups than folds, and NaN.

    Args:
        vectors: by label, a vector for each text and layer, [text layer width], as
            `text_means(model, corpus)` gives them.
        groups: by name, the group of the i-th text of every label (a list), or of each label's
            own texts (a dict of lists by label).
        by: the name of the grouping that is held out; None for single texts at random.
        layers: what the layers are called; by default 0, 1, ...
        folds: how many parts the groups are dealt into.
        shuffles: how many times labels are dealt anew.
        seed: of all draws.
    """
    arrays = {label: np.asarray(values, dtype=float) for label, values in vectors.items()}
    if len(arrays) < 2:
        raise SteerlabError(f"a probe parts two labels or more; given: {' '.join(arrays)}")
    for label, values in arrays.items():
        if values.ndim != 3 or not np.isfinite(values).all():
            raise SteerlabError(
                f"the vectors of {label!r} have shape {values.shape} or hold NaN; give finite "
                "[text layer width]"
            )
    data = np.concatenate(list(arrays.values()))
    labels = np.repeat(np.arange(len(arrays)), [len(values) for values in arrays.values()])
    held = _groups(arrays, groups or {}, by)
    numbers = range(data.shape[1]) if layers is None else layers
    count = len(np.unique(held))
    if not 2 <= folds <= count:
        raise SteerlabError(
            f"{count} groups cannot be dealt into {folds} folds; give 2 folds or more, and a group "
            "for each"
        )
    fold_of = _deal(held, folds, seed)
    rows = []
    for place, layer in enumerate(numbers):
        right = _right(data[:, place], labels, fold_of)
        dealt = [
            _right(data[:, place], _shuffled(labels, seed + draw), fold_of).mean()
            for draw in range(shuffles)
        ]
        rows.append(
            {
                "layer": layer,
                **named("accuracy", by_sentence(right, held, share=True)),
                "shuffled": float(np.mean(dealt)) if dealt else np.nan,
                "chance": float(np.bincount(labels).max() / len(labels)),
                "n": len(labels),
                "groups": count,
            }
        )
    return pd.DataFrame(rows)


def _groups(
    arrays: Mapping[str, np.ndarray], groups: Mapping[str, Any], by: str | None
) -> np.ndarray:
    """The number of each text's group."""
    if by is None:
        return np.arange(sum(map(len, arrays.values())))
    if by not in groups:
        raise SteerlabError(
            f"there are no groups {by!r}; groups= has {', '.join(groups) or 'none'}: give them, or "
            "by=None for random splits"
        )
    given = groups[by]
    parts: list[Any] = []
    for label, values in arrays.items():
        own = list(given[label] if isinstance(given, Mapping) else given)
        if len(own) != len(values):
            raise SteerlabError(
                f"the groups {by!r} are {len(own)} and {label!r} has {len(values)} texts; give one "
                "for each"
            )
        parts += own
    return np.unique(np.array(parts, dtype=str), return_inverse=True)[1]


def _deal(held: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """The fold of each text; groups are dealt in a drawn order, so that folds are of one size."""
    order = np.random.default_rng(seed).permutation(len(np.unique(held)))
    fold: np.ndarray = np.argsort(order)[held] % folds
    return fold


def _shuffled(labels: np.ndarray, seed: int) -> np.ndarray:
    return np.random.default_rng((seed, 1)).permutation(labels)


def _right(data: np.ndarray, labels: np.ndarray, fold_of: np.ndarray) -> np.ndarray:
    """Whether each text's label is found by the probe that was fitted without its fold."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    right = np.zeros(len(labels))
    for fold in np.unique(fold_of):
        own = fold_of == fold
        if len(np.unique(labels[~own])) < 2:
            continue  # nothing to learn from: all are wrong
        probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
        probe.fit(data[~own], labels[~own])
        right[own] = probe.predict(data[own]) == labels[own]
    return right
