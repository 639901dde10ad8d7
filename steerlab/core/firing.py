"""How often and how strongly units are on, streamed: the latents of sparse autoencoders, the
neurons of MLPs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from steerlab.core.display import Shown, View, counted, heat, layers, listed
from steerlab.core.equality import by_content
from steerlab.core.errors import SteerlabError
from steerlab.core.fingerprints import weights_of
from steerlab.core.labels import label
from steerlab.core.sites import hook_name
from steerlab.core.tensor_file import Content, load_tensors, save_tensors

# What adds up: a batch adds to these, and so does another shard.
_SUMS = ("on", "texts_on", "total", "square", "sums")


FORMAT = "steerlab firing 1"
_READ = ("tokens", "texts")
_ABOUT = ("langs", "layers", "units", "width", "site", "noise", "provenance")


class Firing(Shown):
    """Counts and moments of every unit's value per language and layer, gathered in one pass.

    - `tokens`, `texts` [lang]: how many were read.
    - `on` [lang layer unit]: the tokens at which a unit is on; `texts_on`: the texts with such a
      token.
    - `total`, `square` [lang layer unit]: the sums of a unit's value and of its square, over all
      tokens that count.
    - `sums` [lang layer width]: the sum of what the units were read from, the hook's own
      activations; `means` is their mean.
    - `seen` [lang text layer unit], with `keep`: whether the unit is on anywhere in each of a
      language's first `keep` texts.

    Raises `SteerlabError` for an unknown language or site.

    Args:
        langs: the languages, as ISO 639-1 codes, or other labels (`core.labels`).
        layers: the layers that are read.
        units: how many units each layer has.
        width: of the activations that the units are read from.
        site: where an edit of these units acts: `resid_post` for an SAE's latents there,
            `mlp_post` for neurons.
        keep: of how many texts a language `seen` keeps a record; 0 for none.
        noise: says what was read instead of the texts, if not they, such as random tokens.
        provenance: what the numbers come from: model, autoencoders, corpus.
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
        # Unknown languages and sites raise here, before anything is read.
        for lang in langs:
            label(lang)
        for layer in layers:
            hook_name(site, layer)
        # Copies of the caller's lists: languages and layers must not change under the sums.
        self.langs = tuple(langs)
        self.layers = tuple(layers)
        self.units = units
        self.width = width
        self.site = site
        self.noise = noise
        self.provenance = dict(provenance or {})
        shape = (len(self.langs), len(self.layers), units)
        # float64 also for counts: they are divided by one another, and stay exact up to 2^53.
        self.tokens = torch.zeros(len(self.langs), dtype=torch.float64)
        self.texts = torch.zeros(len(self.langs), dtype=torch.float64)
        self.on = torch.zeros(shape, dtype=torch.float64)
        self.texts_on = torch.zeros(shape, dtype=torch.float64)
        self.total = torch.zeros(shape, dtype=torch.float64)
        self.square = torch.zeros(shape, dtype=torch.float64)
        self.sums = torch.zeros(*shape[:2], width, dtype=torch.float64)
        self.seen: Tensor | None = None
        if keep:
            self.seen = torch.zeros(
                len(self.langs), keep, len(self.layers), units, dtype=torch.bool
            )

    # A language of which nothing was read yet has the value 0 in the five that follow, not 0 / 0.

    @property
    def means(self) -> Float[Tensor, "lang layer width"]:
        """The mean activations, whose differences are the natural gaps between languages."""
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
        """The mean value of each unit over all tokens, including those where it is off."""
        return self.total / self.tokens[:, None, None].clamp(min=1)

    @property
    def deviation(self) -> Float[Tensor, "lang layer unit"]:
        """The standard deviation of each unit's value over tokens."""
        mean_square = self.square / self.tokens[:, None, None].clamp(min=1)
        # Rounding can leave a variance of a constant unit just below zero.
        return (mean_square - self.level.square()).clamp(min=0).sqrt()

    def _view(self) -> View:
        on = f" on {self.noise}" if self.noise else ""
        return View(
            "Firing",
            f"{counted(self.units, 'unit')} a layer, {layers(self.layers)} of {self.site}, "
            f"{counted(len(self.langs), 'language')} ({listed(self.langs)}), "
            f"{counted(float(self.tokens.sum()), 'token')}{on}",
            {
                "model": self.provenance.get("model", {}).get("name"),
                "texts": int(self.texts.sum()),
                "units that are ever on": int((self.on.sum(0) > 0).sum()),
            },
            picture=lambda: heat(self.rate.sum(-1).tolist(), self.langs, self.layers),
            caption="how many units are on at a token, by language and layer",
        )

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
        """Add a batch of texts of one language at one layer; then call `count` once for all layers.

        Raises `SteerlabError` for a language that this was not made for, and for NaN or infinity.

        Args:
            lang: the language of the texts.
            layer: the layer that was read.
            on: whether each unit is on at each token.
            value: each unit's value at each token.
            states: the activations that the units were read from.
            mask: true where a token counts.
        """
        sums = self.summed(lang, layer, on=on, value=value, states=states, mask=mask)
        self.add(lang, layer, sums)

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

        Args:
            lang: the language of the texts.
            layer: the layer that was read.
            on: whether each unit is on at each token.
            value: each unit's value at each token.
            states: the activations that the units were read from.
            mask: true where a token counts.
        """
        # `texts` grows in `count` only, so it is the number of the batch's first text.
        first = int(self.texts[self._lang_index(lang)])
        texts_on = (on & mask[..., None]).any(1)  # [row unit]
        # Select first and add afterwards: a token that does not count may even be NaN.
        values = value[mask].float()
        kept_states = states[mask].float()
        # int32 is enough for the tokens of a batch, and half of what torch takes by default.
        counts = [
            on[mask].sum(0, dtype=torch.int32).cpu(),
            texts_on.sum(0, dtype=torch.int32).cpu(),
        ]
        sums = [
            values.sum(0).cpu(),
            values.square().sum(0).cpu(),
            kept_states.sum(0).cpu(),
        ]
        # Checked before anything is added, so that a refused batch leaves no trace.
        if not all(torch.isfinite(part).all() for part in sums):
            raise SteerlabError(
                f"the units of layer {layer} hold NaN or infinity for {lang!r}; the weights are "
                "broken"
            )
        # Texts beyond the first `keep` find no room, and are left out.
        kept_texts = 0 if self.seen is None else max(0, self.seen.shape[1] - first)
        return [*counts, *sums, texts_on[:kept_texts].cpu()]

    def add(self, lang: str, layer: int, sums: Sequence[Tensor]) -> None:
        """Add what `summed` gave for the texts that come next."""
        lang_index = self._lang_index(lang)
        layer_index = self.layers.index(layer)
        *parts, texts_on = sums
        for name, part in zip(_SUMS, parts, strict=True):
            getattr(self, name)[lang_index, layer_index] += part
        if self.seen is not None:
            first = int(self.texts[lang_index])
            room = self.seen[lang_index, first : first + len(texts_on), layer_index]
            room |= texts_on[: len(room)]

    def count(self, lang: str, mask: Bool[Tensor, "row pos"]) -> None:
        """Close a batch: count its texts and tokens, once every layer was updated."""
        lang_index = self._lang_index(lang)
        self.texts[lang_index] += len(mask)
        self.tokens[lang_index] += int(mask.sum())

    def merge(self, other: "Firing") -> "Firing":
        """Add, in place, what another shard or machine saw.

        The record of which texts had which units (`seen`) is not merged. Raises `SteerlabError`
        where the two were not collected alike, and names what differs.
        """
        mine = self._kind()
        theirs = other._kind()
        differing = [
            f"{name} {mine[name]} and {theirs[name]}" for name in mine if mine[name] != theirs[name]
        ]
        if differing:
            raise SteerlabError(
                f"firing of a different kind cannot be merged: {'; '.join(differing)}"
            )
        for name in ("tokens", "texts", *_SUMS):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        return self

    def save(self, file: str | Path, *, force: bool = False) -> Path:
        """Write .safetensors whose header says what was read; the file appears whole or not at
        all. With `force` it replaces one that steerlab did not write."""
        return save_tensors(file, FORMAT, *self.content(), force=force)

    def content(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The tensors and the rest of what a file holds of it, for `from_content`."""
        kept = {} if self.seen is None else {"seen": self.seen}
        sums = {name: getattr(self, name) for name in (*_READ, *_SUMS)}
        return {**sums, **kept}, {name: getattr(self, name) for name in _ABOUT}

    @classmethod
    def load(cls, file: str | Path) -> "Firing":
        """Read what `save` wrote; raises `SteerlabError` for a missing, truncated, altered or
        foreign file."""
        return load_tensors(file, FORMAT, cls.from_content)

    @classmethod
    def from_content(cls, content: Content) -> "Firing":
        """From what a file holds, of which its own tensors are taken."""
        layers = content.numbers("layers")
        seen = content.tensors.get("seen")
        firing = cls(
            content.words("langs"),
            layers,
            content.number("units", least=1),
            content.number("width", least=1),
            site=content.site(layers),
            keep=0 if seen is None else seen.shape[1],
            noise=None if content.about.get("noise") is None else content.word("noise"),
            provenance=content.object("provenance"),
        )
        for name in (*_READ, *_SUMS, "seen"):
            made = getattr(firing, name)
            if made is not None:
                setattr(firing, name, content.take(name, *made.shape, dtype=made.dtype))
        return firing

    def need_texts(self) -> None:
        """Raise `SteerlabError` if nothing was read of some language, and name it."""
        missing = [
            lang for lang, count in zip(self.langs, self.tokens.tolist(), strict=True) if count == 0
        ]
        if missing:
            raise SteerlabError(
                f"nothing was read of {', '.join(missing)}; give some text of it, or leave it out"
            )

    def need_like(self, other: "Firing", purpose: str) -> None:
        """Raise `SteerlabError` unless the other has the same languages, layers, units and site.

        `purpose` says what the other is, as the beginning of the message: "the firing on noise".
        """
        for name in ("langs", "layers", "units", "site"):
            if getattr(self, name) != getattr(other, name):
                raise SteerlabError(
                    f"{purpose} has {name} {getattr(other, name)} and the text "
                    f"{getattr(self, name)}; collect both alike"
                )

    def _lang_index(self, lang: str) -> int:
        if lang not in self.langs:
            raise SteerlabError(f"this firing has no {lang!r}; it is for {' '.join(self.langs)}")
        return self.langs.index(lang)

    def _kind(self) -> dict[str, Any]:
        """What must be equal in two of them, so that their sum means something."""
        return {
            "languages": self.langs,
            "layers": self.layers,
            "site": self.site,
            "units": self.units,
            "width": self.width,
            "noise": self.noise,
            "kept texts": self.seen is not None,
            "saes": self.provenance.get("saes"),
            "model": weights_of(self.provenance.get("model", {}).get("fingerprint") or ""),
        }


@dataclass(frozen=True, eq=False)
class Lift:
    """How much adding a unit raises the probability of the next token being a language's.

    `effect` [lang layer unit strength]: the mean rise of the target's probability less that of the
    source's, at each of `strengths`. `slope` [lang layer unit]: the same per unit of strength, the
    median over strengths; NaN for units that were not tried.
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
    """How much each unit contributes to the labelled answers of questions in each language.

    `score` [lang layer unit] is the mean over items of P(y|x) · max over tokens of
    (value · dP(y|x)/d value). `control` is the same on the control items, clamped at 0.
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
    """How chosen latents differ between sentences and their translations, target less source.

    `units[lang, layer]`: the latents that were read. `differences[lang, layer]` [pair unit]: the
    differences of their mean values over each sentence, in that order.
    `source_mean[lang, layer]` [unit]: the same latents' mean on the source's sentences.
    """

    source: str
    langs: tuple[str, ...]
    layers: tuple[int, ...]
    units: Mapping[tuple[str, int], tuple[int, ...]]
    differences: Mapping[tuple[str, int], Float[Tensor, "pair unit"]]
    source_mean: Mapping[tuple[str, int], Float[Tensor, " unit"]]
    provenance: Mapping[str, Any]

    __eq__ = by_content
