"""Whether a language's nearest neighbours are its relatives, and whether that is chance."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from steerlab.core.errors import SteerlabError
from steerlab.core.languages import families, language


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
    """

    layers: tuple[int, ...]
    accuracy: tuple[float, ...]
    p: float
    null: float
    n: int

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
    permutations: int = 20_000,
    seed: int = 0,
) -> FamilyNeighbours:
    """Whether languages' nearest neighbours belong to their family more often than by chance.

    Under the null hypothesis the family labels are dealt to the languages at random. The p-value is
    corrected for the choice of the layer: each permutation takes its own maximum over layers.
    Raises `SteerlabError` where no family has `least` members among the languages.

    Args:
        vectors: a vector for each language at each layer.
        langs: the languages.
        layers: the numbers of the layers; by default from 0.
        least: only languages of families with so many members here are counted; their neighbours
            are sought among all.
        permutations: how many permutations of the labels.
        seed: decides them.
    """
    least = max(2, least)
    # Families as numbers: `family [lang]`, and how many members each family has.
    _, family, members = np.unique(families(langs), return_inverse=True, return_counts=True)
    if members.max() < least:
        count = "two" if least == 2 else least
        raise SteerlabError(f"no {count} of {' '.join(langs)} share a family; add relatives")
    random = np.random.default_rng(seed)
    # The true labels first, so that they go through the same computation as all others.
    shuffled = [random.permutation(family) for _ in range(permutations)]
    labels = np.stack([family, *shuffled])  # [labelling lang]
    # A family keeps its size when labels are permuted, so the same number is counted each time.
    counted = np.flatnonzero(members >= least)
    is_counted = np.isin(labels, counted)
    n = int((members[family] >= least).sum())
    accuracies = []
    for at_layer in vectors:
        nearest = neighbours(at_layer)
        same_family = labels[:, nearest] == labels
        accuracies.append((same_family & is_counted).sum(-1) / n)
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
    )


def have_relatives(langs: Sequence[str]) -> bool:
    """Whether any two of the languages share a family, as `family_neighbours` needs."""
    return len(set(families(langs))) < len(langs)


def within_script(langs: Sequence[str], script: str = "Latn") -> list[int]:
    """The indices of the languages that are written in one script (ISO 15924)."""
    return [index for index, lang in enumerate(langs) if language(lang).script == script]
