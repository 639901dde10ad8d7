"""Firing of units with languages planted in it."""

from collections.abc import Sequence

import torch
from torch import Tensor

from steerlab.core.firing import Firing

LANGS, LAYERS, UNITS = ("en", "de", "es", "ja"), (1, 4), 40
ABOUT = {"model": {"fingerprint": "abc"}}


def read(
    chance: Tensor,
    *,
    texts: int = 100,
    length: int = 12,
    noise: str | None = None,
    keep: int = 0,
    seed: int = 0,
    langs: Sequence[str] = LANGS,
    layers: Sequence[int] = LAYERS,
) -> Firing:
    """Firing of units that are on at a token with this chance [lang layer unit], streamed in
    batches of uneven size."""
    made = Firing(
        langs,
        layers,
        chance.shape[-1],
        3,
        site="resid_post",
        noise=noise,
        keep=keep,
        provenance=ABOUT,
    )
    generator = torch.Generator().manual_seed(seed)
    for i, lang in enumerate(langs):
        for count in (texts // 3, texts - texts // 3):
            mask = torch.ones(count, length, dtype=torch.bool)
            for j, layer in enumerate(layers):
                on = torch.rand(count, length, chance.shape[-1], generator=generator) < chance[i, j]
                states = torch.zeros(count, length, 3)
                made.update(lang, layer, on=on, value=on * 2.0, states=states, mask=mask)
            made.count(lang, mask)
    return made


def exact(rate: Tensor, *, level: Tensor | None = None, tokens: int = 1000) -> Firing:
    """Firing with just these rates [lang layer unit], and mean values."""
    langs, layers = LANGS[: len(rate)], tuple(range(rate.shape[1]))
    made = Firing(langs, layers, rate.shape[2], rate.shape[2], site="mlp_post", provenance=ABOUT)
    made.tokens += tokens
    made.texts += 10
    made.on += rate.float() * tokens
    made.texts_on += 10 * (rate > 0)
    made.total += (rate if level is None else level).double() * tokens
    made.sums += made.total
    return made


OWN = {
    "en": 0,
    "de": 1,
    "es": 2,
    "ja": 3,
}  # at layer 4 each language has the feature of this number
SHARED, RARE, DEAD = 10, 11, 12


def planted() -> Tensor:
    """Features of their own, one that all and random tokens have, one that fires seldom, a dead
    one, and chaff."""
    chance = torch.full((len(LANGS), len(LAYERS), UNITS), 0.03)
    chance[..., SHARED], chance[..., DEAD] = 0.9, 0
    for lang, unit in OWN.items():
        chance[..., unit] = 0.01
        chance[LANGS.index(lang), 1, unit] = 0.8
        chance[LANGS.index(lang), 1, RARE] = 0.1
    return chance


def noise(level: float = 0.001) -> Tensor:
    chance = torch.full((len(LANGS), len(LAYERS), UNITS), level)
    chance[..., SHARED] = 0.9
    return chance


def rates(seed: int = 0, *, units: int = 200, spread: float = 0.1) -> Tensor:
    """Rates that are alike in all languages but for differences of this spread; of three layers."""
    generator = torch.Generator().manual_seed(seed)
    base = torch.rand(1, 3, units, generator=generator, dtype=torch.float64) * 0.3
    return base * (
        1 + spread * (torch.rand(4, 3, units, generator=generator, dtype=torch.float64) - 0.5)
    )
