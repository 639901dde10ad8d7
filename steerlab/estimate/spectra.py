"""The spectrum of paired differences: its gap, what it holds, whether it is stable, and where in
depth that is best."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from steerlab.core.errors import SteerlabError
from steerlab.core.moments import Moments
from steerlab.estimate.eigengap import decomposed, need_largest, need_pairs, ranks

SUMMARY = ("pairs", "effective_rank", "gap", "ratio", "rank", "mass", "stability")


@dataclass(frozen=True)
class Spectrum:
    """Of one target's paired differences at one layer; `rank` is what `eigengap` keeps.

    `values` are the numerically non-zero singular values, `gap` the place of the largest ratio of
    two that follow each other and `ratio` that ratio, `mass` the share of Σσ² in the first `rank`,
    `stability` the median overlap tr(P P')/rank of two bootstrap subspaces (NaN without
    bootstraps), 1 if they are the same.
    """

    source: str
    target: str
    layer: int
    pairs: int
    values: tuple[float, ...]
    effective_rank: float
    gap: int
    ratio: float
    rank: int
    mass: float
    stability: float

    @property
    def worth(self) -> float:
        """Mass times stability, which the window adds up; the mass alone where nothing was
        drawn."""
        return self.mass * (1.0 if self.stability != self.stability else self.stability)


def spectra(
    moments: Moments, *, largest: int = 12, bootstraps: int = 20, seed: int = 0
) -> list[Spectrum]:
    """The spectrum of every target at every layer (Neural FOXP2 stage II, on activations).

    `bootstraps` samples are drawn from the differences that the moments keep (all, up to 256 a
    language), and every two of them are compared. Needs `pairs`, two or more of every target. For a
    spectrum without pairing collect with `derange=`.
    """
    pairs, found = need_pairs(moments, 2), []
    for lang, place, values, _ in decomposed(pairs):
        told = (pairs.source, pairs.langs[lang], moments.layers[place], int(pairs.count[lang]))
        kept = pairs.sample.of(lang)[:, place].double()
        found.append(
            spectrum_of(*told, values, kept, largest=largest, bootstraps=bootstraps, seed=seed)
        )
    return found


def spectrum_of(
    source: str,
    target: str,
    layer: int,
    count: int,
    values: Float[Tensor, " value"],
    differences: Float[Tensor, "pair width"],
    *,
    largest: int,
    bootstraps: int,
    seed: int,
) -> Spectrum:
    """The spectrum with these singular values of `count` pairs; the bootstrap draws from
    `differences`."""
    need_largest(largest)
    effective, gap, rank = ranks(values, count, largest)
    real = values[: min(count, len(values))]
    real = real[real > values[0] * (len(values) * torch.finfo(torch.float32).eps) ** 0.5]
    return Spectrum(
        source=source,
        target=target,
        layer=layer,
        pairs=count,
        values=tuple(real.tolist()),
        effective_rank=effective,
        gap=gap,
        ratio=float(real[gap - 1] / real[gap]) if len(real) > gap else float("inf"),
        rank=rank,
        mass=float(values[:rank].square().sum() / values.square().sum().clamp(min=1e-30)),
        stability=stability(differences, rank, bootstraps=bootstraps, seed=seed),
    )


def stability(
    differences: Float[Tensor, "pair width"], rank: int, *, bootstraps: int, seed: int = 0
) -> float:
    """The median of tr(P_b P_b')/rank over all pairs of bootstrap samples' leading subspaces; NaN
    of fewer than two.

    Computed from the inner products of the differences alone: pair² numbers, however wide the model
    is.
    """
    if bootstraps < 2:
        return float("nan")
    generator, count = torch.Generator().manual_seed(seed), len(differences)
    products, spans = differences @ differences.T, []
    for _ in range(bootstraps):
        drawn = (
            torch.randint(count, (count,), generator=generator)
            .bincount(minlength=count)
            .to(products.dtype)
            .sqrt()
        )
        values, axes = torch.linalg.eigh(drawn[:, None] * products * drawn)
        # Rows such that row @ differences is a unit right singular vector of the sample.
        spans.append((axes[:, -rank:] / values[-rank:].clamp(min=1e-30).sqrt()).T * drawn)
    stacked = torch.stack(spans)
    overlaps = (
        torch.einsum("apm,mn,bqn->abpq", stacked, products, stacked).square().sum((2, 3)) / rank
    )
    first, second = torch.triu_indices(bootstraps, bootstraps, offset=1)
    return float(overlaps[first, second].median())


def window(
    found: Iterable[Spectrum], *, target: str, widths: Sequence[int] = (3, 4, 5, 6)
) -> tuple[int, ...]:
    """The run of neighbouring layers whose worth (mass times stability) adds up to most; the
    earliest of equals.

    The sum grows with the width, so that `widths` bounds it; a model of fewer layers gets the
    widest run it has. Source: Neural FOXP2; ties go to the gain in the source, which needs the
    model.
    """
    worth = {spectrum.layer: spectrum.worth for spectrum in found if spectrum.target == target}
    if not worth:
        raise SteerlabError(
            f"there is no spectrum of {target!r}; ask for one of the targets that were fitted"
        )
    if not widths or min(widths) < 1:
        raise SteerlabError(f"the widths of a window are {list(widths)}; give numbers from 1 up")
    runs = [run for width in sorted(set(widths)) for run in _runs(worth, width)]
    if not runs:
        runs = next(
            longest for width in range(len(worth), 0, -1) if (longest := _runs(worth, width))
        )
    return max(runs, key=lambda run: (round(sum(worth[layer] for layer in run), 9), -run[0]))


def _runs(layers: Collection[int], width: int) -> list[tuple[int, ...]]:
    """Every run of so many neighbouring layers."""
    spans = [range(first, first + width) for first in sorted(layers)]
    return [tuple(span) for span in spans if all(layer in layers for layer in span)]


def spectrum_table(
    found: Sequence[Spectrum],
    *,
    kind: str = "pairs",
    largest: int = 12,
    widths: Sequence[int] = (3, 4, 5, 6),
) -> pd.DataFrame:
    """One row for each of the first `largest` singular values: what a figure of spectra draws.

    Columns: kind (as told, such as "deranged"), source, target, layer, place (from 1), value, share
    (of Σσ²), kept (within the rank), and the layer's pairs, effective_rank, gap, ratio, rank, mass,
    stability and in_window.
    """
    windows = {
        iso: window(found, target=iso, widths=widths)
        for iso in {spectrum.target for spectrum in found}
    }
    rows = []
    for spectrum in found:
        told = {"kind": kind} | {
            name: getattr(spectrum, name) for name in ("source", "target", "layer")
        }
        summary = {name: getattr(spectrum, name) for name in SUMMARY}
        summary["in_window"] = spectrum.layer in windows[spectrum.target]
        whole = sum(value**2 for value in spectrum.values)
        for place, value in enumerate(spectrum.values[:largest], start=1):
            here = {
                "place": place,
                "value": value,
                "share": value**2 / whole,
                "kept": place <= spectrum.rank,
            }
            rows.append(told | here | summary)
    return pd.DataFrame(rows)
