"""Language-specific, -related and -agnostic neurons, and the parts of a model that they reveal.

A neuron is specific if it serves one language, related if it serves several, agnostic if it serves
all. Source: Zhang et al. 2025 (arXiv 2505.21505), of Nanjing University.
"""

import math
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.core.firing import Firing
from steerlab.estimate.units.as_directions import masked
from steerlab.estimate.units.lape import bar_of, entropy
from steerlab.estimate.units.record import NEURONS, Method
from steerlab.estimate.units.selection import Selection, how_many, lowest, need_languages

KINDS = ("none", "specific", "related", "agnostic")


@dataclass(frozen=True)
class Alignment:
    """Which neurons serve one language, several, all or none, and which are selected.

    Args:
        langs: the languages, as ISO 639-1 codes.
        layers: the layers that were read.
        site: where the neurons are, `mlp_post`.
        penalty: the λ of the score, which the bisection found.
        bar: the firing rate above which a neuron serves a language.
        score: the lower, the more selective and active a neuron is.
        above: whether a neuron's rate in a language exceeds the bar.
        selected: the share of all neurons with the lowest scores.
        provenance: what was read, and with which settings.
    """

    langs: tuple[str, ...]
    layers: tuple[int, ...]
    site: str
    penalty: float
    bar: float
    score: Float[Tensor, "layer unit"]
    above: Bool[Tensor, "lang layer unit"]
    selected: Bool[Tensor, "layer unit"]
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def number(self) -> Int[Tensor, "layer unit"]:
        """In how many languages each neuron fires above the bar."""
        return self.above.sum(0)

    def selection(self, kind: str = "both") -> Selection:
        """The selected neurons that serve one language ("specific"), several ("related"), or
        either ("both")."""
        if kind not in ("specific", "related", "both"):
            raise SteerlabError(f"the kinds are 'specific', 'related' and 'both', not {kind!r}")
        kinds = ("specific", "related") if kind == "both" else (kind,)
        of_kind = torch.stack([self._kind(name) for name in kinds]).any(0)
        wanted = self.selected & of_kind
        if not wanted.any():
            numbers = sorted(set(self.number[self.selected].tolist()))
            raise SteerlabError(
                f"none of the {int(self.selected.sum())} selected neurons is {' or '.join(kinds)}: "
                f"they fire above {self.bar:.3g} in {numbers} languages; select a larger "
                "share, or take another percentile"
            )
        settings = {**self.provenance.get("settings", {}), "kind": kind}
        return Selection(
            method="nju" if kind == "both" else f"nju {kind}",
            langs=self.langs,
            layers=self.layers,
            site=self.site,
            chosen=self.above & wanted,
            # In a selection higher is better, and a neuron has the same score for each language.
            score=-self.score.expand(self.above.shape),
            provenance={**self.provenance, "settings": settings},
        )

    def kinds_by_layer(self) -> pd.DataFrame:
        """How many neurons of each kind each layer has.

        Columns: layer, kind, all (neurons of the kind), selected (those of them that are selected),
        share (of all neurons of the layer).
        """
        units = self.score.shape[1]
        rows = []
        for j, layer in enumerate(self.layers):
            for kind in KINDS:
                of_kind = self._kind(kind)[j]
                every = int(of_kind.sum())
                chosen = int((of_kind & self.selected[j]).sum())
                rows.append((layer, kind, every, chosen, every / units))
        return pd.DataFrame(rows, columns=["layer", "kind", "all", "selected", "share"])

    def parts(self) -> dict[str, tuple[int, ...]]:
        """The layers of each of four parts: understanding, reasoning, transformation, output.

        The last layer is the output. Among the others, reasoning is where the share of agnostic
        neurons lies above its own median; understanding is before it, transformation after it. The
        paper gives no rule: this one is ours. Where the share crosses the median more than twice,
        the longest stretch above it is reasoning, of equal ones that with the most agnostic
        neurons.

        Raises, with the numbers, where the share does not rise above the median and fall below it
        again, or where fewer than half of the layers have agnostic neurons: such a model has no
        four parts.
        """
        # Depth order: the layers may have been read in any.
        order = sorted(range(len(self.layers)), key=lambda j: self.layers[j])
        layers = [self.layers[j] for j in order]
        counts = self._kind("agnostic").sum(-1)[order].tolist()
        if len(layers) < 4:
            raise SteerlabError(
                f"four parts need four layers or more; these are {', '.join(map(str, layers))}"
            )
        first, end = _stretch(counts[:-1])
        # Each of the other parts needs a layer, too.
        if not 0 < first < end < len(layers) - 1:
            by_layer = [
                f"layer {layer} {count}" for layer, count in zip(layers, counts, strict=True)
            ]
            raise SteerlabError(
                "this model does not divide into four parts: the share of agnostic neurons does "
                "not rise above its median and fall below it again, or half of the layers have "
                f"none. There are {', '.join(by_layer)} of {self.score.shape[1]} each: show "
                "kinds_by_layer itself"
            )
        return {
            "understanding": tuple(layers[:first]),
            "reasoning": tuple(layers[first:end]),
            "transformation": tuple(layers[end:-1]),
            "output": tuple(layers[-1:]),
        }

    def _of_language(self, index: int, kind: str) -> Bool[Tensor, "layer unit"]:
        """Which selected neurons of a kind serve a language."""
        return self.above[index] & self.selected & self._kind(kind)

    def _kind(self, name: str) -> Bool[Tensor, "layer unit"]:
        """Which neurons are of a kind."""
        all_langs = len(self.langs)
        if name == "related":
            return (self.number > 1) & (self.number < all_langs)
        number_of_kind = {"none": 0, "specific": 1, "agnostic": all_langs}
        return self.number == number_of_kind[name]


def nju(
    firing: Firing,
    *,
    share: float = 0.01,
    percentile: float = 95,
    tolerance: float = 1e-3,
    largest: float = 0.2,
) -> Alignment:
    """Sort neurons by how many languages they serve, and select the selective and active ones.

    Formula: score = H / log K - λ max_k p_k / w, H the entropy of the firing rates p over the K
    languages (`entropy`), w = mean over k of 1/k; the lowest `share` of all neurons is selected. λ
    is the largest in [0, `largest`] with which no selected neuron fires above the bar in all
    languages, found by bisection. Source: Zhang et al. 2025 (arXiv 2505.21505), after its code; its
    note prints H - λ max p. Selected neurons may be above the bar in no language: they are of no
    kind. Reading: firing on given texts, where the paper reads the model's own answers.

    Args:
        firing: how often the neurons are on in the texts.
        share: the share of all neurons that is selected.
        percentile: of all firing rates; the bar above which a neuron serves a language.
        tolerance: how closely λ is looked for.
        largest: the largest λ that is tried.
    """
    need_languages(firing, "nju")
    if not 0 < tolerance < largest:
        raise SteerlabError(
            f"λ is looked for up to {largest} with tolerance {tolerance}; give 0 < tolerance < "
            "largest"
        )
    rate = firing.rate
    number = how_many(share, rate[0].numel())
    bar = bar_of(rate, percentile)
    above = rate > bar
    agnostic = above.all(0)
    others = int((~agnostic).sum())
    if others < number:
        raise SteerlabError(
            f"{number} neurons cannot be selected where {others} are not agnostic; select a "
            "smaller share"
        )
    selective = _selectivity(rate)
    active = _activity(rate)

    def selects_agnostic(penalty: float) -> bool:
        chosen = lowest(selective - penalty * active, number)
        return bool((chosen & agnostic).any())

    penalty = _largest_penalty(selects_agnostic, largest, tolerance)
    score = selective - penalty * active
    settings = {
        "share": share,
        "percentile": percentile,
        "penalty": penalty,
        "bar": bar,
        "largest": largest,
        "tolerance": tolerance,
    }
    return Alignment(
        langs=firing.langs,
        layers=firing.layers,
        site=firing.site,
        penalty=penalty,
        bar=bar,
        score=score,
        above=above,
        selected=lowest(score, number),
        provenance={**firing.provenance, "method": "nju", "settings": settings},
    )


def _selectivity(rate: Float[Tensor, "lang layer unit"]) -> Float[Tensor, "layer unit"]:
    """The entropy over languages as a share of the largest possible: low where few are served."""
    return entropy(rate) / math.log(len(rate))


def _activity(rate: Float[Tensor, "lang layer unit"]) -> Float[Tensor, "layer unit"]:
    """The highest rate over languages, divided by the mean of 1/k over their number, as the
    paper's code does."""
    weight = sum(1 / k for k in range(1, len(rate) + 1)) / len(rate)
    return rate.amax(0) / weight


def _largest_penalty(
    selects_agnostic: Callable[[float], bool], largest: float, tolerance: float
) -> float:
    """The largest λ that selects no agnostic neuron, by bisection.

    The larger λ is, the more a neuron's activity counts, and agnostic neurons are the most active.
    """
    if not selects_agnostic(largest):
        return largest
    if selects_agnostic(0.0):
        raise SteerlabError(
            "even by entropy alone (λ = 0) a selected neuron serves all languages; select a "
            "smaller share, or take a "
            "higher percentile"
        )
    # `low` selects no agnostic neuron and `high` does, in every round.
    low, high = 0.0, largest
    while high - low > tolerance:
        middle = (low + high) / 2
        if selects_agnostic(middle):
            high = middle
        else:
            low = middle
    return low


def _stretch(counts: list[int]) -> tuple[int, int]:
    """The longest run of layers above the median of all, as (its first, one after its last).

    Of equally long ones that with the largest sum; (0, 0) where there is none.
    """
    median = statistics.median(counts)
    runs = [(0, 0)]
    # A median of 0 says that half of the layers have no such neurons: any one would be above it.
    if median == 0:
        return runs[0]
    for index, count in enumerate(counts):
        if count <= median:
            continue
        previous_first, previous_end = runs[-1]
        continues = previous_end == index and index > 0
        if continues:
            runs[-1] = (previous_first, index + 1)
        else:
            runs.append((index, index + 1))

    def length_and_sum(run: tuple[int, int]) -> tuple[int, int]:
        first, end = run
        return end - first, sum(counts[first:end])

    return max(runs, key=length_and_sum)


def _nju(neurons: Firing, *, source: str) -> Directions:
    return masked(nju(neurons).selection("both"), neurons, source=source)


RECORDS = {
    "nju": Method(
        _nju,
        ("neurons",),
        NEURONS,
        cites=("zhang2025alignment",),
    )
}


def kinds_moved(before: Alignment, after: Alignment) -> pd.DataFrame:
    """How many selected neurons of each kind each language has before and after training.

    One row for each language and kind ("specific", "related"), with the columns language, kind,
    before, after, change; stayed, those that are of the kind both times; and by_chance, how many
    would have stayed if the neurons after it were drawn from their layers anew. Source: Zhang et
    al. 2025 (arXiv 2505.21505), who found fewer specific and more related neurons after alignment,
    also in languages that were not aligned. Raises `SteerlabError` for two readings of other
    languages, layers or numbers of neurons.

    Args:
        before: what `nju` found in the model as it was.
        after: the same of the trained model, from the same texts.
    """
    same = (before.langs, before.layers, before.score.shape)
    if same != (after.langs, after.layers, after.score.shape):
        raise SteerlabError(
            f"the neurons before are of {', '.join(before.langs)} in {len(before.layers)} layers, "
            f"those after of {', '.join(after.langs)} in {len(after.layers)}, or their numbers "
            "differ; read both with the same corpus, from the same layers"
        )
    rows = []
    for i, lang in enumerate(before.langs):
        for kind in ("specific", "related"):
            a = before._of_language(i, kind)
            b = after._of_language(i, kind)
            chance = (a.sum(-1) * b.sum(-1)).sum().item() / a.shape[1]
            counts = (int(a.sum()), int(b.sum()))
            rows.append((lang, kind, *counts, counts[1] - counts[0], int((a & b).sum()), chance))
    names = ["language", "kind", "before", "after", "change", "stayed", "by_chance"]
    return pd.DataFrame(rows, columns=names)
