"""Differences of means over some of the pairs: those whose two texts lie far apart, or near."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.core.random import generator
from steerlab.core.text_vectors import TextVectors

SELECTIONS = ("farthest", "nearest", "random")


def of_instances(
    texts: TextVectors, *, source: str, select: str | None, k: int, seed: int
) -> Directions:
    """`diffmean` of single texts.

    Args:
        texts: the vectors of single texts.
        source: the language that all lead from.
        select: of SELECTIONS; None for all pairs.
        k: how many pairs.
        seed: of `random`.
    """
    if select is not None and select not in SELECTIONS:
        raise SteerlabError(f"there is no selection {select!r}; give {', '.join(SELECTIONS)}")
    given: Any = k
    if isinstance(given, bool) or not isinstance(given, int) or given < 1:
        raise SteerlabError(f"k is {k!r}; give a number of pairs, 1 or more")
    start = texts.of(source)
    means = torch.stack([texts.of(lang).mean(0) for lang in texts.langs])
    if len(texts.langs) < 2:
        raise SteerlabError(f"these texts are of {source} alone; a direction needs two languages")
    vectors = torch.zeros_like(means)
    for index, lang in enumerate(texts.langs):
        if lang == source:
            continue
        steps = texts.differences(source, lang)
        chosen = chosen_pairs(start, texts.of(lang), select, k, seed)
        picked = steps.gather(0, chosen[..., None].expand(-1, -1, steps.shape[-1]))
        vectors[index] = picked.mean(0)
    length = vectors.norm(dim=-1, keepdim=True).clamp(min=1e-30)
    name = "diffmean texts" if select is None else f"diffmean {select}"
    return Directions(
        vectors.float(),
        (vectors / length)[:, :, None].float(),
        means.float(),
        texts.langs,
        texts.layers,
        texts.site,
        source,
        {
            **texts.provenance,
            "estimator": name,
            "settings": {} if select is None else {"select": select, "k": k},
        },
    )


def chosen_pairs(
    start: Float[Tensor, "text layer width"],
    end: Float[Tensor, "text layer width"],
    select: str | None,
    k: int,
    seed: int,
) -> Tensor:
    """The numbers of the chosen pairs at each layer, [chosen layer]."""
    count, layers = start.shape[:2]
    if select is not None and k > count:
        raise SteerlabError(f"k is {k}, and there are {count} pairs; give at most as many")
    if select is None:
        return torch.arange(count)[:, None].expand(-1, layers)
    if select == "random":
        order = torch.randperm(count, generator=generator("random instances", seed))
        return order[:k, None].expand(-1, layers)
    cosine = torch.nn.functional.cosine_similarity(start, end, dim=-1)
    # Stable, so that ties do not depend on k.
    return cosine.argsort(dim=0, descending=select == "nearest", stable=True)[:k]
