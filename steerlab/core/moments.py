"""Sufficient statistics of activations, streamed: what estimators read, and never the
activations themselves."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from steerlab.core.errors import SteerlabError
from steerlab.core.languages import language
from steerlab.core.sites import hook_name

PARTS = ("scatter", "clouds", "sample", "pairs")  # what may be gathered beside count and means
PAIRS = 256  # paired differences a language that are kept as they are


def derangement(count: int, seed: int) -> Tensor:
    """A seeded permutation without a fixed point (of two or more things)."""
    generator = torch.Generator().manual_seed(seed)
    while count > 1:
        order = torch.randperm(count, generator=generator)
        if not (order == torch.arange(count)).any():
            return order
    return torch.arange(count)


@runtime_checkable
class Activations(Protocol):
    """Tensors by hook name: a dict, or a TransformerLens `ActivationCache`, which is no
    `Mapping`."""

    def __getitem__(self, name: str, /) -> Tensor: ...


class Reservoir:
    """A uniform sample of at most `size` token vectors per language (reservoir sampling, Vitter
    1985).

    `vectors` [lang size layer width], of which the first `filled[lang]` are set.
    """

    def __init__(self, langs: int, layers: int, width: int, *, size: int, seed: int = 0):
        self.size, self.seen = size, [0] * langs
        self.vectors = torch.zeros(langs, size, layers, width)
        self._random = torch.Generator().manual_seed(seed)

    def filled(self, lang: int) -> int:
        return min(self.seen[lang], self.size)

    def of(self, lang: int) -> Float[Tensor, "token layer width"]:
        """The sampled token vectors of a language."""
        return self.vectors[lang, : self.filled(lang)]

    def update(self, lang: int, tokens: Float[Tensor, "token layer width"]) -> None:
        free = min(self.size - self.filled(lang), len(tokens))
        start = self.filled(lang)
        self.vectors[lang, start : start + free] = tokens[:free]
        self.seen[lang] += free
        rest = tokens[free:]
        if not len(rest):
            return
        order = torch.arange(self.seen[lang] + 1, self.seen[lang] + len(rest) + 1)
        places = (torch.rand(len(rest), generator=self._random, dtype=torch.float64) * order).long()
        for index in (places < self.size).nonzero()[:, 0].tolist():
            self.vectors[lang, places[index]] = rest[index]
        self.seen[lang] += len(rest)

    def merge(self, other: "Reservoir") -> None:
        """Take over another shard's sample, each side in proportion to what it saw; both must be
        of one size."""
        if self.size != other.size:
            raise SteerlabError(
                f"samples of {self.size} and {other.size} tokens cannot be merged; collect with "
                "one size"
            )
        for lang in range(len(self.seen)):
            mine, theirs = self.of(lang).clone(), other.of(lang)
            total = self.seen[lang] + other.seen[lang]
            if total <= self.size:
                self.update(lang, theirs)
                continue
            share = self.seen[lang] / total
            drawn = int(
                self.size * share + torch.rand((), generator=self._random, dtype=torch.float64)
            )
            take = min(
                len(mine), max(self.size - len(theirs), drawn)
            )  # rounded up or down by chance: no bias
            pick = lambda pool, n: pool[torch.randperm(len(pool), generator=self._random)[:n]]  # noqa: E731
            kept = torch.cat([pick(mine, take), pick(theirs, self.size - take)])
            self.vectors[lang, : len(kept)] = kept
            self.seen[lang] = total


class Paired:
    """What an uncentred SVD of paired differences needs, from one source language to every other.

    Of the sentence means' differences `d` [pair width] per language and layer: their count, sum and
    `d.T @ d`, and a `Reservoir` of `sample` of the differences themselves, from which a bootstrap
    draws.
    """

    def __init__(
        self, source: str, langs: Sequence[str], layers: int, width: int, *, sample: int = 0
    ):
        if source not in langs:
            raise SteerlabError(
                f"the pairs' source {source!r} is none of {' '.join(langs)}; take it from these"
            )
        self.source, self.langs = source, tuple(langs)
        self.sample = Reservoir(len(langs), layers, width, size=sample)
        self.count = torch.zeros(len(langs), dtype=torch.float64)
        self.total = torch.zeros(len(langs), layers, width, dtype=torch.float64)
        self.square = torch.zeros(len(langs), layers, width, width)

    def update(self, means: Mapping[str, Float[Tensor, "row layer width"]]) -> None:
        """Add a block of aligned rows, the same sentences in every language."""
        numbers = {iso: len(means.get(iso, ())) for iso in self.langs}
        if len(set(numbers.values())) > 1:
            told = ", ".join(f"{iso} {number}" for iso, number in numbers.items())
            raise SteerlabError(
                f"the pairs are unequal: {told} sentences; give the same sentences in every "
                "language"
            )
        for place, iso in enumerate(self.langs):
            if iso == self.source:
                continue
            difference = (means[iso] - means[self.source]).float()
            self.count[place] += len(difference)
            self.total[place] += difference.sum(0)
            by_layer = difference.transpose(0, 1)
            self.square[place] += by_layer.mT @ by_layer
            self.sample.update(place, difference)

    def merge(self, other: "Paired") -> None:
        if (self.source, self.langs) != (other.source, other.langs):
            raise SteerlabError(
                "paired statistics of different sources or languages cannot be merged"
            )
        self.count += other.count
        self.total += other.total
        self.square += other.square
        self.sample.merge(other.sample)


class Moments:
    """Count and mean of token vectors per language and layer, in one pass; more on request.

    `count` [lang] tokens; `mean` of all tokens, `pooled` of the texts' means and `last` of the
    texts' last tokens [lang layer width]; with `scatter=True` also `within` [layer width width],
    the scatter about each language's own mean, pooled; with `clouds=True` the same for each
    language [lang layer width width]; with `sample` a `Reservoir` of that many tokens a language;
    with `pairs_from` a `Paired` from that language, which keeps as many differences.
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
        for iso in langs:
            language(iso)
        for layer in layers:
            hook_name(site, layer)
        self.langs, self.layers, self.width, self.site = tuple(langs), tuple(layers), width, site
        shape = (len(self.langs), len(self.layers), width)
        self.count = torch.zeros(len(self.langs), dtype=torch.float64)
        self.rows = torch.zeros(len(self.langs), dtype=torch.float64)
        self.mean = torch.zeros(shape, dtype=torch.float64)
        self.pooled = torch.zeros(shape, dtype=torch.float64)
        self.last = torch.zeros(shape, dtype=torch.float64)
        self.within = (
            torch.zeros(len(self.layers), width, width, dtype=torch.float64) if scatter else None
        )
        self.clouds = torch.zeros(*shape, width) if clouds else None
        self.sample = Reservoir(*shape, size=sample) if sample else None
        self.pairs = (
            Paired(pairs_from, self.langs, shape[1], width, sample=sample or PAIRS)
            if pairs_from
            else None
        )
        self.provenance = dict(provenance or {})

    def update(
        self, lang: str, activations: Activations, mask: Bool[Tensor, "row pos"]
    ) -> Float[Tensor, "row layer width"]:
        """Add texts of one language, and give back each text's mean.

        `activations` maps hook names (`blocks.5.hook_resid_post`) to [row pos width]: a plain dict
        or a TransformerLens `ActivationCache`. `mask` is true where a token counts: not on padding,
        not on BOS.
        """
        if lang not in self.langs:
            raise SteerlabError(
                f"these moments have no {lang!r}; they are for {' '.join(self.langs)}"
            )
        found = [self._values(activations, layer, mask) for layer in self.layers]
        if not len(mask) or not mask.any(1).all():
            raise SteerlabError(
                f"a text of {lang!r} has no token that counts; give texts with at least one token"
            )
        device, counts = found[0].device, mask.sum(1).cpu()
        places, text = mask.flatten().nonzero()[:, 0].to(device), mask.nonzero()[:, 0].to(device)
        ends = (
            torch.arange(1, len(mask) + 1) * mask.shape[1] - 1 - mask.cpu().flip(1).long().argmax(1)
        )
        tokens, sums, last = [], [], []  # of each layer, on the device of the activations
        for h in found:
            flat = h.flatten(0, 1)
            chosen = flat[places].float()
            sums.append(
                torch.zeros(len(mask), self.width, device=device).index_add_(0, text, chosen)
            )
            last.append(flat[ends.to(device)].double().sum(0))
            if any(part is not None for part in (self.within, self.clouds, self.sample)):
                tokens.append(chosen)
        summed = torch.stack(sums, 1).cpu()
        if not torch.isfinite(summed).all():
            raise SteerlabError(
                f"the activations of {lang!r} hold NaN or infinity; the model's weights are broken"
            )
        place = self.langs.index(lang)
        self._add(place, summed.double().sum(0), int(counts.sum()), tokens)
        self.rows[place] += len(mask)
        means = summed / counts[:, None, None]
        for kept, total in (
            (self.last, torch.stack(last).cpu()),
            (self.pooled, means.double().sum(0)),
        ):
            kept[place] += (total - len(mask) * kept[place]) / self.rows[place]
        return means

    def _values(
        self, activations: Activations, layer: int, mask: Tensor
    ) -> Float[Tensor, "row pos width"]:
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

    def _add(self, place: int, total: Tensor, n: int, tokens: list[Tensor]) -> None:
        """Chan, Golub and LeVeque's update of mean and scatter, stable for activations far from the
        origin.

        `total` [layer width] is the sum of n tokens; `tokens`, by layer [token width], is asked for
        by what needs them.
        """
        before, mean = self.count[place].item(), total / n
        step = mean - self.mean[place]
        scatters = [kept for kept in (self.within, self._cloud(place)) if kept is not None]
        if scatters:
            for layer, found in enumerate(tokens):
                centred = found - mean[layer].to(found)
                square = (centred.mT @ centred).cpu()
                for kept in scatters:
                    kept[layer] += square
            for kept in scatters:
                kept += step[:, :, None] * step[:, None, :] * (before * n / (before + n))
        self.mean[place] += step * (n / (before + n))
        self.count[place] += n
        if self.sample is not None:
            self.sample.update(place, torch.stack(tokens, 1).cpu())

    def _cloud(self, place: int) -> Tensor | None:
        return None if self.clouds is None else self.clouds[place]

    def merge(self, other: "Moments") -> "Moments":
        """Add what another shard or machine saw."""
        mine, theirs = self._kind(), other._kind()
        if differing := [
            f"{name} {mine[name]} and {theirs[name]}" for name in mine if mine[name] != theirs[name]
        ]:
            raise SteerlabError(
                f"moments of a different kind cannot be merged: {'; '.join(differing)}"
            )
        total = self.count + other.count
        step = other.mean - self.mean
        share = torch.where(total > 0, other.count / total.clamp(min=1), 0.0)[:, None, None]
        if self.within is not None and other.within is not None:
            weight = (self.count * other.count / total.clamp(min=1))[:, None, None]
            self.within += other.within + torch.einsum("klw,klv->lwv", step * weight, step)
        if self.clouds is not None and other.clouds is not None:
            weight = (self.count * other.count / total.clamp(min=1))[:, None, None]
            self.clouds += other.clouds + torch.einsum("klw,klv->klwv", step * weight, step)
        self.mean += step * share
        rows = (other.rows / (self.rows + other.rows).clamp(min=1))[:, None, None]
        self.last += (other.last - self.last) * rows
        self.pooled += (other.pooled - self.pooled) * rows
        self.count, self.rows = total, self.rows + other.rows
        if self.sample is not None and other.sample is not None:
            self.sample.merge(other.sample)
        if self.pairs is not None and other.pairs is not None:
            self.pairs.merge(other.pairs)
        return self

    def _kind(self) -> dict[str, Any]:
        """What must be equal in two moments for their sum to mean something."""
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
            "model": self.provenance.get("model", {}).get("fingerprint"),
        }

    def at(self, *layers: int) -> "Moments":
        """A view of some layers, for estimators: it shares some memory and is not to be updated."""
        if not layers:
            raise SteerlabError(
                f"name at least one of the layers {', '.join(map(str, self.layers))}"
            )
        for layer in layers:
            if layer not in self.layers:
                raise SteerlabError(
                    f"no layer {layer} here; there are layers {', '.join(map(str, self.layers))}"
                )
        keep, view = [self.layers.index(layer) for layer in layers], copy.copy(self)
        view.layers, view.mean, view.last = tuple(layers), self.mean[:, keep], self.last[:, keep]
        view.pooled = self.pooled[:, keep]
        view.within = None if self.within is None else self.within[keep]
        view.clouds = None if self.clouds is None else self.clouds[:, keep]
        if self.sample is not None:
            view.sample = copy.copy(self.sample)
            view.sample.vectors = self.sample.vectors[:, :, keep]
        if self.pairs is not None:
            view.pairs = copy.copy(self.pairs)
            view.pairs.total, view.pairs.square = (
                self.pairs.total[:, keep],
                self.pairs.square[:, keep],
            )
            view.pairs.sample = copy.copy(self.pairs.sample)
            view.pairs.sample.vectors = self.pairs.sample.vectors[:, :, keep]
        return view

    def covariance(self) -> Float[Tensor, "layer width width"]:
        """The pooled within-language covariance; raises where scatter was not collected."""
        if self.within is None:
            raise SteerlabError(
                "these moments hold no scatter; collect(..., also=['scatter']) gathers it"
            )
        self.need_texts()
        return self.within / self.count.sum()

    def spread(self) -> Float[Tensor, "layer width width"]:
        """The covariance of all tokens about the mean of all: within languages and between them."""
        share = (self.count / self.count.sum())[:, None, None]
        centred = (self.mean - (share * self.mean).sum(0)) * share.sqrt()
        return self.covariance() + torch.einsum("klw,klv->lwv", centred, centred)

    def second_moment(self, lang: int, place: int) -> Float[Tensor, "width width"]:
        """The mean of h hᵀ over a language's tokens, not centred, at the layer number `place`;
        needs `clouds`."""
        mean = self.mean[lang, place]
        return self.need("clouds")[lang, place].double() / self.count[lang] + torch.outer(
            mean, mean
        )

    def need_texts(self) -> None:
        """Raise and name the languages of which nothing was read: their mean is no mean."""
        if missing := [
            iso for iso, count in zip(self.langs, self.count.tolist(), strict=True) if not count
        ]:
            raise SteerlabError(
                f"these moments hold no text of {', '.join(missing)}; update them with some, or "
                "leave it out"
            )

    def need(self, part: str) -> Any:
        """The `clouds`, `sample` or `pairs`; raises and says how to collect it."""
        found = getattr(self, part)
        if found is None:
            raise SteerlabError(
                f"these moments hold no {part}; collect(..., also=['{part}']) gathers it"
            )
        return found
