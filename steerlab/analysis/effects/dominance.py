"""Does an edit hurt its own language most: diagonal dominance, and the double dissociation of
every two languages.

Both are read from the rows of `language_effects`: how much each edit, named by a language, raises
the cross-entropy of each language's text. Both are tested by giving the edits' names to one
another, which keeps how strong each edit is and how fragile each language.
"""

import math
from dataclasses import dataclass
from itertools import combinations, permutations
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from steerlab.analysis.effects.matrix import EDIT, effect_matrix, relatively
from steerlab.analysis.intervals import by_sentence, named, paired_difference
from steerlab.analysis.sentences import Interval
from steerlab.analysis.tables import need_columns
from steerlab.core.errors import SteerlabError

_EXACT = 5040  # so many labellings are all tried: those of 7 languages
_SAME = 1e-12  # means that differ by less agree: sums of the same numbers round differently
_CHUNK = 500  # labellings that are judged at once, to bound the memory


@dataclass(frozen=True)
class Dominance:
    """Whether edits hurt their own language most.

    Args:
        share: of the edits, those whose largest rise is that of their own language.
        chance: what that share would be by chance, 1 / number of languages.
        difference: the mean rise of own languages less that of all others, in nats per token.
        low: the lower end of its 95 % interval.
        high: the upper end.
        p: the share of labellings of the edits whose difference is at least as large.
        labellings: how many labellings were tried.
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
    """Whether the edits of `language_effects` hurt their own language most: diagonal dominance.

    Only languages that have an edit are compared. The interval resamples sentences, each with all
    its languages and edits. The null hypothesis gives the edits' names to one another: in all n!
    ways for n of 7 or fewer, else in random ones, p = (1 + hits) / (1 + draws). Raises
    `SteerlabError` for fewer than two such edits, and for an edit without a rise in some language.

    Args:
        rows: the rows of `language_effects`.
        kind: which edits: those under study, or the `"control"`.
        relative: whether rises are shares of the language's nats per token without an edit; then
            the difference is one too.
        draws: how many random labellings of more than 7 languages.
        resamples: how many resamples of sentences.
        seed: decides both.
    """
    if relative:
        rows = relatively(rows)
    edits, langs, matrix = _square(rows, "dominance", kind)
    labels, exact = _labellings(len(langs), draws, seed)
    # `labels[k, i]`: the edit that the k-th labelling takes for that of language i. The mean of a
    # labelling's diagonal orders labellings as the difference does: the whole matrix stays.
    diagonals = matrix[labels, np.arange(len(langs))].mean(1)
    observed = np.trace(matrix) / len(langs)
    hits = int((diagonals >= observed - _SAME).sum())
    own_is_largest = matrix.argmax(0) == np.arange(len(langs))
    difference, low, high = _diagonal(edits, resamples, seed)
    return Dominance(
        share=float(own_is_largest.mean()),
        chance=1 / len(langs),
        difference=difference,
        low=low,
        high=high,
        p=_p(hits, len(labels), exact=exact),
        labellings=len(labels),
    )


@dataclass(frozen=True)
class Dissociated:
    """How many pairs of languages doubly dissociate: removing i hurts i more than j, *and* removing
    j hurts j more than i.

    Args:
        share: of the pairs, those that doubly dissociate.
        certain: of the pairs, those of which both 95 % intervals lie above 0.
        pairs: how many pairs there are.
        chance: the mean share when the edits' names are given to one another.
        p: the share of labellings of the edits with at least as many pairs.
        labellings: how many labellings were tried.
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
    """The share of language pairs that doubly dissociate, and whether that is chance.

    Relabelling takes the edits' whole columns, so that chance is what edits as strong as these, on
    languages as fragile as these, would show if none were a language's own. `dissociation` lists
    the pairs. Raises `SteerlabError` as `dominance` does.

    Args:
        rows: the rows of `language_effects`.
        kind: which edits: those under study, or the `"control"`.
        relative: whether rises are shares of the language's nats per token without an edit.
        draws: how many random labellings of more than 7 languages.
        resamples: how many resamples of sentences.
        seed: decides both.
    """
    table = dissociation(rows, kind=kind, relative=relative, resamples=resamples, seed=seed)
    if relative:
        rows = relatively(rows)
    _, langs, matrix = _square(rows, "dissociated", kind)
    labels, exact = _labellings(len(langs), draws, seed)
    shares = []
    for start in range(0, len(labels), _CHUNK):
        shares.append(_double_shares(matrix, labels[start : start + _CHUNK]))
    null = np.concatenate(shares)
    own_names = np.arange(len(langs))[None]
    share = float(_double_shares(matrix, own_names)[0])
    hits = int((null >= share - _SAME).sum())
    return Dissociated(
        share=share,
        certain=float(table["certain"].mean()),
        pairs=len(table),
        chance=float(null.mean()),
        p=_p(hits, len(labels), exact=exact),
        labellings=len(labels),
    )


def dissociation(
    rows: pd.DataFrame,
    *,
    kind: str = EDIT,
    relative: bool = False,
    resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Every pair of languages i and j that have an edit, one row for each.

    Columns: i, j; i_more, the rise of i less that of j under the edit of i; j_more, that of j less
    that of i under the edit of j; each with its 95 % interval (`_low`, `_high`) by resampling
    sentences, a sentence and its translation together; double, whether both are above 0; certain,
    whether both intervals are; n, the sentences that both languages have, or, of languages that
    share none, those of the one that has fewer. Raises `SteerlabError` as `dominance` does.

    Args:
        rows: the rows of `language_effects`.
        kind: which edits: those under study, or the `"control"`.
        relative: whether rises are shares of the language's nats per token without an edit.
        resamples: how many resamples of sentences.
        seed: decides them.
    """
    if relative:
        rows = relatively(rows)
    edits, langs, _ = _square(rows, "dissociation", kind)
    finite = edits[np.isfinite(edits["rise"].to_numpy(float))]
    # means[edit, language] is then the rise of each sentence.
    means = finite.groupby(["edit", "language", "sentence"])["rise"].mean()
    pairs = []
    for i, j in combinations(langs, 2):
        i_more, n_i = _difference(means[i, i], means[i, j], resamples, seed)
        j_more, n_j = _difference(means[j, j], means[j, i], resamples, seed)
        pair: dict[str, Any] = {"i": i, "j": j}
        pair |= named("i_more", i_more)
        pair |= named("j_more", j_more)
        pair["double"] = min(i_more[0], j_more[0]) > _SAME
        pair["certain"] = min(i_more[1], j_more[1]) > _SAME
        pair["n"] = min(n_i, n_j)
        pairs.append(pair)
    return pd.DataFrame(pairs)


def _difference(
    own: pd.Series, other: pd.Series, resamples: int, seed: int
) -> tuple[Interval, int]:
    """The mean rise of one language less that of another with its interval, and how many sentences
    it rests on.

    Args:
        own: the rises of one language, by sentence.
        other: those of the other.
        resamples: how many resamples of sentences.
        seed: decides them.
    """
    shared = own.index.intersection(other.index)
    if len(shared):
        differences = own.loc[shared].to_numpy(float) - other.loc[shared].to_numpy(float)
        interval = by_sentence(
            differences, shared.to_numpy(), share=False, resamples=resamples, seed=seed
        )
        return interval, len(shared)
    # Without a sentence in common each language's are drawn by themselves. One mean of all values
    # is the difference of the two means, if each is weighted by the inverse of its language's
    # share of them.
    count = len(own) + len(other)
    values = np.concatenate([own * (count / len(own)), other * (-count / len(other))])
    strata = np.repeat([0, 1], [len(own), len(other)])
    sentences = np.concatenate([own.index, other.index])
    interval = by_sentence(
        values, sentences, share=False, strata=strata, resamples=resamples, seed=seed
    )
    return interval, min(len(own), len(other))


def _double_shares(
    matrix: Float[np.ndarray, "lang edit"], labels: Int[np.ndarray, "labelling edit"]
) -> Float[np.ndarray, " labelling"]:
    """The share of language pairs that doubly dissociate under each labelling.

    In the k-th labelling, edit `labels[k, i]` is taken for that of language i.
    """
    rises = matrix.T[labels]  # [labelling, edit by its new name, language]
    own = np.diagonal(rises, axis1=1, axis2=2)
    # more[k, i, j]: the edit of i hurts i more than j.
    more: Bool[np.ndarray, "labelling edit lang"] = own[:, :, None] - rises > _SAME
    i, j = np.triu_indices(len(matrix), k=1)
    return (more[:, i, j] & more[:, j, i]).mean(1)


def _square(
    rows: pd.DataFrame, purpose: str, kind: str
) -> tuple[pd.DataFrame, list[str], Float[np.ndarray, "lang edit"]]:
    """(rows, languages, mean rises) of the edits that are named by a language of the text.

    Raises where there are fewer than two, or where one has no finite rise in some language.
    """
    need_columns(rows, purpose, "edit", "kind", "language", "sentence", "rise")
    read = set(rows["language"])
    names = rows.loc[rows["kind"] == kind, "edit"].unique()
    langs = [name for name in names if name in read]
    if len(langs) < 2:
        raise SteerlabError(
            f"{purpose} needs two edits or more that are named by a language of the text "
            f"({', '.join(rows['language'].unique())}); the kind {kind!r} has "
            f"{', '.join(langs) or 'none'}"
        )
    edits = rows[(rows["kind"] == kind) & rows["edit"].isin(langs) & rows["language"].isin(langs)]
    matrix = effect_matrix(edits, kind=kind).loc[langs, langs].to_numpy()
    if not np.isfinite(matrix).all():
        raise SteerlabError(
            "some edit has no finite rise in some language; give every edit every language's text"
        )
    return edits, langs, matrix


def _p(hits: int, labellings: int, *, exact: bool) -> float:
    """The p of a permutation test; random labellings do not include the observed one, so it is
    added."""
    if exact:
        return hits / labellings
    return (1 + hits) / (1 + labellings)


def _labellings(
    count: int, draws: int, seed: int
) -> tuple[Int[np.ndarray, "labelling edit"], bool]:
    """Ways to give the edits' names to one another, and whether these are all ways."""
    if math.factorial(count) <= _EXACT:
        return np.array(list(permutations(range(count)))), True
    random = np.random.default_rng(seed)
    return np.array([random.permutation(count) for _ in range(draws)]), False


def _diagonal(edits: pd.DataFrame, resamples: int, seed: int) -> Interval:
    """The mean rise of own languages less that of others, with its interval."""
    # Both sides hold every sentence: its own language's edit on one, all other edits on the other.
    finite = edits[np.isfinite(edits["rise"].to_numpy(float))]
    is_own = (finite["edit"] == finite["language"]).to_numpy()
    own = finite[is_own]
    others = finite[~is_own]
    return paired_difference(
        own["rise"].to_numpy(float),
        own["sentence"].to_numpy(),
        others["rise"].to_numpy(float),
        others["sentence"].to_numpy(),
        share=False,  # nats
        strata=own["language"].to_numpy(),
        resamples=resamples,
        seed=seed,
    )
