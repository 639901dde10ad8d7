"""Texts with something planted in them, and the moments that a pass over them gathers."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from steerlab.core.moments import Moments
from steerlab.core.sites import hook_name

LANGS, LAYERS, WIDTH = ("en", "de", "es", "ja"), (1, 4), 24
Texts = Mapping[str, Tensor]  # h [row pos layer width] by language


def moments(
    texts: Texts,
    *,
    scatter: bool = True,
    clouds: bool = True,
    sample: int = 300,
    pairs_from: str | None = "en",
) -> Moments:
    width, layers = next(iter(texts.values())).shape[-1], next(iter(texts.values())).shape[-2]
    names = tuple(range(layers)) if layers != len(LAYERS) else LAYERS
    about = {"model": {"fingerprint": "abc"}}
    parts = {"scatter": scatter, "clouds": clouds, "sample": sample, "pairs_from": pairs_from}
    made = Moments(tuple(texts), names, width, provenance=about, **parts)  # type: ignore[arg-type]
    add_texts(made, texts, names)
    return made


def add_texts(
    made: Moments, texts: Texts, names: tuple[int, ...] = LAYERS, *, padding: int = 0
) -> None:
    """Feed texts, each with so many positions of padding on its left, which hold NaN."""
    means = {}
    for lang, h in texts.items():
        padded = torch.nn.functional.pad(h, (0, 0, 0, 0, padding, 0), value=float("nan"))
        activations = {
            hook_name("resid_post", layer): padded[:, :, place] for place, layer in enumerate(names)
        }
        mask = (torch.arange(padded.shape[1]) >= padding).expand(padded.shape[:2])
        means[lang] = made.update(lang, activations, mask)
    if made.pairs is not None:
        made.pairs.update(means)


def planted(seed: int = 0, *, noise_seed: int | None = None) -> tuple[dict[str, Tensor], Tensor]:
    """Texts, each its sentence's vector, its language's and noise; and the languages' vectors
    [lang layer width]."""
    generator = torch.Generator().manual_seed(seed)
    randn = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    places = torch.linalg.qr(randn(len(LAYERS), WIDTH, len(LANGS)))[0].mT.transpose(0, 1) * 3
    if noise_seed is not None:
        generator.manual_seed(noise_seed)
    sentences, shared = randn(60, 1, len(LAYERS), WIDTH), randn(len(LAYERS), WIDTH) * 2
    noise = {lang: randn(60, 5, len(LAYERS), WIDTH) for lang in LANGS}
    return {
        lang: shared + sentences + places[i] + noise[lang] for i, lang in enumerate(LANGS)
    }, places


def shuffled(texts: Texts, seed: int) -> dict[str, Tensor]:
    """The same texts, the languages of each sentence dealt anew."""
    every = torch.stack([texts[lang] for lang in LANGS])
    order = torch.rand(every.shape[:2], generator=torch.Generator().manual_seed(seed)).argsort(0)
    dealt = every.gather(0, order[(...,) + (None,) * 3].expand_as(every))
    return dict(zip(LANGS, dealt, strict=True))


def noisy(places: Tensor, spread: Tensor, *, count: int = 400, seed: int = 0) -> dict[str, Tensor]:
    """Texts about places [lang width]: two tokens each, and a nuisance along every axis, alike
    in all languages."""
    generator = torch.Generator().manual_seed(seed)
    sentences = torch.randn(count, 1, places.shape[1], generator=generator) * spread
    tokens = lambda: torch.randn(count, 2, places.shape[1], generator=generator) * spread  # noqa: E731
    return {
        lang: (place + sentences + tokens())[:, :, None]
        for lang, place in zip(LANGS, places, strict=True)
    }


def apart(seed: int = 0) -> Tensor:
    """Places of the languages, two units from each other [lang width]."""
    return (
        torch.linalg.qr(torch.randn(12, len(LANGS), generator=torch.Generator().manual_seed(seed)))[
            0
        ].T
        * 2**0.5
    )


def pairs(differences: Tensor) -> Moments:
    h = differences[:, None, None].float()
    return moments({"en": h * 0, "de": h}, scatter=False, sample=0)


def made_of(
    values: list[float], *, count: int = 40, width: int = 12, mean: float = 0.2
) -> tuple[Tensor, Tensor]:
    """(differences with just these singular values, their right singular vectors)."""
    generator = torch.Generator().manual_seed(0)
    left = torch.linalg.qr(
        torch.randn(count, len(values), generator=generator, dtype=torch.float64) + mean
    )[0]
    right = torch.linalg.qr(
        torch.randn(width, len(values), generator=generator, dtype=torch.float64)
    )[0].T
    return (left * torch.tensor(values, dtype=torch.float64)) @ right, right.float()


def labelled(texts: Texts, place: int) -> tuple[np.ndarray, np.ndarray]:
    x = [h[:, :, place].flatten(0, 1).double().numpy() for h in texts.values()]
    return np.concatenate(x), np.repeat(np.arange(len(x)), [len(part) for part in x])


def two_languages(spread: Tensor, seed: int = 0) -> dict[str, Tensor]:
    """Tokens about two means one apart on every axis, with this standard deviation on each axis."""
    generator = torch.Generator().manual_seed(seed)
    noise = {
        lang: torch.randn(80, 5, 1, len(spread), generator=generator) * spread
        for lang in ("en", "de")
    }
    return {"en": noise["en"], "de": noise["de"] + 1}
