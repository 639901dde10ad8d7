"""LangFIR: features that fire on nearly every text of a language, and on hardly any sequence of
random tokens.

What fires on random tokens as well says little of the language. Source: LangFIR (arXiv 2604.03532).
"""

from collections.abc import Mapping, Sequence
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

# The thresholds of `langfir_counts`, and those that an error proposes where nothing is left; each
# list leads from strict to weak.
CONSISTENCIES = (0.99, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5)
NOISES = (0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5)


def langfir(
    firing: Firing,
    random: Firing,
    shuffled: Firing | None = None,
    *,
    consistency: float = 0.95,
    noise: float = 0.05,
) -> Selection:
    """Choose the features that fire in a language's texts and that random tokens do not set off.

    Formula: a(s) = 1 if the feature is on at any token of the sequence s. A feature is kept where
    the mean of a over the language's texts is at least `consistency`, and over the noise at most
    `noise`. The score is the first mean less the second. No other language is read, so that a
    feature may be kept for several. Source: LangFIR (arXiv 2604.03532), whose thresholds are not
    published.

    The settings in `provenance` say how many features there were before and after each filter.
    Where no language has any feature left it raises, with the counts at the nearest weaker
    thresholds.

    Args:
        firing: how often the features are on in the texts.
        random: what they do on sequences of uniformly random tokens, as many and as long as the
            texts. In a large vocabulary random tokens are mixed-language text themselves, and a
            feature of a common script or a frequent token is lost with the agnostic ones.
        shuffled: what they do on the language's own tokens in another order, a second filter. It
            also removes what the tokens alone set off, those of a script too, and leaves features
            that read how tokens follow each other; often these are few.
        consistency: the least share of the language's texts in which a feature fires.
        noise: the largest share of the sequences of each kind of noise in which it fires.
    """
    need_share("the consistency", consistency)
    need_share("the noise", noise)
    shares = _noise_shares(firing, random, shuffled)
    after_random = _kept(firing.share, shares[:1], consistency, noise)
    chosen = _kept(firing.share, shares, consistency, noise)
    if not chosen.any():
        raise SteerlabError(
            _nothing_left(firing, shares, consistency, noise, int(after_random.sum()))
        )
    settings = {
        "consistency": consistency,
        "noise": noise,
        "consistent": int((firing.share >= consistency).sum()),
        "after random": int(after_random.sum()),
    }
    if shuffled is not None:
        settings["after shuffled"] = int(chosen.sum())
    name = "langfir" if shuffled is None else "langfir shuffled"
    # Of two kinds of noise the one that sets the feature off more often counts.
    score = firing.share - torch.stack(shares).amax(0)
    return selected(name, firing, chosen, score, settings)


def langfir_counts(
    firing: Firing,
    random: Firing,
    shuffled: Firing | None = None,
    *,
    consistency: Sequence[float] = CONSISTENCIES,
    noise: Sequence[float] = NOISES,
) -> pd.DataFrame:
    """Count how many features would be kept at every pair of thresholds.

    Columns: language, layer, consistency, noise, count.

    Args:
        firing: how often the features are on in the texts.
        random: what they do on random tokens.
        shuffled: what they do on the language's own tokens in another order, if that is read.
        consistency: the thresholds of the texts.
        noise: the thresholds of the noise.
    """
    shares = _noise_shares(firing, random, shuffled)
    rows = []
    for least, most in product(consistency, noise):
        need_share("the consistency", least)
        need_share("the noise", most)
        counts = _kept(firing.share, shares, least, most).sum(-1).tolist()
        for lang, counts_of_lang in zip(firing.langs, counts, strict=True):
            for layer, count in zip(firing.layers, counts_of_lang, strict=True):
                rows.append((lang, layer, least, most, count))
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
    """How much of LangFIR's set of features is found from fewer texts, as a Jaccard index.

    The index compares the set from some texts with that from all texts of which a record was kept,
    so that it is 1 where all are drawn. One row for each language, layer and number of `samples`:
    `jaccard` is the mean over draws, `low` and `high` bound the middle 95 % of them, `size` is the
    mean number of features and `size_all` that from all texts. Where neither a draw nor all texts
    find any feature there is no index: such draws are counted as `undefined` and left out, and the
    three columns are NaN where all draws are.

    Args:
        firing: how often the features are on in the texts, collected with `keep`.
        random: what they do on random tokens, collected with `keep`; sequence k belongs to text k
            and is drawn with it.
        samples: how many texts a draw takes, without replacement.
        draws: how many times each number is drawn.
        seed: of the draws.
        consistency: as in `langfir`.
        noise: as in `langfir`.
    """
    _noise_shares(firing, random, None)  # for its checks
    seen, noise_seen = _need_seen(firing, random, samples)
    kept = _kept_texts(firing, random, min(seen.shape[1], noise_seen.shape[1]), samples)
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for index, lang in enumerate(firing.langs):
        texts = seen[index, : kept[lang]]
        sequences = noise_seen[index, : kept[lang]]
        from_all = _features_of(texts, sequences, consistency, noise)
        for number in samples:
            sets = []
            for _ in range(draws):
                drawn = torch.randperm(kept[lang], generator=generator)[:number]
                sets.append(_features_of(texts[drawn], sequences[drawn], consistency, noise))
            stacked = torch.stack(sets)
            for j, layer in enumerate(firing.layers):
                row = {"language": lang, "layer": layer, "samples": number}
                rows.append(row | _agreement(stacked[:, j], from_all[j]))
    return pd.DataFrame(rows)


def _noise_shares(
    firing: Firing, random: Firing, shuffled: Firing | None
) -> list[Float[Tensor, "lang layer unit"]]:
    """The share of noise sequences in which each feature fires, a tensor for each kind of noise."""
    firing.need_texts()
    shares = []
    for noise, kind in ((random, "random"), (shuffled, "shuffled")):
        if noise is None:
            continue
        if noise.noise != kind:
            origin = f"from {noise.noise} tokens" if noise.noise else "from texts"
            raise SteerlabError(
                f"what was given as the {kind} tokens was read {origin}; collect it with "
                f"noise={kind!r}"
            )
        firing.need_like(noise, f"the firing on {kind} tokens")
        noise.need_texts()
        shares.append(noise.share)
    return shares


def _kept(
    share: Float[Tensor, "lang layer unit"],
    noises: Sequence[Float[Tensor, "lang layer unit"]],
    consistency: float,
    noise: float,
) -> Bool[Tensor, "lang layer unit"]:
    """Which features pass both thresholds, given the shares of texts and of each kind of noise."""
    kept = share >= consistency
    for noise_share in noises:
        kept = kept & (noise_share <= noise)
    # With a consistency of 0 a dead feature would pass.
    return kept & (share > 0)


def _nothing_left(
    firing: Firing,
    noises: Sequence[Tensor],
    consistency: float,
    noise: float,
    after_random: int,
) -> str:
    """The error message where no feature is left: what weaker thresholds would leave.

    `after_random` is how many features the random tokens leave, before the shuffled ones.
    """
    # Only thresholds that leave more than nearer ones do are worth naming.
    proposals: list[str] = []
    best = 0
    for least, most in _weaker(consistency, noise):
        count = int(_kept(firing.share, noises, least, most).sum())
        if count > best:
            best = count
            proposals.append(f"{count} at consistency {least:g} and noise {most:g}")
    message = (
        f"no feature fires in {consistency:g} of a language's texts and in at most {noise:g} of "
        "the noise"
    )
    if len(noises) > 1 and after_random:
        message += (
            f" ({after_random} until the shuffled tokens are read: these fire on tokens in any "
            "order)"
        )
    if not proposals:
        return (
            f"{message}, nor at consistency 0.5 and noise 0.5; read other layers, another SAE or "
            "longer texts"
        )
    return (
        f"{message}; over all languages and layers there would be {', '.join(proposals[:3])}: "
        "choose weaker thresholds"
    )


def _weaker(consistency: float, noise: float) -> list[tuple[float, float]]:
    """These thresholds and all weaker ones, those nearest to them first."""
    least = [consistency, *(value for value in CONSISTENCIES if value < consistency)]
    most = [noise, *(value for value in NOISES if value > noise)]

    def distance(pair: tuple[float, float]) -> float:
        return consistency - pair[0] + pair[1] - noise

    return sorted(product(least, most), key=distance)


def _need_seen(
    firing: Firing, random: Firing, samples: Sequence[int]
) -> tuple[Bool[Tensor, "lang text layer unit"], Bool[Tensor, "lang text layer unit"]]:
    """The records of which text, and which sequence of random tokens, has which feature."""
    if firing.seen is None or random.seen is None:
        raise SteerlabError(
            "which text has which feature was not kept; collect both the texts and the random "
            f"tokens with keep={max(samples, default=100)} or more"
        )
    return firing.seen, random.seen


def _kept_texts(
    firing: Firing, random: Firing, room: int, samples: Sequence[int]
) -> dict[str, int]:
    """How many texts of each language have a record, with their random tokens: `room` at most.

    Raises where these are fewer than are to be drawn.
    """
    # A language may have fewer texts than there is room for.
    counts = torch.minimum(firing.texts, random.texts).clamp(max=room).int().tolist()
    kept = dict(zip(firing.langs, counts, strict=True))
    impossible = [number for number in samples if not 0 < number <= min(counts)]
    if impossible:
        short = [f"{lang} {count}" for lang, count in kept.items() if count < max(impossible)]
        raise SteerlabError(
            f"{impossible[0]} texts cannot be drawn: kept are {' '.join(short) or 'enough'}; keep "
            "more, or draw fewer"
        )
    return kept


def _features_of(
    texts: Bool[Tensor, "text layer unit"],
    sequences: Bool[Tensor, "text layer unit"],
    consistency: float,
    noise: float,
) -> Bool[Tensor, "layer unit"]:
    """LangFIR's features of one language, from which text and which noise has which feature."""
    share = texts.sum(0).double() / len(texts)
    noise_share = sequences.sum(0).double() / len(sequences)
    # `_kept` has a language axis.
    return _kept(share[None], [noise_share[None]], consistency, noise)[0]


def _agreement(
    sets: Bool[Tensor, "draw unit"], from_all: Bool[Tensor, " unit"]
) -> dict[str, float]:
    """A row of the stability table: the draws' Jaccard indices with the set from all texts."""
    shared = (sets & from_all).sum(1).double()
    united = (sets | from_all).sum(1).double()
    # Two empty sets have no index: 0 / 0.
    index = (shared / united)[united > 0].numpy()
    mean = low = high = np.nan
    if len(index):
        mean = index.mean()
        low, high = np.percentile(index, [2.5, 97.5])
    return {
        "jaccard": float(mean),
        "low": float(low),
        "high": float(high),
        "size": float(sets.sum(1).double().mean()),
        "size_all": int(from_all.sum()),
        "draws": len(sets),
        "undefined": len(sets) - len(index),
    }


def _langfir(
    latents: Firing, random: Firing, saes: Mapping[int, SAE], *, source: str
) -> Directions:
    return decoded(langfir(latents, random), latents, saes, source=source)


def _langfir_shuffled(
    latents: Firing, random: Firing, shuffled: Firing, saes: Mapping[int, SAE], *, source: str
) -> Directions:
    return decoded(langfir(latents, random, shuffled), latents, saes, source=source)


RECORDS = {
    "langfir": Method(
        _langfir,
        ("latents", "random", "saes"),
        cites=("wong2026langfir",),
    ),
    "langfir shuffled": Method(
        _langfir_shuffled,
        ("latents", "random", "shuffled", "saes"),
        cites=("wong2026langfir",),
    ),
}
