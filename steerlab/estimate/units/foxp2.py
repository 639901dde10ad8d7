"""Neural FOXP2 (arXiv 2602.00945) from latents to directions: candidates, features, spectra, the
signed shift."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.core.firing import Firing, LatentPairs, Lift
from steerlab.estimate.spectra import Spectrum, spectrum_of, window
from steerlab.estimate.units.as_directions import decoded
from steerlab.estimate.units.record import FEATURES, Method
from steerlab.estimate.units.selection import Selection, need_languages, selected
from steerlab.sae import SAE

EPSILON = 1e-6  # a latent that is never on has no spread
DEPENDENT = 1e-5  # of the largest singular value: decoder rows may be stored in 16 bit
WIDTHS = (2, 3, 4)  # of a window, in layers


def standardised(firing: Firing, *, source: str) -> Float[Tensor, "lang layer unit"]:
    """How much more a unit is on in each language than in the source, in units of its spread.

    Formula: (mean on the target's tokens - mean on the source's) / (σ_target + σ_source + ε).
    Source: Neural FOXP2, which takes the last token of each prompt; here all tokens.
    """
    need_languages(firing, "the selectivity")
    if source not in firing.langs:
        raise SteerlabError(
            f"the source {source!r} is none of {' '.join(firing.langs)}; take it from these"
        )
    place, level, spread = firing.langs.index(source), firing.level, firing.deviation
    return ((level - level[place]) / (spread + spread[place] + EPSILON)).float()


def candidates(firing: Firing, *, source: str = "en", pool: int = 64) -> Selection:
    """The `pool` most selective units of each language at each layer: those whose causal lift is
    worth measuring.

    Only units that are more on in the target than in the source; the source has none.
    """
    if pool < 1:
        raise SteerlabError(f"a pool of {pool} candidates is none; give 1 or more")
    score = standardised(firing, source=source)
    return selected(
        "foxp2 candidates", firing, _highest(score, pool), score, {"source": source, "pool": pool}
    )


def foxp2_features(
    firing: Firing, lift: Lift, *, saturation: float = 0.9, largest: int = 64
) -> Selection:
    """The latents of each language that are both selective for it and cause it, at every layer as
    many as are needed.

    Formula: score = max(selectivity, 0) · max(slope, 0), with the standardised selectivity and the
    slope of the causal lift; of each language and layer the K highest, K the least number that
    holds `saturation` of the sum of scores, at most `largest`. What was not tried has no score.
    Source: Neural FOXP2 stage I; its two repositories take a fixed K.
    """
    if not 0 < saturation <= 1 or largest < 1:
        raise SteerlabError(
            f"saturation lies above 0 and at most at 1, largest is 1 or more: {saturation}, "
            f"{largest}"
        )
    for name in ("langs", "layers"):
        if getattr(lift, name) != getattr(firing, name):
            told = f"{getattr(lift, name)} and the firing {getattr(firing, name)}"
            raise SteerlabError(
                f"the lift was measured for {name} {told}; collect the firing that it was measured "
                "with"
            )
    if lift.slope.shape[-1] != firing.units:
        raise SteerlabError(
            f"the lift has {lift.slope.shape[-1]} units and the firing {firing.units}; give one's "
            "own"
        )
    score = standardised(firing, source=lift.source).clamp(min=0) * lift.slope.nan_to_num().clamp(
        min=0
    )
    ordered = score.sort(-1, descending=True).values
    before = ordered.cumsum(-1) - ordered  # what those above it hold already
    enough = (before < saturation * ordered.sum(-1, keepdim=True)).sum(-1).clamp(max=largest)
    chosen = torch.zeros_like(score, dtype=torch.bool)
    for i, j in (enough > 0).nonzero().tolist():
        chosen[i, j, score[i, j].topk(int(enough[i, j])).indices] = True
    if not (chosen := chosen & (score > 0)).any():
        tried = int((~lift.slope.isnan()).any(0).sum())
        raise SteerlabError(
            f"of {tried} latents that were tried none is selective for a language and raises its "
            "mass; try more "
            "candidates, other strengths, or more text"
        )
    settings = {
        "source": lift.source,
        "saturation": saturation,
        "largest": largest,
        "strengths": list(lift.strengths),
    }
    return selected("foxp2", firing, chosen, score, settings)


def latent_spectra(
    pairs: LatentPairs, *, largest: int = 12, bootstraps: int = 20, seed: int = 0
) -> list[Spectrum]:
    """The spectrum of each target's latent differences at each layer (Neural FOXP2 stage II).

    `Spectrum` says what is in it. The differences are those of the chosen latents alone, so that
    the mask is no part of the spectrum, and latents that never differ are zeros in which no gap is
    looked for: the released code looks there and finds its mask's size.
    """
    found = []
    for (iso, layer), differences in pairs.differences.items():
        if not differences.any():
            continue
        rows = differences.double()
        told = (pairs.source, iso, layer, len(rows), torch.linalg.svdvals(rows), rows)
        found.append(spectrum_of(*told, largest=largest, bootstraps=bootstraps, seed=seed))
    return found


def signed(
    selection: Selection,
    pairs: LatentPairs,
    firing: Firing,
    saes: Mapping[int, SAE],
    *,
    widths: Sequence[int] = WIDTHS,
    largest: int = 12,
    bootstraps: int = 20,
    seed: int = 0,
) -> Directions:
    """Directions from the pairs' source along the leading subspace of each language's latent
    differences.

    Formula: P = V_rᵀ V_r of the differences' first r right singular vectors, r by the eigengap; the
    push is P μ, μ the mean difference, and the vector what the push writes, (P μ) W_dec, so that
    `add` moves the same way; the basis spans V_r W_dec. Where a language has no latents its vector
    is zero, and there is no direction.

    `extra`, beside what `decoded` has: `push` = P μ and `pull`, the source's mean on the same
    latents [lang layer rank]; `window` [lang layer], 1 in the run of `widths` neighbouring layers
    with the most mass times stability. Source: Neural FOXP2 stages II and III.
    """
    made = decoded(selection, firing, saes, source=pairs.source)
    _need_pairs(selection, pairs)
    if "encoder" not in made.extra:  # of a kind whose latents cannot be read alone: say so
        saes[selection.layers[0]].readers([0])
    spectra = latent_spectra(pairs, largest=largest, bootstraps=bootstraps, seed=seed)
    if not spectra:
        raise SteerlabError(
            "no language has latents that differ from the source's; choose with weaker thresholds"
        )
    windows = {iso: _window(spectra, iso, widths) for iso in selection.langs if iso != pairs.source}
    inside = torch.zeros(len(selection.langs), len(selection.layers))
    for iso, layers in windows.items():
        inside[selection.langs.index(iso), [selection.layers.index(layer) for layer in layers]] = 1
    push, pull, basis = _subspaces(selection, pairs, spectra, made.extra["decoder"])
    settings = {"widths": list(widths), "largest": largest, "bootstraps": bootstraps, "seed": seed}
    told = {
        **made.provenance.get("settings", {}),
        **settings,
        "windows": {k: list(v) for k, v in windows.items()},
    }
    return replace(
        made,
        vectors=torch.einsum("klr,klrw->klw", push, made.extra["decoder"]),
        basis=basis,
        provenance={**made.provenance, "estimator": f"{selection.method} signed", "settings": told},
        extra={**made.extra, "push": push, "pull": pull, "window": inside},
    )


def _subspaces(
    selection: Selection,
    pairs: LatentPairs,
    spectra: Sequence[Spectrum],
    decoder: Float[Tensor, "lang layer rank width"],
) -> tuple[
    Float[Tensor, "lang layer rank"],
    Float[Tensor, "lang layer rank"],
    Float[Tensor, "lang layer axis width"],
]:
    """(push, pull, basis): the mean difference inside its leading subspace, the source's mean,
    what the axes write."""
    push, pull = decoder.new_zeros(decoder.shape[:3]), decoder.new_zeros(decoder.shape[:3])
    most = max((spectrum.rank for spectrum in spectra), default=1)
    basis = decoder.new_zeros(*decoder.shape[:2], most, decoder.shape[3])
    for spectrum in spectra:
        key = (spectrum.target, spectrum.layer)
        i, j = selection.langs.index(spectrum.target), selection.layers.index(spectrum.layer)
        rows, count = pairs.differences[key].double(), len(pairs.units[key])
        axes = torch.linalg.svd(rows, full_matrices=False)[2][: spectrum.rank]
        push[i, j, :count] = (axes.T @ (axes @ rows.mean(0))).float()
        pull[i, j, :count] = pairs.source_mean[key].float()
        _, values, written = torch.linalg.svd(
            axes @ decoder[i, j, :count].double(), full_matrices=False
        )
        written = written[values > values[0] * DEPENDENT]
        basis[i, j, : len(written)] = written.float()
    return push, pull, basis


def _highest(
    score: Float[Tensor, "lang layer unit"], number: int
) -> Bool[Tensor, "lang layer unit"]:
    """The units with the highest positive scores."""
    places = score.topk(min(number, score.shape[-1]), dim=-1).indices
    return torch.zeros_like(score, dtype=torch.bool).scatter_(
        -1, places, torch.ones_like(places).bool()
    ) & (score > 0)


def _window(spectra: Sequence[Spectrum], iso: str, widths: Sequence[int]) -> tuple[int, ...]:
    """The language's window; none for one without latents that differ from the source's."""
    if not any(spectrum.target == iso for spectrum in spectra):
        return ()
    return window(spectra, target=iso, widths=widths)


def _need_pairs(selection: Selection, pairs: LatentPairs) -> None:
    """Raise unless the pairs are those of the selection's latents, in its order."""
    if pairs.source not in selection.langs:
        raise SteerlabError(
            f"the pairs' source {pairs.source!r} is none of {' '.join(selection.langs)}"
        )
    for iso in selection.langs:
        for layer in selection.where(iso) if iso != pairs.source else ():
            if tuple(selection.of(iso, layer)) != pairs.units.get((iso, layer)):
                raise SteerlabError(
                    f"the pairs of {iso!r} at layer {layer} are of other latents than were chosen; "
                    "make them anew with "
                    "latent_pairs(model, corpus, saes, selection)"
                )


def _foxp2(
    latents: Firing, lift: Lift, pairs: LatentPairs, saes: Mapping[int, SAE], *, source: str
) -> Directions:
    return signed(foxp2_features(latents, lift), pairs, latents, saes)


RECORDS = {
    "foxp2": Method(
        _foxp2, ("latents", "lift", "pairs", "saes"), (*FEATURES, "signed_shift", "push_pull")
    ),
}
