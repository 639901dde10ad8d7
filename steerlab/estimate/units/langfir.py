"""LangFIR: features that fire on nearly every text of a language, and on hardly any sequence of
random tokens."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.core.firing import Firing
from steerlab.estimate.units.as_directions import decoded
from steerlab.estimate.units.record import Method
from steerlab.estimate.units.selection import Selection, need_share, selected
from steerlab.sae import SAE

CONSISTENCIES, NOISES = (0.99, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5), (0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5)


def langfir(
    firing: Firing,
    random: Firing,
    shuffled: Firing | None = None,
    *,
    consistency: float = 0.95,
    noise: float = 0.05,
) -> Selection:
    """The features that are consistent in a language's texts and that random tokens do not set off.

    Formula: a(s) = 1 if the feature is on at any token of s; kept where mean a over the language's
    texts is at least `consistency` and over `random` at most `noise`. The score is the first less
    the second. No other language is read, so a feature may be kept for several. Source: LangFIR
    (arXiv 2604.03532), whose thresholds are not published.

    `random`: sequences of uniformly random tokens, as many and as long as the texts. In a large
    vocabulary they are mixed-language text themselves, and a feature of a common script or a
    frequent token is lost with the agnostic ones. `shuffled`: the language's own tokens in another
    order, a second filter with the same `noise`: it removes what the tokens alone set off, those of
    a script too, and leaves features that read how tokens follow each other. Often these are few:
    the settings tell how many features there were before and after it. Where no language has any
    feature left it raises, with the counts at the nearest weaker thresholds.
    """
    need_share("the consistency", consistency)
    need_share("the noise", noise)
    shares = _noises(firing, random, shuffled)
    first = _kept(firing.share, shares[:1], consistency, noise)
    chosen = _kept(firing.share, shares, consistency, noise)
    if not chosen.any():
        raise SteerlabError(_nearest(firing, shares, consistency, noise, int(first.sum())))
    settings = {
        "consistency": consistency,
        "noise": noise,
        "consistent": int((firing.share >= consistency).sum()),
    }
    settings["after random"] = int(first.sum())
    if shuffled is not None:
        settings["after shuffled"] = int(chosen.sum())
    name = "langfir" if shuffled is None else "langfir shuffled"
    return selected(name, firing, chosen, firing.share - torch.stack(shares).amax(0), settings)


def langfir_counts(
    firing: Firing,
    random: Firing,
    shuffled: Firing | None = None,
    *,
    consistency: Sequence[float] = CONSISTENCIES,
    noise: Sequence[float] = NOISES,
) -> pd.DataFrame:
    """How many features would be kept at every two thresholds: language, layer, consistency,
    noise, count."""
    shares, share = _noises(firing, random, shuffled), firing.share
    rows = []
    for least, most in product(consistency, noise):
        need_share("the consistency", least)
        need_share("the noise", most)
        counts = _kept(share, shares, least, most).sum(-1).tolist()
        for iso, of_language in zip(firing.langs, counts, strict=True):
            rows += [
                (iso, layer, least, most, count)
                for layer, count in zip(firing.layers, of_language, strict=True)
            ]
    return pd.DataFrame(rows, columns=["language", "layer", "consistency", "noise", "count"])


def langfir_stability(
    firing: Firing,
    random: Firing,
    *,
    samples: Sequence[int] = (10, 25, 50, 100),
    draws: int = 20,
    seed: int = 0,
    consistency: float = 0.95,
    noise: float = 0.05,
) -> pd.DataFrame:
    """How much of LangFIR's set is found from fewer texts: its Jaccard index with the set from all
    kept texts.

    One row a language, layer and number of `samples`: that many texts, and the random sequences
    that belong to them, are drawn without replacement, `draws` times: `jaccard` the mean, `low` and
    `high` the middle 95 % of the draws, `size` the mean number of features, `size_all` that of all
    texts. A draw that finds nothing where all texts find nothing has no index: it is counted as
    `undefined` and left out; NaN where all are. The draws are part of the whole, so the index is 1
    where all texts are drawn. Needs firing that was collected with `keep`.
    """
    _noises(firing, random, None)
    kept = _kept_texts(firing, random, samples)
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for place, iso in enumerate(firing.langs):
        texts, sequences = (
            part.seen[place, : kept[iso]] for part in (firing, random) if part.seen is not None
        )
        whole = _consistent(texts, sequences, consistency, noise)
        for number in samples:
            drawn = (torch.randperm(kept[iso], generator=generator)[:number] for _ in range(draws))
            sets = torch.stack(
                [_consistent(texts[d], sequences[d], consistency, noise) for d in drawn]
            )
            rows += [
                {"language": iso, "layer": layer, "samples": number}
                | _agreement(sets[:, j], whole[j])
                for j, layer in enumerate(firing.layers)
            ]
    return pd.DataFrame(rows)


def _noises(
    firing: Firing, random: Firing, shuffled: Firing | None
) -> list[Float[Tensor, "lang layer unit"]]:
    """The shares of noise sequences at which each feature is on, one tensor for each kind of
    noise."""
    firing.need_texts()
    found = []
    for noise, kind in ((random, "random"), (shuffled, "shuffled")):
        if noise is None:
            continue
        if noise.noise != kind:
            told = f"was read from {noise.noise} tokens" if noise.noise else "was read from texts"
            raise SteerlabError(
                f"what was given as the {kind} tokens {told}; collect it with noise={kind!r}"
            )
        firing.need_like(noise, f"the firing on {kind} tokens")
        noise.need_texts()
        found.append(noise.share)
    return found


def _kept(
    share: Float[Tensor, "lang layer unit"],
    noises: Sequence[Float[Tensor, "lang layer unit"]],
    consistency: float,
    noise: float,
) -> Bool[Tensor, "lang layer unit"]:
    kept = share >= consistency
    for other in noises:
        kept = kept & (other <= noise)
    # With a consistency of 0 a dead feature would pass.
    return kept & (share > 0)


def _nearest(
    firing: Firing, noises: Sequence[Tensor], consistency: float, noise: float, before: int
) -> str:
    """The error where nothing is left: what is left at the nearest thresholds that leave
    anything."""
    found: list[str] = []
    most_yet = 0
    for least, most in _weaker(consistency, noise):
        if (count := int(_kept(firing.share, noises, least, most).sum())) > most_yet:
            most_yet = count
            found.append(f"{count} at consistency {least:g} and noise {most:g}")
    told = (
        f"no feature fires in {consistency:g} of a language's texts and in at most {noise:g} of "
        "the noise"
    )
    if len(noises) > 1 and before:
        told += f" ({before} until the shuffled tokens are read: these fire on tokens in any order)"
    if not found:
        return (
            f"{told}, nor at consistency 0.5 and noise 0.5; read other layers, another SAE or "
            "longer texts"
        )
    return (
        f"{told}; over all languages and layers there would be {', '.join(found[:3])}: choose "
        "weaker thresholds"
    )


def _weaker(consistency: float, noise: float) -> Iterator[tuple[float, float]]:
    """Weaker thresholds, the nearest first."""
    least = [consistency, *(value for value in CONSISTENCIES if value < consistency)]
    most = [noise, *(value for value in NOISES if value > noise)]
    yield from sorted(
        product(least, most), key=lambda pair: consistency - pair[0] + pair[1] - noise
    )


def _kept_texts(firing: Firing, random: Firing, samples: Sequence[int]) -> dict[str, int]:
    """How many texts of each language have kept which features they have, on both sides."""
    if firing.seen is None or random.seen is None:
        least = max(samples, default=100)
        raise SteerlabError(
            "which text has which feature was not kept; collect both the texts and the random "
            "tokens with "
            f"keep={least} or more"
        )
    room = min(firing.seen.shape[1], random.seen.shape[1])
    counts = torch.minimum(firing.texts, random.texts).clamp(max=room).int().tolist()
    kept = dict(zip(firing.langs, counts, strict=True))
    if wrong := [number for number in samples if not 0 < number <= min(counts)]:
        told = (
            " ".join(f"{iso} {count}" for iso, count in kept.items() if count < max(wrong))
            or "enough"
        )
        raise SteerlabError(
            f"{wrong[0]} texts cannot be drawn: kept are {told}; keep more, or draw fewer"
        )
    return kept


def _consistent(
    texts: Bool[Tensor, "text layer unit"],
    sequences: Bool[Tensor, "text layer unit"],
    consistency: float,
    noise: float,
) -> Bool[Tensor, "layer unit"]:
    share, other = (part.sum(0).double() / len(part) for part in (texts, sequences))
    return _kept(share[None], [other[None]], consistency, noise)[0]


def _agreement(sets: Bool[Tensor, "draw unit"], whole: Bool[Tensor, " unit"]) -> dict[str, float]:
    """The draws' Jaccard indices with the whole: where both are empty there is none."""
    both, either = (sets & whole).sum(1).double(), (sets | whole).sum(1).double()
    index = (both / either)[either > 0].numpy()
    low, high = np.percentile(index, [2.5, 97.5]) if len(index) else (np.nan, np.nan)
    told = {
        "jaccard": float(index.mean()) if len(index) else np.nan,
        "low": float(low),
        "high": float(high),
    }
    sizes = {"size": float(sets.sum(1).double().mean()), "size_all": int(whole.sum())}
    return told | sizes | {"draws": len(sets), "undefined": len(sets) - len(index)}


def _langfir(
    latents: Firing, random: Firing, saes: Mapping[int, SAE], *, source: str
) -> Directions:
    return decoded(langfir(latents, random), latents, saes, source=source)


def _langfir_shuffled(
    latents: Firing, random: Firing, shuffled: Firing, saes: Mapping[int, SAE], *, source: str
) -> Directions:
    return decoded(langfir(latents, random, shuffled), latents, saes, source=source)


RECORDS = {
    "langfir": Method(_langfir, ("latents", "random", "saes")),
    "langfir shuffled": Method(_langfir_shuffled, ("latents", "random", "shuffled", "saes")),
}
