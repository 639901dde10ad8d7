"""Whether a language's nearest neighbours are its relatives, whether that is chance, and whether it
is more than other vectors of the same languages give."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from jaxtyping import Float, Int

from steerlab.core.errors import SteerlabError
from steerlab.core.labels import families_of, labelled


def neighbours(vectors: Float[np.ndarray, "lang width"]) -> Int[np.ndarray, " lang"]:
    """The nearest other language of each, by the cosine of vectors centred over these languages."""
    centred = vectors - vectors.mean(0)
    # A vector of zeros stays one: it is equally near to all others.
    unit = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-30)
    cosine = unit @ unit.T
    np.fill_diagonal(cosine, -np.inf)  # no language is its own neighbour
    return cosine.argmax(1)


@dataclass(frozen=True)
class FamilyNeighbours:
    """How many languages have a neighbour of their own family, by layer, and whether that is
    chance.

    Args:
        layers: the layers.
        accuracy: at each layer, the share of languages whose nearest neighbour is of their family.
        p: of the best layer, compared with the best layer of each permutation of the labels.
        null: the accuracy that 5 % of permutations exceed at their best layer.
        n: how many languages are counted: those with a relative among the languages.
        langs: these languages.
        hits: at each layer, whether each of them has a neighbour of its family.
    """

    layers: tuple[int, ...]
    accuracy: tuple[float, ...]
    p: float
    null: float
    n: int
    langs: tuple[str, ...] = ()
    hits: tuple[tuple[bool, ...], ...] = ()

    @property
    def best(self) -> int:
        """The index of the best layer, the earliest of equals."""
        return int(np.argmax(self.accuracy))


def family_neighbours(
    vectors: Float[np.ndarray, "layer lang width"],
    langs: Sequence[str],
    *,
    layers: Sequence[int] | None = None,
    least: int = 2,
    within: Sequence[object] | None = None,
    permutations: int = 20_000,
    seed: int = 0,
) -> FamilyNeighbours:
    """Whether languages' nearest neighbours belong to their family more often than by chance.

    Under the null hypothesis the family labels are dealt to the languages at random; with `within`,
    to those of a group, such as one script, which then explains nothing of what is found. The
    p-value is corrected for the choice of the layer: each permutation takes its own maximum over
    layers; it is 1 where no label can change places. Raises `SteerlabError` where no family has
    `least` members among the languages. That shared tokens give as much is another question:
    `beyond`.

    Args:
        vectors: a vector for each language at each layer.
        langs: the languages.
        layers: the numbers of the layers; by default from 0.
        least: only languages of families with so many members here are counted; their neighbours
            are sought among all.
        within: the group of each language, to permute labels within groups alone.
        permutations: how many permutations of the labels.
        seed: decides them.
    """
    least = max(2, least)
    # Families as numbers: `family [lang]`, and how many members each family has.
    _, family, members = np.unique(families_of(langs), return_inverse=True, return_counts=True)
    if members.max() < least:
        count = "two" if least == 2 else least
        raise SteerlabError(f"no {count} of {' '.join(langs)} share a family; add relatives")
    random = np.random.default_rng(seed)
    # The true labels first, so that they go through the same computation as all others.
    groups = _groups(len(langs), within)
    shuffled = [_dealt(family, groups, random) for _ in range(permutations)]
    labels = np.stack([family, *shuffled])  # [labelling lang]
    # A family keeps its size when labels are permuted, so the same number is counted each time.
    counted = np.flatnonzero(members >= least)
    is_counted = np.isin(labels, counted)
    own = members[family] >= least  # [lang]: those counted under the true labels
    n = int(own.sum())
    accuracies = []
    hits = []
    for at_layer in vectors:
        nearest = neighbours(at_layer)
        same_family = labels[:, nearest] == labels
        accuracies.append((same_family & is_counted).sum(-1) / n)
        hits.append(tuple(same_family[0, own].tolist()))
    accuracy = np.stack(accuracies, 1)  # [labelling layer]
    best = accuracy.max(1)
    observed = best[0]
    null = best[1:]
    return FamilyNeighbours(
        layers=tuple(range(len(vectors)) if layers is None else layers),
        accuracy=tuple(accuracy[0].tolist()),
        # The observed labels count among the labellings, as they could have come up too.
        p=float((1 + (null >= observed).sum()) / (1 + permutations)),
        null=float(np.quantile(null, 0.95)),
        n=n,
        langs=tuple(lang for lang, counted_here in zip(langs, own, strict=True) if counted_here),
        hits=tuple(hits),
    )


@dataclass(frozen=True)
class Beyond:
    """How many more languages have a neighbour of their own family than by other vectors.

    Args:
        layer: the layer that is compared, at which most have one.
        difference: of the two shares of languages.
        gained: how many languages have one here and not by the others.
        lost: how many have one by the others and not here.
        p: one-sided, for a share that is no larger, corrected for the choice of the layer.
        n: how many languages are counted.
    """

    layer: int
    difference: float
    gained: int
    lost: int
    p: float
    n: int


def beyond(
    found: FamilyNeighbours, other: FamilyNeighbours, *, draws: int = 9_999, seed: int = 0
) -> Beyond:
    """Whether languages have a neighbour of their family more often than by other vectors.

    The test is paired over languages. Under the null hypothesis the two may change places in any
    language: its difference then changes sign, at all layers at once, and each pattern of signs
    takes its own maximum over layers. All 2^n patterns are taken where they are no more than
    `draws` and one, else random ones, among which the observed one counts. Languages are taken as
    independent, which mutual neighbours are not quite: p is too small rather than too large. Raises
    `SteerlabError` for other languages on the two sides, and for more than one layer of the other.

    Args:
        found: the neighbours at each layer, as `family_neighbours` gives them.
        other: those of the vectors to compare with, of one layer, such as the embedding layer or
            `unigrams`.
        draws: how many patterns of signs at most.
        seed: decides them.
    """
    if found.langs != other.langs or len(other.hits) != 1:
        raise SteerlabError(
            f"neighbours of {' '.join(found.langs)} were compared with those of "
            f"{' '.join(other.langs)} at {len(other.hits)} layers; give the same languages, and "
            "one layer to compare with"
        )
    differences = np.array(found.hits, float) - np.array(other.hits, float)  # [layer lang]
    signs = _signs(found.n, draws, seed)
    largest = (signs @ differences.T).max(1)  # [pattern]
    at_best = differences[found.best]
    return Beyond(
        layer=found.layers[found.best],
        difference=float(at_best.mean()),
        gained=int((at_best > 0).sum()),
        lost=int((at_best < 0).sum()),
        # The first pattern is the observed one.
        p=float((largest >= largest[0]).mean()),
        n=found.n,
    )


def _signs(count: int, draws: int, seed: int) -> Float[np.ndarray, "pattern lang"]:
    """Patterns of signs, the first without a change: all, or as many random ones as `draws`."""
    if 2**count <= draws + 1:
        return np.array(list(product((1.0, -1.0), repeat=count)))
    random = np.random.default_rng(seed)
    return np.concatenate([np.ones((1, count)), random.choice((1.0, -1.0), size=(draws, count))])


def _groups(count: int, within: Sequence[object] | None) -> list[np.ndarray]:
    """The indices of the languages of each group of two or more; all in one where none are
    named."""
    if within is None:
        return [np.arange(count)]
    if len(within) != count:
        raise SteerlabError(
            f"{len(within)} groups were named for {count} languages; name one for each"
        )
    _, group = np.unique(np.asarray(within), return_inverse=True)
    members = [np.flatnonzero(group == index) for index in range(group.max() + 1)]
    return [index for index in members if len(index) > 1]


def _dealt(
    family: Int[np.ndarray, " lang"], groups: list[np.ndarray], random: np.random.Generator
) -> Int[np.ndarray, " lang"]:
    """The labels in another order, each staying among the languages of its group."""
    dealt = family.copy()
    for members in groups:
        dealt[members] = random.permutation(family[members])
    return dealt


def have_relatives(langs: Sequence[str]) -> bool:
    """Whether any two of the languages share a family, as `family_neighbours` needs."""
    return len(set(families_of(langs))) < len(langs)


def scripts(langs: Sequence[str]) -> list[str]:
    """The script of each language (ISO 15924), as `family_neighbours(within=)` takes groups."""
    return [labelled(lang).script for lang in langs]


def within_script(langs: Sequence[str], script: str = "Latn") -> list[int]:
    """The indices of the languages that are written in one script (ISO 15924)."""
    return [index for index, lang in enumerate(langs) if labelled(lang).script == script]
