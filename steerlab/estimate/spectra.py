"""Spectra of paired differences: where their gap is, what the subspace before it holds, whether it
is stable, and at which layers that is best."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from steerlab.core.errors import SteerlabError
from steerlab.core.moments import Moments
from steerlab.estimate.eigengap import decomposed, need_largest, need_pairs, ranks

# What a table repeats from a `Spectrum` in each of its rows.
SUMMARY = ("pairs", "effective_rank", "gap", "ratio", "rank", "mass", "stability")


@dataclass(frozen=True)
class Spectrum:
    """The spectrum of one target's paired differences at one layer.

    Args:
        source: the language that the differences lead from.
        target: the language that they lead to.
        layer: where they were read.
        pairs: how many there are.
        values: the numerically non-zero singular values, the largest first.
        effective_rank: exp of the entropy of σ²/Σσ².
        gap: after how many values the largest ratio of two neighbours lies.
        ratio: that ratio; infinite where all values lie before the gap.
        rank: how many axes `eigengap` keeps.
        mass: the share of Σσ² in the first `rank` values.
        stability: the median overlap tr(P P')/rank of two bootstrap subspaces, 1 if they are the
            same; NaN without bootstraps.
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
        """Mass times stability, which the window adds up; the mass alone without bootstraps."""
        no_bootstraps = self.stability != self.stability  # NaN is unequal to itself
        return self.mass * (1.0 if no_bootstraps else self.stability)


def spectra(
    moments: Moments, *, largest: int = 12, bootstraps: int = 20, seed: int = 0
) -> list[Spectrum]:
    """Compute the spectrum of every target at every layer (Neural FOXP2 stage II, on activations).

    Needs `pairs`, two or more of every target. For a spectrum without pairing, to compare with,
    collect with `derange=`.

    Args:
        moments: statistics with the paired differences.
        largest: among how many of the first singular values the gap is looked for.
        bootstraps: how many samples are drawn from the differences that the moments keep (all, up
            to 256 a language); every two of them are compared.
        seed: of the bootstrap.
    """
    pairs = need_pairs(moments, 2)
    results = []
    for lang_index, layer_index, values, _ in decomposed(pairs):
        kept = pairs.sample.of(lang_index)[:, layer_index].double()
        results.append(
            spectrum_of(
                pairs.source,
                pairs.langs[lang_index],
                moments.layers[layer_index],
                int(pairs.count[lang_index]),
                values,
                kept,
                largest=largest,
                bootstraps=bootstraps,
                seed=seed,
            )
        )
    return results


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
    """Describe the spectrum that has these singular values.

    Args:
        source: the language that the differences lead from.
        target: the language that they lead to.
        layer: where they were read.
        count: how many pairs the values come from.
        values: the singular values of all differences, the largest first.
        differences: those that the bootstrap draws from.
        largest: among how many of the first values the gap is looked for.
        bootstraps: how many samples are drawn.
        seed: of the bootstrap.
    """
    need_largest(largest)
    effective, gap, rank = ranks(values, count, largest)
    # As in `ranks`, but all values: those that can be told from zero in single precision.
    zero = values[0] * (len(values) * torch.finfo(torch.float32).eps) ** 0.5
    nonzero = values[: min(count, len(values))]
    nonzero = nonzero[nonzero > zero]
    squares = values.square()
    return Spectrum(
        source=source,
        target=target,
        layer=layer,
        pairs=count,
        values=tuple(nonzero.tolist()),
        effective_rank=effective,
        gap=gap,
        ratio=float(nonzero[gap - 1] / nonzero[gap]) if len(nonzero) > gap else float("inf"),
        rank=rank,
        mass=float(values[:rank].square().sum() / squares.sum().clamp(min=1e-30)),
        stability=stability(differences, rank, bootstraps=bootstraps, seed=seed),
    )


def stability(
    differences: Float[Tensor, "pair width"], rank: int, *, bootstraps: int, seed: int = 0
) -> float:
    """How alike the leading subspaces of bootstrap samples are: 1 if they are the same.

    Formula: the median of tr(P_b P_b')/rank over all pairs of samples b, b', P the projection on a
    sample's first `rank` right singular vectors; NaN with fewer than two samples.

    Args:
        differences: what the samples are drawn from.
        rank: of the subspaces.
        bootstraps: how many samples.
        seed: of the samples.
    """
    if bootstraps < 2:
        return float("nan")
    generator = torch.Generator().manual_seed(seed)
    count = len(differences)
    # All is computed from the differences' inner products: pair² numbers, however wide the model
    # is. A sample in which difference i occurs n_i times has the rows √n_i · d_i.
    products = differences @ differences.T
    subspaces = []
    for _ in range(bootstraps):
        drawn = torch.randint(count, (count,), generator=generator)
        weights = drawn.bincount(minlength=count).to(products.dtype).sqrt()
        values, axes = torch.linalg.eigh(weights[:, None] * products * weights)
        # Rows such that row @ differences is a unit right singular vector of the sample.
        lengths = values[-rank:].clamp(min=1e-30).sqrt()
        subspaces.append((axes[:, -rank:] / lengths).T * weights)
    stacked = torch.stack(subspaces)
    # tr(P P') is the sum of the squared cosines between two subspaces' axes.
    cosines = torch.einsum("apm,mn,bqn->abpq", stacked, products, stacked)
    overlaps = cosines.square().sum((2, 3)) / rank
    first, second = torch.triu_indices(bootstraps, bootstraps, offset=1)
    return float(overlaps[first, second].median())


def window(
    found: Iterable[Spectrum], *, target: str, widths: Sequence[int] = (3, 4, 5, 6)
) -> tuple[int, ...]:
    """The run of neighbouring layers whose mass times stability adds up to most; the earliest of
    equals.

    The sum grows with the width, so that `widths` bounds it; a model of fewer layers gets the
    widest run it has. Source: Neural FOXP2, where ties go to the larger gain in the source
    language, which needs the model.

    Args:
        found: spectra of this target, and maybe others.
        target: the language.
        widths: how many layers the run may have.
    """
    worth = {spectrum.layer: spectrum.worth for spectrum in found if spectrum.target == target}
    if not worth:
        raise SteerlabError(
            f"there is no spectrum of {target!r}; ask for one of the targets that were fitted"
        )
    if not widths or min(widths) < 1:
        raise SteerlabError(f"the widths of a window are {list(widths)}; give numbers from 1 up")
    runs = []
    for width in sorted(set(widths)):
        runs += _runs(worth, width)
    if not runs:
        runs = _widest_runs(worth)

    def worth_then_earliest(run: tuple[int, ...]) -> tuple[float, int]:
        # Rounded, since sums that are equal on paper differ in the last digits.
        return round(sum(worth[layer] for layer in run), 9), -run[0]

    return max(runs, key=worth_then_earliest)


def _runs(layers: Collection[int], width: int) -> list[tuple[int, ...]]:
    """Every run of so many neighbouring layers."""
    spans = [range(first, first + width) for first in sorted(layers)]
    return [tuple(span) for span in spans if all(layer in layers for layer in span)]


def _widest_runs(layers: Collection[int]) -> list[tuple[int, ...]]:
    """The runs of the largest width that there is; one layer is a run, too."""
    width = len(layers)
    while not _runs(layers, width):
        width -= 1
    return _runs(layers, width)


def spectrum_table(
    found: Sequence[Spectrum],
    *,
    kind: str = "pairs",
    largest: int = 12,
    widths: Sequence[int] = (3, 4, 5, 6),
) -> pd.DataFrame:
    """One row for each of the first singular values of each spectrum: what a figure of spectra
    draws.

    Columns: kind, source, target, layer, place (of the value, from 1), value, share (of Σσ²), kept
    (within the rank), and the spectrum's pairs, effective_rank, gap, ratio, rank, mass, stability
    and in_window.

    Args:
        found: the spectra.
        kind: what stands in the column of that name, such as "deranged".
        largest: how many values of each spectrum have a row.
        widths: how many layers a window may have.
    """
    targets = {spectrum.target for spectrum in found}
    windows = {target: window(found, target=target, widths=widths) for target in targets}
    rows = []
    for spectrum in found:
        names = {
            "kind": kind,
            "source": spectrum.source,
            "target": spectrum.target,
            "layer": spectrum.layer,
        }
        summary = {name: getattr(spectrum, name) for name in SUMMARY}
        summary["in_window"] = spectrum.layer in windows[spectrum.target]
        total = sum(value**2 for value in spectrum.values)
        for place, value in enumerate(spectrum.values[:largest], start=1):
            of_value = {
                "place": place,
                "value": value,
                "share": value**2 / total,
                "kept": place <= spectrum.rank,
            }
            rows.append(names | of_value | summary)
    return pd.DataFrame(rows)
