"""Language-specific, -related and -agnostic neurons, and the parts of a model that their numbers
tell apart."""

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
PARTS = ("understanding", "reasoning", "transformation", "output")


@dataclass(frozen=True)
class Alignment:
    """Which neurons serve one language, some, all or none, and those selected.

    `above` [lang layer unit]: the rate of firing exceeds `bar`; `number` [layer unit]: in how many
    languages: 1 is specific, all agnostic, between them related. `score` [layer unit] is the lower
    the more selective and active, with `penalty` the λ that the bisection found; `selected` [layer
    unit] the share with the lowest.
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
        kinds = KINDS[1:3] if kind == "both" else (kind,)
        wanted = self.selected & torch.stack([self._kind(name) for name in kinds]).any(0)
        if not wanted.any():
            raise SteerlabError(
                f"none of the {int(self.selected.sum())} selected neurons is {' or '.join(kinds)}: "
                "they fire above "
                f"{self.bar:.3g} in {sorted(set(self.number[self.selected].tolist()))} languages; "
                "select a larger "
                "share, or take another percentile"
            )
        about = {
            **self.provenance,
            "settings": {**self.provenance.get("settings", {}), "kind": kind},
        }
        name, score = (
            "nju" if kind == "both" else f"nju {kind}",
            -self.score.expand(self.above.shape),
        )
        return Selection(
            name, self.langs, self.layers, self.site, self.above & wanted, score, about
        )

    def kinds_by_layer(self) -> pd.DataFrame:
        """How many neurons of each kind each layer has: layer, kind, all, selected, share (of
        the layer's)."""
        units, rows = self.score.shape[1], []
        for j, layer in enumerate(self.layers):
            for kind in KINDS:
                here = self._kind(kind)[j]
                every, chosen = int(here.sum()), int((here & self.selected[j]).sum())
                rows.append((layer, kind, every, chosen, every / units))
        return pd.DataFrame(rows, columns=["layer", "kind", "all", "selected", "share"])

    def parts(self) -> dict[str, tuple[int, ...]]:
        """The layers of each of four parts: understanding, reasoning, transformation, output.

        The last layer is the output. Among the others, reasoning is where the share of agnostic
        neurons lies above its own median; understanding is before, transformation behind. The paper
        gives no rule: this one is ours. Where the share crosses the median more than twice, the
        longest stretch above it is reasoning, of equal ones that with the most agnostic neurons. A
        model whose share does not rise above the median and fall below it again has no such parts,
        nor one with agnostic neurons in less than half of its layers: that raises, with their
        numbers.
        """
        order = sorted(range(len(self.layers)), key=lambda j: self.layers[j])
        layers, number = (
            [self.layers[j] for j in order],
            self._kind("agnostic").sum(-1)[order].tolist(),
        )
        if len(layers) < 4:
            raise SteerlabError(
                f"four parts need four layers or more; these are {', '.join(map(str, layers))}"
            )
        first, end = _stretch(number[:-1])
        if not 0 < first < end < len(layers) - 1:
            told = ", ".join(
                f"layer {layer} {count}" for layer, count in zip(layers, number, strict=True)
            )
            raise SteerlabError(
                "this model does not divide into four parts: the share of agnostic neurons does "
                "not rise above its "
                "median and fall below it again, or half of the layers have none. There are "
                f"{told} of "
                f"{self.score.shape[1]} each: show kinds_by_layer itself"
            )
        cuts = (layers[:first], layers[first:end], layers[end:-1], layers[-1:])
        return {name: tuple(part) for name, part in zip(PARTS, cuts, strict=True)}

    def _kind(self, name: str) -> Bool[Tensor, "layer unit"]:
        number, most = self.number, len(self.langs)
        if name == "related":
            return (number > 1) & (number < most)
        return number == {"none": 0, "specific": 1, "agnostic": most}[name]


def nju(
    firing: Firing,
    *,
    share: float = 0.01,
    percentile: float = 95,
    tolerance: float = 1e-3,
    largest: float = 0.2,
) -> Alignment:
    """Neurons by how many languages they serve, and the selective and active ones among them.

    Formula: score = H / log K - λ max_k p_k / w, H the entropy of the rates p over the K languages
    (`entropy`), w = mean over k of 1/k; the lowest `share` of all neurons is selected. λ is the
    largest in [0, `largest`] with which no selected neuron fires above the bar in all languages, by
    bisection to `tolerance`; the bar is the `percentile` of all rates. Source: Zhang et al. 2025
    (arXiv 2505.21505), after its code; its note prints H - λ max p. Selected neurons may be above
    the bar in no language: they are of no kind. Reading: firing on given texts, where the paper
    reads the model's own answers.
    """
    need_languages(firing, "nju")
    if not 0 < tolerance < largest:
        raise SteerlabError(
            f"λ is looked for up to {largest} with tolerance {tolerance}; give 0 < tolerance < "
            "largest"
        )
    rate = firing.rate
    number, bar = how_many(share, rate[0].numel()), bar_of(rate, percentile)
    above = rate > bar
    selective, active, agnostic = _selectivity(rate), _activity(rate), above.all(0)
    if (few := int((~agnostic).sum())) < number:
        raise SteerlabError(
            f"{number} neurons cannot be selected where {few} are not agnostic; select a smaller "
            "share"
        )
    spoils = lambda penalty: bool((lowest(selective - penalty * active, number) & agnostic).any())  # noqa: E731
    penalty = _largest(spoils, largest, tolerance)
    score = selective - penalty * active
    settings = {
        "share": share,
        "percentile": percentile,
        "penalty": penalty,
        "bar": bar,
        "largest": largest,
    }
    about = {**firing.provenance, "method": "nju", "settings": settings | {"tolerance": tolerance}}
    chosen = lowest(score, number)
    return Alignment(
        firing.langs, firing.layers, firing.site, penalty, bar, score, above, chosen, about
    )


def _selectivity(rate: Float[Tensor, "lang layer unit"]) -> Float[Tensor, "layer unit"]:
    return entropy(rate) / math.log(len(rate))


def _activity(rate: Float[Tensor, "lang layer unit"]) -> Float[Tensor, "layer unit"]:
    return rate.amax(0) / (sum(1 / k for k in range(1, len(rate) + 1)) / len(rate))


def _largest(spoils: Callable[[float], bool], largest: float, tolerance: float) -> float:
    """The largest λ that selects no agnostic neuron; with a larger one those come in for being
    active."""
    low, high = 0.0, largest
    if not spoils(high):
        return high
    if spoils(low):
        raise SteerlabError(
            "even by entropy alone (λ = 0) a selected neuron serves all languages; select a "
            "smaller share, or take a "
            "higher percentile"
        )
    while high - low > tolerance:
        middle = (low + high) / 2
        low, high = (low, middle) if spoils(middle) else (middle, high)
    return low


def _stretch(number: list[int]) -> tuple[int, int]:
    """The longest run of layers above the median of all: (first, one behind the last); (0, 0) if
    there is none."""
    middle = statistics.median(number)
    runs = [(0, 0)]
    for place, value in enumerate(number if middle else []):
        if value > middle:
            first = runs.pop()[0] if runs[-1][1] == place > 0 else place
            runs.append((first, place + 1))
    return max(runs, key=lambda run: (run[1] - run[0], sum(number[slice(*run)])))


def _nju(neurons: Firing, *, source: str) -> Directions:
    return masked(nju(neurons).selection("both"), neurons, source=source)


RECORDS = {"nju": Method(_nju, ("neurons",), NEURONS)}
