"""Does an edit hurt its own language most: diagonal dominance, and the double dissociation of
every two languages."""

import math
from dataclasses import dataclass
from itertools import combinations, permutations

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from steerlab.analysis.effects.matrix import EDIT, effect_matrix, relatively
from steerlab.analysis.intervals import Interval, by_sentence, named, paired_difference
from steerlab.analysis.tables import need_columns
from steerlab.core.errors import SteerlabError

_EXACT = 5040  # permutations of the labels that are all tried: those of 7 languages
_SAME = 1e-12  # means nearer than this agree, up to rounding
_CHUNK = 500  # labellings that are judged at once


@dataclass(frozen=True)
class Dominance:
    """Whether edits hurt their own language most.

    `share`: of the edits, those whose largest rise is that of their own language; `chance`: 1 /
    number of languages. `difference`: mean rise of own languages less that of all others, with its
    95 % interval, in nats per token; `p`: the share of labellings of the edits whose difference is
    at least as large, of `labellings`.
    """

    share: float
    chance: float
    difference: float
    low: float
    high: float
    p: float
    labellings: int


def dominance(
    rows: pd.DataFrame,
    *,
    kind: str = EDIT,
    relative: bool = False,
    draws: int = 9_999,
    resamples: int = 2000,
    seed: int = 0,
) -> Dominance:
    """Diagonal dominance of the edits of `language_effects`, or of the `kind="control"`, over
    languages that have one.

    The interval resamples sentences, each with all its languages and edits. The permutation null
    gives the edits' labels to one another: all n! ways for n of 7 or fewer, else `draws` random
    ones, p = (1 + hits) / (1 + draws). It keeps how strong each edit is and how fragile each
    language. With `relative` rises are shares of the language's nats per token without an edit, and
    so is the difference.
    """
    edits, isos, square = _square(relatively(rows) if relative else rows, "dominance", kind)
    labels, exact = _labellings(len(isos), draws, seed)
    null = square[labels, np.arange(len(isos))].mean(1)
    hits = int((null >= np.trace(square) / len(isos) - _SAME).sum())
    share = float((square.argmax(0) == np.arange(len(isos))).mean())
    found = _diagonal(edits, resamples, seed)
    return Dominance(share, 1 / len(isos), *found, _p(hits, len(labels), exact=exact), len(labels))


@dataclass(frozen=True)
class Dissociated:
    """How many pairs of languages doubly dissociate: removing i hurts i more than j, *and* removing
    j hurts j more.

    `share`: of the `pairs`; `certain`: of them, those of which both 95 % intervals lie above 0.
    `chance`: the mean share when the edits' labels are given to one another, `p` the share of such
    labellings, of `labellings`, that have at least as many pairs.
    """

    share: float
    certain: float
    pairs: int
    chance: float
    p: float
    labellings: int


def dissociated(
    rows: pd.DataFrame,
    *,
    kind: str = EDIT,
    relative: bool = False,
    draws: int = 9_999,
    resamples: int = 2000,
    seed: int = 0,
) -> Dissociated:
    """The share of language pairs that doubly dissociate, against the permutation null of
    `dominance`.

    Relabelling takes the edits' whole columns, so that chance is what edits as strong as these, on
    languages as fragile as these, would show if none were a language's own. `dissociation` lists
    the pairs; the arguments are the same.
    """
    table = dissociation(rows, kind=kind, relative=relative, resamples=resamples, seed=seed)
    _, isos, square = _square(relatively(rows) if relative else rows, "dissociated", kind)
    labels, exact = _labellings(len(isos), draws, seed)
    parts = [labels[start : start + _CHUNK] for start in range(0, len(labels), _CHUNK)]
    null = np.concatenate([_double_shares(square, part) for part in parts])
    share = float(_double_shares(square, np.arange(len(isos))[None])[0])
    hits = int((null >= share - _SAME).sum())
    p = _p(hits, len(labels), exact=exact)
    return Dissociated(
        share, float(table["certain"].mean()), len(table), float(null.mean()), p, len(labels)
    )


def dissociation(
    rows: pd.DataFrame,
    *,
    kind: str = EDIT,
    relative: bool = False,
    resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Every two languages i and j that have an edit in `language_effects`' rows, a line for each
    pair.

    `i_more`: the rise of i less that of j under the edit of i, `j_more`: that of j less that of i
    under the edit of j, each with its 95 % interval (`_low`, `_high`) by resampling sentences, a
    sentence and its translation together. `double`: both are above 0; `certain`: both intervals
    are; `n`: the sentences that both languages have, or, of languages that share none, those of the
    one that has fewer. `relative` as in `dominance`.
    """
    edits, isos, _ = _square(relatively(rows) if relative else rows, "dissociation", kind)
    known = edits[np.isfinite(edits["rise"].to_numpy(float))]
    means = known.groupby(["edit", "language", "sentence"])["rise"].mean()
    table = []
    for i, j in combinations(isos, 2):
        i_more, few = _less(means[i, i], means[i, j], resamples, seed)
        j_more, fewer = _less(means[j, j], means[j, i], resamples, seed)
        told = {"i": i, "j": j} | named("i_more", i_more) | named("j_more", j_more)
        double, certain = min(i_more[0], j_more[0]) > _SAME, min(i_more[1], j_more[1]) > _SAME
        table.append(told | {"double": double, "certain": certain, "n": min(few, fewer)})
    return pd.DataFrame(table)


def _less(own: pd.Series, other: pd.Series, resamples: int, seed: int) -> tuple[Interval, int]:
    """The mean of own less that of other with its interval, and how many sentences it rests on.

    Sentences that both have are drawn for both; where they have none in common each language's are
    drawn by themselves: values weighted by how few they are have the difference of the means as
    their mean.
    """
    if len(shared := own.index.intersection(other.index)):
        gained = own.loc[shared].to_numpy(float) - other.loc[shared].to_numpy(float)
        return by_sentence(gained, shared.to_numpy(), resamples=resamples, seed=seed), len(shared)
    count = len(own) + len(other)
    values = np.concatenate([own * (count / len(own)), other * (-count / len(other))])
    strata = np.repeat([0, 1], [len(own), len(other)])
    sentences = np.concatenate([own.index, other.index])
    found = by_sentence(values, sentences, strata=strata, resamples=resamples, seed=seed)
    return found, min(len(own), len(other))


def _double_shares(
    square: Float[np.ndarray, "lang edit"], labels: Int[np.ndarray, "labelling edit"]
) -> Float[np.ndarray, " labelling"]:
    """The share of language pairs that doubly dissociate if edit `labels[k, i]` were that of
    language i."""
    rises = square.T[labels]  # [labelling, edit by its new name, language]
    own = np.diagonal(rises, axis1=1, axis2=2)
    more: Bool[np.ndarray, "labelling edit lang"] = own[:, :, None] - rises > _SAME
    i, j = np.triu_indices(len(square), k=1)
    return (more[:, i, j] & more[:, j, i]).mean(1)


def _square(
    rows: pd.DataFrame, purpose: str, kind: str
) -> tuple[pd.DataFrame, list[str], Float[np.ndarray, "lang edit"]]:
    """The rows of the edits that are named by a language of the text, these languages, and their
    mean rises."""
    need_columns(rows, purpose, "edit", "kind", "language", "sentence", "rise")
    isos = [
        iso
        for iso in rows.loc[rows["kind"] == kind, "edit"].unique()
        if iso in set(rows["language"])
    ]
    if len(isos) < 2:
        raise SteerlabError(
            f"{purpose} needs two edits or more that are named by a language of the text "
            f"({', '.join(rows['language'].unique())}); the kind {kind!r} has "
            f"{', '.join(isos) or 'none'}"
        )
    edits = rows[(rows["kind"] == kind) & rows["edit"].isin(isos) & rows["language"].isin(isos)]
    square = effect_matrix(edits, kind=kind).loc[isos, isos].to_numpy()
    if not np.isfinite(square).all():
        raise SteerlabError(
            "some edit has no finite rise in some language; give every edit every language's text"
        )
    return edits, isos, square


def _p(hits: int, labellings: int, *, exact: bool) -> float:
    return hits / labellings if exact else (1 + hits) / (1 + labellings)


def _labellings(
    count: int, draws: int, seed: int
) -> tuple[Int[np.ndarray, "labelling edit"], bool]:
    """Ways to label the edits, `[labelling edit]`, and whether these are all."""
    if math.factorial(count) <= _EXACT:
        return np.array(list(permutations(range(count)))), True
    random = np.random.default_rng(seed)
    return np.array([random.permutation(count) for _ in range(draws)]), False


def _diagonal(edits: pd.DataFrame, resamples: int, seed: int) -> tuple[float, float, float]:
    """Mean rise of own languages less that of others, with its interval."""
    known = edits[np.isfinite(edits["rise"].to_numpy(float))]
    own = (known["edit"] == known["language"]).to_numpy()
    sides = [
        (part["rise"].to_numpy(float), part["sentence"].to_numpy())
        for part in (known[own], known[~own])
    ]
    strata = known.loc[own, "language"].to_numpy()
    return paired_difference(*sides[0], *sides[1], strata=strata, resamples=resamples, seed=seed)
