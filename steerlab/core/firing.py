"""How often and how strongly units are on, streamed: the latents of sparse autoencoders, the
neurons of MLPs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from steerlab.core.equality import by_content
from steerlab.core.errors import SteerlabError
from steerlab.core.languages import language
from steerlab.core.sites import hook_name


class Firing:
    """Counts and moments of every unit's value per language and layer, in one pass.

    `tokens`, `texts` [lang]; `on` [lang layer unit] tokens at which a unit is on, `texts_on` texts
    with such a token; `total` and `square` the sums of its value and of its square over all tokens
    that count; `means` [lang layer width] of what the units were read from: the hook's own
    activations. With `keep`, `seen` [lang text layer unit]: whether the unit is on anywhere in each
    of a language's first `keep` texts. `site` is where an edit of these units acts: `resid_post`
    for an SAE's latents there, `mlp_post` for neurons. `noise` says what was read instead of the
    texts.
    """

    def __init__(
        self,
        langs: Sequence[str],
        layers: Sequence[int],
        units: int,
        width: int,
        *,
        site: str,
        keep: int = 0,
        noise: str | None = None,
        provenance: Mapping[str, Any] | None = None,
    ):
        for iso in langs:
            language(iso)
        for layer in layers:
            hook_name(site, layer)
        self.langs, self.layers, self.units, self.width, self.site = (
            tuple(langs),
            tuple(layers),
            units,
            width,
            site,
        )
        self.noise, self.provenance = noise, dict(provenance or {})
        shape = (len(self.langs), len(self.layers), units)
        self.tokens = torch.zeros(len(self.langs), dtype=torch.float64)
        self.texts = torch.zeros(len(self.langs), dtype=torch.float64)
        self.on, self.texts_on, self.total, self.square = (
            torch.zeros(shape, dtype=torch.float64) for _ in range(4)
        )
        self.sums = torch.zeros(*shape[:2], width, dtype=torch.float64)
        self.seen = (
            torch.zeros(len(self.langs), keep, len(self.layers), units, dtype=torch.bool)
            if keep
            else None
        )

    @property
    def means(self) -> Float[Tensor, "lang layer width"]:
        """The mean activations, whose differences are the natural gaps."""
        return self.sums / self.tokens[:, None, None].clamp(min=1)

    @property
    def rate(self) -> Float[Tensor, "lang layer unit"]:
        """The share of tokens at which each unit is on."""
        return self.on / self.tokens[:, None, None].clamp(min=1)

    @property
    def share(self) -> Float[Tensor, "lang layer unit"]:
        """The share of texts in which each unit is on somewhere."""
        return self.texts_on / self.texts[:, None, None].clamp(min=1)

    @property
    def level(self) -> Float[Tensor, "lang layer unit"]:
        """The mean value of each unit over all tokens, those where it is off included."""
        return self.total / self.tokens[:, None, None].clamp(min=1)

    @property
    def deviation(self) -> Float[Tensor, "lang layer unit"]:
        """The standard deviation of each unit's value over tokens."""
        mean_square = self.square / self.tokens[:, None, None].clamp(min=1)
        return (mean_square - self.level.square()).clamp(min=0).sqrt()

    def update(
        self,
        lang: str,
        layer: int,
        *,
        on: Bool[Tensor, "row pos unit"],
        value: Float[Tensor, "row pos unit"],
        states: Float[Tensor, "row pos width"],
        mask: Bool[Tensor, "row pos"],
    ) -> None:
        """Add a batch of texts at one layer; `mask` is true where a token counts. Call `count`
        once for all layers."""
        self.add(
            lang, layer, self.summed(lang, layer, on=on, value=value, states=states, mask=mask)
        )

    def summed(
        self,
        lang: str,
        layer: int,
        *,
        on: Bool[Tensor, "row pos unit"],
        value: Float[Tensor, "row pos unit"],
        states: Float[Tensor, "row pos width"],
        mask: Bool[Tensor, "row pos"],
    ) -> list[Tensor]:
        """What a batch of texts adds at one layer, for `add`; nothing is changed.

        A pass that fails half-way through the layers leaves nothing behind when all is added at
        its end.
        """
        first = int(self.texts[self._place(lang)])
        texts_on = (on & mask[..., None]).any(1)
        total, kept = (
            value[mask].float(),
            states[mask].float(),
        )  # what does not count may even be NaN
        square = total.square()
        counts = [part.sum(0, dtype=torch.int32).cpu() for part in (on[mask], texts_on)]
        found = [*counts, *(part.sum(0).cpu() for part in (total, square, kept))]
        if not all(torch.isfinite(part).all() for part in found[2:]):
            raise SteerlabError(
                f"the units of layer {layer} hold NaN or infinity for {lang!r}; the weights are "
                "broken"
            )
        kept_texts = 0 if self.seen is None else max(0, self.seen.shape[1] - first)
        return [*found, texts_on[:kept_texts].cpu()]

    def add(self, lang: str, layer: int, sums: Sequence[Tensor]) -> None:
        """Add what `summed` gave for the texts that come next."""
        place, depth = self._place(lang), self.layers.index(layer)
        *found, texts_on = sums
        for name, part in zip(("on", "texts_on", "total", "square", "sums"), found, strict=True):
            getattr(self, name)[place, depth] += part
        if self.seen is not None:
            first = int(self.texts[place])
            room = self.seen[place, first : first + len(texts_on), depth]
            room |= texts_on[: len(room)]

    def count(self, lang: str, mask: Bool[Tensor, "row pos"]) -> None:
        """Close a batch: its texts and tokens, once every layer was updated."""
        place = self._place(lang)
        self.texts[place] += len(mask)
        self.tokens[place] += int(mask.sum())

    def merge(self, other: "Firing") -> "Firing":
        """Add what another shard or machine saw; which texts had which units (`seen`) does not
        merge."""
        mine, theirs = self._kind(), other._kind()
        if differing := [
            f"{name} {mine[name]} and {theirs[name]}" for name in mine if mine[name] != theirs[name]
        ]:
            raise SteerlabError(
                f"firing of a different kind cannot be merged: {'; '.join(differing)}"
            )
        for name in ("tokens", "texts", "on", "texts_on", "total", "square", "sums"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        return self

    def need_texts(self) -> None:
        """Raise and name the languages of which nothing was read."""
        if missing := [
            iso for iso, count in zip(self.langs, self.tokens.tolist(), strict=True) if not count
        ]:
            raise SteerlabError(
                f"nothing was read of {', '.join(missing)}; give some text of it, or leave it out"
            )

    def need_like(self, other: "Firing", purpose: str) -> None:
        """Raise unless the other has the same languages, layers and units: what is compared must
        be comparable."""
        for name in ("langs", "layers", "units", "site"):
            if getattr(self, name) != getattr(other, name):
                raise SteerlabError(
                    f"{purpose} has {name} {getattr(other, name)} and the text "
                    f"{getattr(self, name)}; "
                    "collect both alike"
                )

    def _place(self, lang: str) -> int:
        if lang not in self.langs:
            raise SteerlabError(f"this firing has no {lang!r}; it is for {' '.join(self.langs)}")
        return self.langs.index(lang)

    def _kind(self) -> dict[str, Any]:
        """What must be equal in two for their sum to mean something."""
        told = {
            "languages": self.langs,
            "layers": self.layers,
            "site": self.site,
            "units": self.units,
        }
        told |= {"width": self.width, "noise": self.noise, "kept texts": self.seen is not None}
        about = {name: self.provenance.get(name) for name in ("saes",)}
        return told | about | {"model": self.provenance.get("model", {}).get("fingerprint")}


@dataclass(frozen=True, eq=False)
class Lift:
    """What adding a unit does to a language's mass: `slope` [lang layer unit] per unit of strength,
    NaN if not tried.

    `effect` [lang layer unit strength]: the mean rise of target's mass less source's, at each of
    `strengths`.
    """

    langs: tuple[str, ...]
    layers: tuple[int, ...]
    source: str
    strengths: tuple[float, ...]
    slope: Float[Tensor, "lang layer unit"]
    effect: Float[Tensor, "lang layer unit strength"]
    provenance: Mapping[str, Any]

    __eq__ = by_content


@dataclass(frozen=True, eq=False)
class Gradients:
    """How much each unit serves a labelled answer: `score` [lang layer unit], `control` the same on
    the control items.

    Both are means over items of P(y|x) · max over tokens of (value · dP(y|x)/d value), the
    control's clamped at 0.
    """

    langs: tuple[str, ...]
    layers: tuple[int, ...]
    site: str
    score: Float[Tensor, "lang layer unit"]
    control: Float[Tensor, "lang layer unit"]
    provenance: Mapping[str, Any]

    __eq__ = by_content


@dataclass(frozen=True, eq=False)
class LatentPairs:
    """Differences of chosen latents between sentences and their translations, target less source.

    `differences[lang, layer]` [pair unit] of the sentences' mean latents, over `units[lang, layer]`
    in that order; `source_mean[lang, layer]` [unit]: the same units' mean on the source's
    sentences.
    """

    source: str
    langs: tuple[str, ...]
    layers: tuple[int, ...]
    units: Mapping[tuple[str, int], tuple[int, ...]]
    differences: Mapping[tuple[str, int], Float[Tensor, "pair unit"]]
    source_mean: Mapping[tuple[str, int], Float[Tensor, " unit"]]
    provenance: Mapping[str, Any]

    __eq__ = by_content
