"""How differently languages are routed through a mixture of experts, layer by layer: divergences,
what chance gives, and two statements about their course over depth."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from steerlab.analysis.tests import ALPHA, holm, sign_flips
from steerlab.core.errors import SteerlabError
from steerlab.core.labels import families_of
from steerlab.core.routing import Routing, entropy_of
from steerlab.core.samples import derangement

DRAWS = 999  # permutations; with what was observed they make 1,000
Verdict = Literal["holds here", "opposite here", "cannot tell"]


@dataclass(frozen=True, eq=False)
class RoutingDivergence:
    """How far languages are routed from a source.

    Args:
        source: the language that all are compared with.
        langs: the others.
        layers: the layers.
        pairs: the divergence of each text from its translation in the source, [lang text layer].
        table: a row for each language and layer. `divergence`: the mean over pairs. `shuffled`: the
            same of texts and translations of *other* texts, which share the languages and not the
            content. `of_means`: the divergence of the languages' mean weights; `null`: what it is
            on average where the languages of pairs are exchanged at random; `p`: how often it is
            as large then; `p_holm`: corrected over the table.
    """

    source: str
    langs: tuple[str, ...]
    layers: tuple[int, ...]
    pairs: Float[np.ndarray, "lang text layer"]
    table: pd.DataFrame


@dataclass(frozen=True)
class Statement:
    """A sentence that the numbers may bear out or not.

    Args:
        says: the sentence.
        statistic: positive where the numbers lie as it says, negative where they lie against it.
        p: how often chance gives as much, one-sided.
        p_opposite: how often chance gives as much of the opposite.
        sentences: over how many texts.
    """

    says: str
    statistic: float
    p: float
    p_opposite: float
    sentences: int

    @property
    def verdict(self) -> Verdict:
        """What can be said at the 5 % level."""
        if self.p < ALPHA:
            return "holds here"
        return "opposite here" if self.p_opposite < ALPHA else "cannot tell"


def divergence(
    p: Float[Tensor, "*any expert"], q: Float[Tensor, "*any expert"]
) -> Float[Tensor, "*any"]:
    """The entropy-normalised Jensen-Shannon divergence of two distributions over experts.

    Formula: JS(p, q) / ((H(p) + H(q)) / 2), with JS = H((p + q) / 2) - (H(p) + H(q)) / 2; 0 for
    equal ones, infinity for two different experts that are each met for certain. Source: Bandarkar
    et al. (arXiv 2510.04694), of whose normaliser we have no formula: the mean of the two entropies
    is our reading.
    """
    own = (entropy_of(p) + entropy_of(q)) / 2
    # Rounding can leave a divergence of equal ones just below zero.
    apart = (entropy_of((p.double() + q.double()) / 2) - own).clamp(min=0)
    return torch.where(apart > 0, apart / own, torch.zeros_like(apart))


def routing_divergence(
    routing: Routing, *, source: str = "en", draws: int = DRAWS, seed: int = 0
) -> RoutingDivergence:
    """How differently each language is routed from the source, by layer, on parallel texts.

    The divergence is that of `divergence`, of each text's mean router weights and its
    translation's, averaged over texts. It is above 0 by chance alone, as texts are short: `p` is of
    the divergence of the two languages' means, with the two texts of a pair exchanged at random,
    which leaves every text's content where it is. Source: Bandarkar et al. (arXiv 2510.04694); the
    permutation test and the shuffled pairs are ours.

    Raises `SteerlabError` for texts that are not parallel, and for fewer than two.

    Args:
        routing: of an aligned corpus.
        source: the language that the others are compared with.
        draws: random exchanges of each test.
        seed: decides them.
    """
    weights = _parallel(routing, source, draws)
    start = weights[routing.langs.index(source)]
    other = derangement(len(start), seed)
    random = np.random.default_rng(seed)
    signs = torch.from_numpy(random.choice([-1.0, 1.0], size=(draws, len(start))))
    langs = tuple(lang for lang in routing.langs if lang != source)
    pairs, rows = [], []
    for lang in langs:
        end = weights[routing.langs.index(lang)]
        own, shuffled = divergence(start, end), divergence(start[other], end)
        pairs.append(own.numpy())
        for place, layer in enumerate(routing.layers):
            observed, null = _exchanged(start[:, place], end[:, place], signs)
            rows.append(
                {
                    "lang": lang,
                    "layer": layer,
                    "divergence": float(own[:, place].mean()),
                    "shuffled": float(shuffled[:, place].mean()),
                    "of_means": observed,
                    "null": float(null.mean()),
                    "p": float((1 + (null >= observed).sum()) / (1 + draws)),
                }
            )
    table = pd.DataFrame(rows)
    table["p_holm"] = holm(table["p"].tolist())
    return RoutingDivergence(source, langs, routing.layers, np.stack(pairs), table)


def routing_by_family(routing: Routing, *, draws: int = DRAWS, seed: int = 0) -> pd.DataFrame:
    """Whether languages of one family are routed more alike than languages of two.

    One row for each layer: `within` and `between`, the mean divergence of parallel texts of two
    languages of one family, and of two families; `difference` = between - within; `p`, how often it
    is as large where the languages' families are exchanged at random; `p_layers`, the same with
    each exchange's largest difference over layers. Raises `SteerlabError` where no two languages
    share a family, or all do.

    Args:
        routing: of an aligned corpus.
        draws: random exchanges of the languages' families.
        seed: decides them.
    """
    weights = _parallel(routing, None, draws)
    _, family = np.unique(families_of(routing.langs), return_inverse=True)
    first, second = np.triu_indices(len(family), 1)
    one = family[first] == family[second]
    if not one.any() or one.all():
        raise SteerlabError(
            f"the languages {' '.join(routing.langs)} are all of one family or of one each; add "
            "relatives, or others"
        )
    ends = zip(first.tolist(), second.tolist(), strict=True)
    apart = torch.stack([divergence(weights[a], weights[b]).mean(0) for a, b in ends]).numpy()
    random = np.random.default_rng(seed)
    dealt = np.stack([family, *(random.permutation(family) for _ in range(draws))])
    same = dealt[:, first] == dealt[:, second]  # [dealing pair]
    within = same @ apart / same.sum(1, keepdims=True)
    between = ~same @ apart / (~same).sum(1, keepdims=True)
    difference = between - within  # [dealing layer]
    # Sums of the same numbers in another order round differently.
    reached = difference[1:] >= difference[0] - 1e-12
    largest = difference[1:].max(1, keepdims=True) >= difference[0] - 1e-12
    return pd.DataFrame(
        {
            "layer": routing.layers,
            "within": within[0],
            "between": between[0],
            "difference": difference[0],
            "p": (1 + reached.sum(0)) / (1 + draws),
            "p_layers": (1 + largest.sum(0)) / (1 + draws),
        }
    )


def u_shape(found: RoutingDivergence, *, draws: int = 9_999, seed: int = 0) -> Statement:
    """Whether the divergence is larger at both ends of the model than in its middle.

    By thirds of the layers that have a router, and texts as draws: of each text, the mean over
    languages of the first third less the middle one, and of the last less the middle. The statistic
    is the smaller of the two mean differences; p the larger of their one-sided p-values, by
    flipping the signs of texts, so that both have to hold. The opposite is a middle above both
    ends. Source of the sentence: Bandarkar et al. (arXiv 2510.04694).
    """
    first, middle, last = _thirds(found.pairs.mean(0), found.layers)
    ends = (first - middle, last - middle)
    means = [float(each.mean()) for each in ends]
    chances = [_one_sided(each, draws, seed) for each in ends]
    # Of two that point apart the smaller says that the sentence is wrong.
    statistic = max(means) if max(means) < 0 else min(means)
    return Statement(
        f"Texts are routed further from their translations in {found.source} in the first and the "
        "last third of the layers than in the middle third.",
        statistic,
        max(p for p, _ in chances),
        max(opposite for _, opposite in chances),
        len(first),
    )


def spread_out(routing: Routing, *, draws: int = 9_999, seed: int = 0) -> Statement:
    """Whether texts are spread over more experts in the end than in the middle of the model.

    Spread is the entropy of a text's mean router weights, the mean over languages; of each text
    that of the last third of the layers less that of the middle third. The statistic is the mean
    difference in nats, p one-sided by flipping the signs of texts.
    """
    routing = _need_alike(routing)
    _, middle, last = _thirds(routing.entropy.mean(0).numpy(), routing.layers)
    p, opposite = _one_sided(last - middle, draws, seed)
    return Statement(
        "Texts are spread over more experts in the last third of the layers than in the middle "
        "third.",
        float((last - middle).mean()),
        p,
        opposite,
        len(last),
    )


def _parallel(
    routing: Routing, source: str | None, draws: int
) -> Float[Tensor, "lang text layer expert"]:
    """The weights of parallel texts, in float64; what cannot be compared raises."""
    if source is not None and source not in routing.langs:
        raise SteerlabError(
            f"the source {source!r} is none of {' '.join(routing.langs)}; take it from these"
        )
    if len(routing.langs) < 2:
        raise SteerlabError(
            f"there is {routing.langs[0]} alone; collect the routing of two languages or more"
        )
    if draws < 1:
        raise SteerlabError(f"draws is {draws}; give 1 or more")
    return _need_alike(routing).paired().double()


def _need_alike(routing: Routing) -> Routing:
    if (count := routing.paired().shape[1]) < 2:
        raise SteerlabError(f"there is {count} text of each language; give two or more")
    return routing


def _exchanged(
    start: Float[Tensor, "text expert"],
    end: Float[Tensor, "text expert"],
    signs: Float[Tensor, "draw text"],
) -> tuple[float, np.ndarray]:
    """(the divergence of the two means; the same of each draw, where the texts of pairs with a
    negative sign are exchanged)."""
    centre = (start.mean(0) + end.mean(0)) / 2
    half = (end - start) / 2
    moved = torch.cat([torch.ones_like(signs[:1]), signs]) @ half / len(half)
    # Of a sum of many signs a weight may come out just below zero.
    apart = divergence((centre - moved).clamp(min=0), (centre + moved).clamp(min=0)).numpy()
    return float(apart[0]), apart[1:]


def _thirds(
    values: Float[np.ndarray, "text layer"], layers: tuple[int, ...]
) -> list[Float[np.ndarray, " text"]]:
    """The mean of each text over the first, the middle and the last third of the layers; the
    middle takes what is left over."""
    size = len(layers) // 3
    if not size:
        raise SteerlabError(
            f"there are {len(layers)} layers with a router; thirds need three or more"
        )
    parts = (values[:, :size], values[:, size:-size], values[:, -size:])
    return [part.mean(1) for part in parts]


def _one_sided(
    differences: Float[np.ndarray, " text"], draws: int, seed: int
) -> tuple[float, float]:
    """The p-values of a mean above 0 and of one below, by flipping signs."""
    half = sign_flips(differences, draws=draws, seed=seed) / 2
    return (half, 1 - half) if differences.mean() > 0 else (1 - half, half)
