"""Sufficient statistics of activations, streamed: what estimators read, and never the
activations themselves."""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from einops import rearrange
from jaxtyping import Float, Shaped
from torch import Tensor

from steerlab.core.display import Shown, View, counted, heat, layers, listed
from steerlab.core.errors import SteerlabError
from steerlab.core.fingerprints import weights_of
from steerlab.core.labels import label
from steerlab.core.moments_file import load_moments, save_moments
from steerlab.core.samples import Paired, Reservoir
from steerlab.core.sites import hook_name

PARTS = ("scatter", "clouds", "sample", "pairs")  # what may be gathered beside count and means


PAIRS = 256  # paired differences that are kept as they are, for each language


@runtime_checkable
class Activations(Protocol):
    """Tensors by hook name: a dict, or a TransformerLens `ActivationCache`, which is no
    `Mapping`."""

    def __getitem__(self, name: str, /) -> Tensor: ...


class Moments(Shown):
    """Count and mean of token vectors per language and layer, gathered in one pass; more on
    request.

    - `count`, `rows` [lang]: how many tokens and texts were read.
    - `mean` [lang layer width]: of all tokens; `pooled`: of the texts' own means; `last`: of the
      texts' last tokens.
    - `within` [layer width width], with `scatter`: the scatter of tokens about their own
      language's mean, summed over languages.
    - `clouds` [lang layer width width], with `clouds`: the same, of each language.
    - `sample`, a `Reservoir` of tokens; `pairs`, a `Paired`. What was not asked for is None.

    Raises `SteerlabError` for an unknown language, what is no label, and an unknown site.

    Args:
        langs: the languages, as ISO 639-1 codes, or other labels (`core.labels`).
        layers: the layers that are read.
        width: of the activations.
        site: where the activations are read.
        scatter: whether to gather `within`.
        clouds: whether to gather `clouds`: a matrix for each language and layer.
        sample: how many tokens to keep of each language; 0 for none.
        pairs_from: the source language of `pairs`, which keeps as many differences; None for none.
        provenance: what the numbers come from: model, corpus.
    """

    def __init__(
        self,
        langs: Sequence[str],
        layers: Sequence[int],
        width: int,
        *,
        site: str = "resid_post",
        scatter: bool = False,
        clouds: bool = False,
        sample: int = 0,
        pairs_from: str | None = None,
        provenance: Mapping[str, Any] | None = None,
    ):
        # Unknown languages and sites raise here, before anything is read.
        for lang in langs:
            label(lang)
        for layer in layers:
            hook_name(site, layer)
        for what, names in (("language", langs), ("layer", layers)):
            if len(set(names)) < len(names):
                raise SteerlabError(
                    f"a {what} stands twice in {' '.join(map(str, names))}; name each once"
                )
        self.langs = tuple(langs)
        self.layers = tuple(layers)
        self.width = width
        self.site = site
        shape = (len(self.langs), len(self.layers), width)
        self.count = torch.zeros(len(self.langs), dtype=torch.float64)
        self.rows = torch.zeros(len(self.langs), dtype=torch.float64)
        self.mean = torch.zeros(shape, dtype=torch.float64)
        self.pooled = torch.zeros(shape, dtype=torch.float64)
        self.last = torch.zeros(shape, dtype=torch.float64)
        self.within: Tensor | None = None
        if scatter:
            self.within = torch.zeros(len(self.layers), width, width, dtype=torch.float64)
        # float32: a matrix for each language and layer is large.
        self.clouds = torch.zeros(*shape, width) if clouds else None
        self.sample = Reservoir(*shape, size=sample) if sample else None
        self.pairs: Paired | None = None
        if pairs_from:
            self.pairs = Paired(
                pairs_from, self.langs, len(self.layers), width, sample=sample or PAIRS
            )
        self.provenance = dict(provenance or {})

    def update(
        self, lang: str, activations: Activations, mask: Shaped[Tensor, "row pos"]
    ) -> Float[Tensor, "row layer width"]:
        """Add a batch of texts of one language, and return each text's mean activations.

        Raises `SteerlabError` for a language that this was not made for, an activation that is
        missing or of another shape, a text without a token that counts, and NaN or infinity.

        Args:
            lang: the language of the texts.
            activations: tensors [row pos width] by hook name (`blocks.5.hook_resid_post`): a plain
                dict or a TransformerLens `ActivationCache`.
            mask: true where a token counts: not on padding, not on BOS.
        """
        if lang not in self.langs:
            raise SteerlabError(
                f"these moments have no {lang!r}; they are for {' '.join(self.langs)}"
            )
        if mask.dtype != torch.bool:
            # Numbers would weigh tokens, which are counted.
            if not ((mask == 0) | (mask == 1)).all():
                raise SteerlabError("the mask holds numbers beside 0 and 1; give true or false")
            mask = mask.bool()
        by_layer = [self._values(activations, layer, mask) for layer in self.layers]
        if not len(mask) or not mask.any(1).all():
            raise SteerlabError(
                f"a text of {lang!r} has no token that counts; give texts with at least one token"
            )
        device = by_layer[0].device
        counts = mask.sum(1).cpu()  # tokens of each text
        # Of each token that counts: its index among all positions of the batch, and its text.
        positions = mask.flatten().nonzero()[:, 0].to(device)
        text = mask.nonzero()[:, 0].to(device)
        ends = _last_positions(mask.cpu()).to(device)
        # Lists by layer, on the device of the activations, so that one copy to the CPU is enough.
        tokens = []
        sums = []
        last = []
        needs_tokens = any(part is not None for part in (self.within, self.clouds, self.sample))
        for h in by_layer:
            flat = rearrange(h, "row pos width -> (row pos) width")
            # Padding is left out here, so that what it holds, even NaN, reaches no sum.
            chosen = flat[positions].float()
            zeros = torch.zeros(len(mask), self.width, device=device)
            sums.append(zeros.index_add_(0, text, chosen))
            last.append(flat[ends].double().sum(0))
            if needs_tokens:
                tokens.append(chosen)
        sums_of_texts = torch.stack(sums, 1).cpu()  # [row layer width]
        # Checked before anything is added, so that a refused batch leaves no trace.
        if not torch.isfinite(sums_of_texts).all():
            raise SteerlabError(
                f"the activations of {lang!r} hold NaN or infinity; the model's weights are broken"
            )
        index = self.langs.index(lang)
        self._add(index, sums_of_texts.double().sum(0), int(counts.sum()), tokens)
        self.rows[index] += len(mask)
        # Each text counts once in `pooled` and `last`, however long it is.
        means = sums_of_texts / counts[:, None, None]
        self._add_texts(self.last, index, torch.stack(last).cpu(), len(mask))
        self._add_texts(self.pooled, index, means.double().sum(0), len(mask))
        return means

    def _view(self) -> View:
        parts = [part for part in PARTS if self._has(part)]
        texts = counted(float(self.rows.sum()), "text")
        return View(
            "Moments",
            f"{counted(len(self.langs), 'language')} ({listed(self.langs)}), "
            f"{layers(self.layers)} of {self.site}, width {self.width}, "
            f"{counted(float(self.count.sum()), 'token')} of {texts}"
            + (f", with {', '.join(parts)}" if parts else ""),
            {
                "model": self.provenance.get("model", {}).get("name"),
                "corpus": self.provenance.get("corpus", {}).get("name"),
            },
            picture=lambda: heat(self._distances().tolist(), self.langs, self.layers),
            caption="how far each language's mean lies from that of all, over its length, by layer",
        )

    def _has(self, part: str) -> bool:
        return getattr(self, "within" if part == "scatter" else part) is not None

    def _distances(self) -> Float[Tensor, "lang layer"]:
        middle = self.mean.mean(0, keepdim=True)
        return (self.mean - middle).norm(dim=-1) / middle.norm(dim=-1).clamp(min=1e-30)

    def _values(
        self, activations: Activations, layer: int, mask: Tensor
    ) -> Float[Tensor, "row pos width"]:
        """The activations of one layer; raises where they are missing or of another shape."""
        name = hook_name(self.site, layer)
        try:
            value = activations[name].detach()
        except KeyError as error:
            raise SteerlabError(
                f"the activations hold no {name!r}; cache it, or leave layer {layer} out"
            ) from error
        if value.shape != (*mask.shape, self.width):
            raise SteerlabError(
                f"{name} has shape {tuple(value.shape)}, not mask x width "
                f"{(*mask.shape, self.width)}"
            )
        return value

    def _add(self, index: int, total: Tensor, n: int, tokens: list[Tensor]) -> None:
        """Add n tokens of a language to its mean and scatter.

        This is the update of Chan, Golub and LeVeque (1983), stable for activations far from the
        origin, where the difference of two large sums would lose all digits.

        Args:
            index: the number of the language.
            total: the sum of the tokens, [layer width].
            n: how many tokens.
            tokens: the tokens themselves, by layer [token width]; empty if nothing needs them.
        """
        before = self.count[index].item()
        mean = total / n
        step = mean - self.mean[index]
        # The pooled scatter and the language's own grow by the same matrices.
        scatters = []
        if self.within is not None:
            scatters.append(self.within)
        if self.clouds is not None:
            scatters.append(self.clouds[index])
        if scatters:
            weight = before * n / (before + n)
            # A layer at a time: matrices of all layers at once would be memory that the system
            # hands out, zeroed, and takes back at every batch, a sixth of the time of all.
            for layer, vectors in enumerate(tokens):
                centred = vectors - mean[layer].to(vectors)
                square = (centred.mT @ centred).cpu()
                between = torch.outer(step[layer], step[layer]) * weight
                for scatter in scatters:
                    scatter[layer] += square  # that of the batch about its own mean...
                    scatter[layer] += between  # ... and of the two means about their common one
        self.mean[index] += step * (n / (before + n))
        self.count[index] += n
        if self.sample is not None:
            self.sample.update(index, torch.stack(tokens, 1).cpu())

    def _add_texts(self, mean: Tensor, index: int, total: Tensor, n: int) -> None:
        """Add the sum [layer width] over n texts to a mean over texts; `rows` counts them
        already."""
        mean[index] += (total - n * mean[index]) / self.rows[index]

    def merge(self, other: "Moments") -> "Moments":
        """Add, in place, what another shard or machine saw.

        Raises `SteerlabError` where the two were not collected alike, and names what differs.
        """
        mine = self._kind()
        theirs = other._kind()
        differing = [
            f"{name} {mine[name]} and {theirs[name]}" for name in mine if mine[name] != theirs[name]
        ]
        if differing:
            raise SteerlabError(
                f"moments of a different kind cannot be merged: {'; '.join(differing)}"
            )
        # The update of `_add`, with the other side as the batch. The clamps are for a language of
        # which neither side has read anything: its mean stays 0.
        total = self.count + other.count
        step = other.mean - self.mean
        share = torch.where(total > 0, other.count / total.clamp(min=1), 0.0)[:, None, None]
        weight = (self.count * other.count / total.clamp(min=1))[:, None, None]
        if self.within is not None and other.within is not None:
            self.within += other.within + torch.einsum("klw,klv->lwv", step * weight, step)
        if self.clouds is not None and other.clouds is not None:
            self.clouds += other.clouds + torch.einsum("klw,klv->klwv", step * weight, step)
        self.mean += step * share
        share_of_texts = (other.rows / (self.rows + other.rows).clamp(min=1))[:, None, None]
        self.last += (other.last - self.last) * share_of_texts
        self.pooled += (other.pooled - self.pooled) * share_of_texts
        self.count = total
        self.rows = self.rows + other.rows
        if self.sample is not None and other.sample is not None:
            self.sample.merge(other.sample)
        if self.pairs is not None and other.pairs is not None:
            self.pairs.merge(other.pairs)
        return self

    def _kind(self) -> dict[str, Any]:
        """What must be equal in two of them, so that their sum means something."""
        return {
            "languages": self.langs,
            "layers": self.layers,
            "site": self.site,
            "width": self.width,
            "scatter": self.within is not None,
            "clouds": self.clouds is not None,
            "sample": self.sample and self.sample.size,
            "pairs from": self.pairs and self.pairs.source,
            "deranged": self.provenance.get("deranged"),
            "model": weights_of(self.provenance.get("model", {}).get("fingerprint") or ""),
        }

    def at(self, *layers: int) -> "Moments":
        """Only these layers, for estimators: a view that shares memory and must not be updated.

        Raises `SteerlabError` for a layer that is not there, or for none.
        """
        there = ", ".join(map(str, self.layers))
        if not layers:
            raise SteerlabError(f"name at least one of the layers {there}")
        for layer in layers:
            if layer not in self.layers:
                raise SteerlabError(f"no layer {layer} here; there are layers {there}")
        if len(set(layers)) < len(layers):
            raise SteerlabError(f"a layer stands twice in {layers}; name each once")
        keep = [self.layers.index(layer) for layer in layers]
        # A shallow copy: counts and languages stay shared, only what has an axis of layers is cut.
        view = copy.copy(self)
        view.layers = tuple(layers)
        view.mean = self.mean[:, keep]
        view.last = self.last[:, keep]
        view.pooled = self.pooled[:, keep]
        view.within = None if self.within is None else self.within[keep]
        view.clouds = None if self.clouds is None else self.clouds[:, keep]
        if self.sample is not None:
            view.sample = copy.copy(self.sample)
            view.sample.vectors = self.sample.vectors[:, :, keep]
        if self.pairs is not None:
            view.pairs = copy.copy(self.pairs)
            view.pairs.total = self.pairs.total[:, keep]
            view.pairs.square = self.pairs.square[:, keep]
            view.pairs.sample = copy.copy(self.pairs.sample)
            view.pairs.sample.vectors = self.pairs.sample.vectors[:, :, keep]
        return view

    def save(self, file: str | Path, *, force: bool = False) -> Path:
        """Write .safetensors whose header says what was read; the file appears whole or not at
        all. With `force` it replaces one that steerlab did not write."""
        return save_moments(self, file, force=force)

    @classmethod
    def load(cls, file: str | Path) -> "Moments":
        """Read what `save` wrote, and go on from there: `update` and `merge` give what they would
        have given.

        Raises `SteerlabError` for a missing, truncated, altered or foreign file.
        """
        return load_moments(cls, file)

    def covariance(self) -> Float[Tensor, "layer width width"]:
        """The pooled within-language covariance: the scatter over the number of tokens.

        Raises `SteerlabError` where no scatter was collected.
        """
        if self.within is None:
            raise SteerlabError(
                "these moments hold no scatter; collect(..., also=['scatter']) gathers it"
            )
        self.need_texts()
        return self.within / self.count.sum()

    def spread(self) -> Float[Tensor, "layer width width"]:
        """The covariance of all tokens about the mean of all: within languages and between them."""
        # Between languages, each weighs as much as it has tokens.
        share = (self.count / self.count.sum())[:, None, None]
        centred = (self.mean - (share * self.mean).sum(0)) * share.sqrt()
        return self.covariance() + torch.einsum("klw,klv->lwv", centred, centred)

    def second_moment(self, lang: int, place: int) -> Float[Tensor, "width width"]:
        """The mean of h hᵀ over a language's tokens h, not centred.

        `lang` and `place` count the languages and the layers from 0. Raises `SteerlabError` where
        no clouds were collected.
        """
        mean = self.mean[lang, place]
        covariance = self.need("clouds")[lang, place].double() / self.count[lang]
        return covariance + torch.outer(mean, mean)

    def need_texts(self) -> None:
        """Raise `SteerlabError` if nothing was read of some language, since it has no mean; name
        it."""
        missing = [
            lang for lang, count in zip(self.langs, self.count.tolist(), strict=True) if count == 0
        ]
        if missing:
            raise SteerlabError(
                f"these moments hold no text of {', '.join(missing)}; update them with some, or "
                "leave it out"
            )

    def need(self, part: str) -> Any:
        """The `clouds`, `sample` or `pairs`; raises `SteerlabError` if they were not collected,
        and says how to."""
        value = getattr(self, part)
        if value is None:
            raise SteerlabError(
                f"these moments hold no {part}; collect(..., also=['{part}']) gathers it"
            )
        return value


def _last_positions(mask: Tensor) -> Tensor:
    """The last position that counts of each text, among all positions of the batch, [row].

    `mask` [row pos] is true where a token counts.
    """
    # `argmax` finds the first true value, so the mask is turned around.
    behind = mask.flip(1).long().argmax(1)
    ends_of_rows = torch.arange(1, len(mask) + 1) * mask.shape[1] - 1
    return ends_of_rows - behind
