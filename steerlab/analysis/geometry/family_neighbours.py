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
    unit = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-30)
    cosine = unit @ unit.T
    np.fill_diagonal(cosine, -np.inf)
    return cosine.argmax(1)


@dataclass(frozen=True)
class FamilyNeighbours:
    """1-nearest-neighbour family accuracy by layer, over languages whose family has another member
    here.

    `p` compares the best layer with the best layer of each permutation of the family labels; `null`
    is the 95th percentile of that.
    """

    layers: tuple[int, ...]
    accuracy: tuple[float, ...]
    p: float
    null: float
    n: int

    @property
    def best(self) -> int:
        """The place of the best layer, the earliest of equals."""
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
    """Do a language's neighbours belong to its family, more than labels dealt at random would?

    The p-value is corrected for the choice of the layer: each permutation takes its own maximum
    over layers. Only languages whose family has at least `least` members here are counted; their
    neighbours are sought among all.
    """
    names, members = np.unique(families(langs), return_inverse=True, return_counts=True)[1:]
    if members.max() < max(2, least):
        raise SteerlabError(
            f"no {'two' if least <= 2 else least} of {' '.join(langs)} share a family; add "
            "relatives"
        )
    near = np.stack([neighbours(v) for v in vectors])
    random = np.random.default_rng(seed)
    labels = np.stack([names, *(random.permutation(names) for _ in range(permutations))])
    has_kin = members[names] >= max(2, least)
    with_kin = np.isin(labels, names[has_kin])
    hits = (
        np.stack([(labels[:, row] == labels) & with_kin for row in near], 1).sum(-1) / has_kin.sum()
    )
    best = hits.max(1)
    return FamilyNeighbours(
        tuple(range(len(vectors)) if layers is None else layers),
        tuple(hits[0].tolist()),
        float((1 + (best[1:] >= best[0]).sum()) / (1 + permutations)),
        float(np.quantile(best[1:], 0.95)),
        int(has_kin.sum()),
    )


def have_relatives(langs: Sequence[str]) -> bool:
    """Whether any two of the languages share a family, so that `kinship` can be asked."""
    return len(set(families(langs))) < len(langs)


def within_script(langs: Sequence[str], script: str = "Latn") -> list[int]:
    """The places of the languages written in one script."""
    return [i for i, iso in enumerate(langs) if language(iso).script == script]
