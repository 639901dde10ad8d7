"""Features that stand for a concept in every language, and how many chance would share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.core.firing import Firing
from steerlab.core.labels import AT
from steerlab.core.random import generator
from steerlab.estimate.crossed import axes
from steerlab.estimate.units.selection import need_share
from steerlab.sae import SAE


@dataclass(frozen=True, eq=False)
class SharedFeatures:
    """The features of a concept in each language, and those that all languages have.

    Args:
        concept: what they stand for.
        against: what it was set against.
        langs: the languages.
        layers: the layers.
        pool: whether a feature passed a language's own filter.
        chosen: whether it is among the language's top ones.
        score: the share of the concept's texts with it, less that of the others.
        table: a row for each layer: `shared`, how many features all languages chose; `expected`,
            how many would be shared if each language drew as many from its own pool; `p`, the
            share of such draws with as many or more; `pools` and `tops`, their sizes by language;
            `whole_sae`, the expectation if all drew from every feature, which is what makes small
            overlaps look large.
    """

    concept: str
    against: str
    langs: tuple[str, ...]
    layers: tuple[int, ...]
    pool: Bool[Tensor, "lang layer unit"]
    chosen: Bool[Tensor, "lang layer unit"]
    score: Float[Tensor, "lang layer unit"]
    table: pd.DataFrame

    def of(self, layer: int) -> list[int]:
        """The shared features of a layer, the one with the highest mean score first."""
        place = self.layers.index(layer)
        units = self.chosen[:, place].all(0).nonzero()[:, 0]
        order = self.score[:, place, units].mean(0).argsort(descending=True, stable=True)
        return units[order].tolist()

    def directions(self, firing: Firing, saes: Mapping[int, SAE]) -> Directions:
        """From `against` to `concept`: the mean of the shared features' decoder rows, at unit
        length each; zero at a layer without any. The gap is that of the concepts' means."""
        width = firing.width
        step = torch.zeros(len(self.layers), width)
        for place, layer in enumerate(self.layers):
            rows = saes[layer].W_dec[self.of(layer)].float()
            if len(rows):
                step[place] = torch.nn.functional.normalize(rows, dim=-1).mean(0)
        ends = [
            torch.stack([firing.means[firing.langs.index(f"{name}{AT}{lang}")]
                         for lang in self.langs]).mean(0).float()
            for name in (self.against, self.concept)
        ]  # fmt: skip
        vectors = torch.stack([torch.zeros_like(step), step])
        basis = torch.nn.functional.normalize(vectors, dim=-1)[:, :, None]
        return Directions(
            vectors=vectors,
            basis=basis,
            means=torch.stack(ends),
            langs=(self.against, self.concept),
            layers=self.layers,
            site=firing.site,
            provenance={**firing.provenance, "estimator": "shared features"},
        )


def shared_features(
    firing: Firing,
    concept: str,
    *,
    against: str | None = None,
    languages: Sequence[str] | None = None,
    top: int = 100,
    share: float = 0.05,
    least: int = 10,
    draws: int = 2000,
    seed: int = 0,
) -> SharedFeatures:
    """The features of a concept in each language by how much oftener they are on, intersected.

    Per language: features that are on in at least `share` of the concept's texts and in `least` of
    them are its pool; of these the `top` by the share of texts with them, concept less `against`.
    Source: Universal Vibe (arXiv 2603.26236), whose null draws from all features of the SAE. Here
    each language draws its number from *its own* pool: languages that share a pool overlap by
    chance alone, 100 of 169 three times in 35 features.

    Raises `SteerlabError` for labels that are no cross, and for a concept that is not there.

    Args:
        firing: of labels such as `formal@de`.
        concept: whose features are sought.
        against: the other concept; where there are two it need not be named.
        languages: by default all.
        top: features of a language and layer, at most.
        share: of the concept's texts that a feature must be on in.
        least: how many texts that must be.
        draws: of the null.
        seed: of the draws.
    """
    need_share("the share of texts", share)
    concepts, langs = axes(firing.langs)
    against = _other(concept, against, concepts)
    langs = langs if languages is None else tuple(languages)
    for name in (concept, against):
        for lang in langs:
            if f"{name}{AT}{lang}" not in firing.langs:
                raise SteerlabError(
                    f"the cell {name}{AT}{lang} is empty; read texts of both concepts in every "
                    "language, or name the languages= that have both"
                )
    if top < 1 or draws < 1:
        raise SteerlabError(f"top is {top} and draws {draws}; give 1 or more of each")
    firing.need_texts()
    on = [firing.langs.index(f"{concept}{AT}{lang}") for lang in langs]
    off = [firing.langs.index(f"{against}{AT}{lang}") for lang in langs]
    score = firing.share[on] - firing.share[off]
    pool = (firing.share[on] >= share) & (firing.texts_on[on] >= least)
    chosen = _top(score, pool, top)
    table = pd.DataFrame(
        [
            {"layer": layer, **_overlap(pool[:, place], chosen[:, place], draws, seed + place)}
            for place, layer in enumerate(firing.layers)
        ]
    )
    return SharedFeatures(
        concept, against, langs, firing.layers, pool, chosen, score.float(), table
    )


def _other(concept: str, against: str | None, concepts: Sequence[str]) -> str:
    if concept not in concepts or (against is not None and against not in concepts):
        raise SteerlabError(
            f"nothing was read of {concept if concept not in concepts else against!r}; the concepts"
            f" are {' '.join(concepts)}"
        )
    rest = [name for name in concepts if name != concept]
    if against is None and len(rest) > 1:
        raise SteerlabError(f"there are {' '.join(rest)} beside {concept}; name one as against=")
    if against == concept:
        raise SteerlabError(f"{concept!r} cannot stand against itself; name another concept")
    return against or rest[0]


def _top(score: Tensor, pool: Tensor, top: int) -> Bool[Tensor, "lang layer unit"]:
    """The `top` of each pool by score; fewer where the pool is smaller."""
    masked = score.masked_fill(~pool, -torch.inf)
    best = masked.topk(min(top, score.shape[-1]), dim=-1).indices
    chosen = torch.zeros_like(pool)
    chosen.scatter_(-1, best, value=True)
    return chosen & pool


def _overlap(
    pool: Bool[Tensor, "lang unit"], chosen: Bool[Tensor, "lang unit"], draws: int, seed: int
) -> dict[str, object]:
    """How many features are shared at a layer, and under the null."""
    sizes, tops = pool.sum(1).tolist(), chosen.sum(1).tolist()
    shared = int(chosen.all(0).sum())
    chance = torch.ones(pool.shape[1], dtype=torch.float64)
    for own, size, number in zip(pool, sizes, tops, strict=True):
        chance *= own.double() * (number / max(1, size))
    rng = generator("shared features", seed)
    as_many = 0
    for _ in range(draws):
        keys = torch.rand(pool.shape, generator=rng).masked_fill(~pool, 2.0)
        common = torch.ones(pool.shape[1], dtype=torch.bool)
        for row, number in zip(keys, tops, strict=True):
            drawn = torch.zeros_like(common)
            drawn[row.argsort()[:number]] = True
            common &= drawn
        as_many += int(common.sum()) >= shared
    return {
        "shared": shared,
        "expected": float(chance.sum()),
        "p": (1 + as_many) / (1 + draws),
        "whole_sae": float(np.prod([n / pool.shape[1] for n in tops]) * pool.shape[1]),
        "pools": tuple(sizes),
        "tops": tuple(tops),
    }
