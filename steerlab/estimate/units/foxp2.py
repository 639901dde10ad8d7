"""Neural FOXP2: from an SAE's latents to directions that move text into another language.

Source: arXiv 2602.00945. Stage I chooses latents that are selective for a language and cause it
(`candidates`, then a causal lift measured by the engine, then `foxp2_features`). Stage II looks for
the leading subspace of paired differences on these latents (`latent_spectra`). Stage III pushes
inside it (`signed`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from einops import einsum
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

# Added to the spread that a difference is divided by: a latent that is never on has none.
EPSILON = 1e-6
# Singular values below this share of the largest count as zero, and their axes are dropped; decoder
# rows may be stored in 16 bit.
DEPENDENT = 1e-5
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
    index = firing.langs.index(source)
    level = firing.level
    spread = firing.deviation
    return ((level - level[index]) / (spread + spread[index] + EPSILON)).float()


def candidates(firing: Firing, *, source: str = "en", pool: int = 64) -> Selection:
    """The most selective units of each language and layer: those whose causal lift is worth
    measuring.

    Only units that are more on in the target than in the source are chosen, and so none for the
    source itself.

    Args:
        firing: how often the units are on in the texts.
        source: the language that the others are compared with.
        pool: how many units of each language and layer are chosen at most.
    """
    if pool < 1:
        raise SteerlabError(f"a pool of {pool} candidates is none; give 1 or more")
    score = standardised(firing, source=source)
    settings = {"source": source, "pool": pool}
    return selected("foxp2 candidates", firing, _highest(score, pool), score, settings)


def foxp2_features(
    firing: Firing, lift: Lift, *, saturation: float = 0.9, largest: int = 64
) -> Selection:
    """Choose the latents that are both selective for a language and cause it, as many at each
    layer as are needed.

    Formula: score = max(selectivity, 0) · max(slope, 0), with the standardised selectivity and the
    slope of the causal lift. Of each language and layer the K highest are chosen, K the least
    number that holds the share `saturation` of the sum of scores, at most `largest`. A latent whose
    lift was not measured has score 0. Source: Neural FOXP2 stage I; its two repositories take a
    fixed K.

    Args:
        firing: how often the latents are on in the texts.
        lift: what switching them on does to the language's probability.
        saturation: the share of the sum of scores that the chosen latents hold.
        largest: how many latents of a language and layer are chosen at most.
    """
    if not 0 < saturation <= 1 or largest < 1:
        raise SteerlabError(
            f"saturation lies above 0 and at most at 1, largest is 1 or more: {saturation}, "
            f"{largest}"
        )
    _need_same_lift(firing, lift)
    selectivity = standardised(firing, source=lift.source).clamp(min=0)
    # The slope of a latent that was not tried is NaN.
    slope = lift.slope.nan_to_num().clamp(min=0)
    score = selectivity * slope
    chosen = _saturating(score, saturation, largest)
    if not chosen.any():
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

    The differences are those of the chosen latents alone. The released code keeps the latents that
    were not chosen as columns of zeros, looks for the gap among those too, and so finds where the
    mask ends; here zeros are no part of the spectrum. A language whose latents never differ from
    the source's has no spectrum and is left out.

    Args:
        pairs: the differences of paired sentences, on each language's latents.
        largest: among how many of the first singular values the gap is looked for.
        bootstraps: how many samples of the pairs say whether the subspace is stable.
        seed: of the bootstrap.
    """
    spectra = []
    for (lang, layer), differences in pairs.differences.items():
        if not differences.any():
            continue
        rows = differences.double()
        spectra.append(
            spectrum_of(
                pairs.source,
                lang,
                layer,
                len(rows),
                torch.linalg.svdvals(rows),
                rows,
                largest=largest,
                bootstraps=bootstraps,
                seed=seed,
            )
        )
    return spectra


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
    """Directions along the leading subspace of each language's latent differences from the source.

    Formula: P = V_rᵀ V_r of the differences' first r right singular vectors, r by the eigengap. The
    push among the latents is P μ, μ the mean difference. The vector is what the push writes,
    (P μ) W_dec, so that `add` moves the same way; the basis spans V_r W_dec. Where a language has
    no latents its vector is zero, and there is no direction. Source: Neural FOXP2 stages II and
    III.

    `extra`, beside what `decoded` has: `push` = P μ and `pull`, the source's mean on the same
    latents [lang layer rank]; `window` [lang layer], 1 at the run of neighbouring layers with the
    most mass times stability.

    Args:
        selection: the latents of each language at each layer, as `foxp2_features` chooses them.
        pairs: the differences of paired sentences on these latents.
        firing: what the latents were chosen from.
        saes: the autoencoders that were read, by layer.
        widths: how many layers a window may have.
        largest: among how many of the first singular values the gap is looked for.
        bootstraps: how many samples of the pairs say whether a subspace is stable.
        seed: of the bootstrap.
    """
    directions = decoded(selection, firing, saes, source=pairs.source)
    _need_same_pairs(selection, pairs)
    if "encoder" not in directions.extra:
        # The push acts on single latents. This asks an SAE whose latents cannot be computed alone
        # for one, which raises with the reason.
        saes[selection.layers[0]].readers([0])
    spectra = latent_spectra(pairs, largest=largest, bootstraps=bootstraps, seed=seed)
    if not spectra:
        raise SteerlabError(
            "no language has latents that differ from the source's; choose with weaker thresholds"
        )
    windows = {
        lang: _window(spectra, lang, widths) for lang in selection.langs if lang != pairs.source
    }
    in_window = torch.zeros(len(selection.langs), len(selection.layers))
    for lang, layers in windows.items():
        indices = [selection.layers.index(layer) for layer in layers]
        in_window[selection.langs.index(lang), indices] = 1
    decoder = directions.extra["decoder"]
    push, pull, basis = _subspaces(selection, pairs, spectra, decoder)
    settings = {
        **directions.provenance.get("settings", {}),
        "widths": list(widths),
        "largest": largest,
        "bootstraps": bootstraps,
        "seed": seed,
        "windows": {lang: list(layers) for lang, layers in windows.items()},
    }
    return replace(
        directions,
        vectors=einsum(push, decoder, "lang layer rank, lang layer rank width -> lang layer width"),
        basis=basis,
        provenance={
            **directions.provenance,
            "estimator": f"{selection.method} signed",
            "settings": settings,
        },
        extra={**directions.extra, "push": push, "pull": pull, "window": in_window},
    )


def _need_same_lift(firing: Firing, lift: Lift) -> None:
    """Raise unless the lift was measured for the firing's languages, layers and units."""
    for name in ("langs", "layers"):
        measured = getattr(lift, name)
        read = getattr(firing, name)
        if measured != read:
            raise SteerlabError(
                f"the lift was measured for {name} {measured} and the firing {read}; collect the "
                "firing that it was measured with"
            )
    if lift.slope.shape[-1] != firing.units:
        raise SteerlabError(
            f"the lift has {lift.slope.shape[-1]} units and the firing {firing.units}; give one's "
            "own"
        )


def _saturating(
    score: Float[Tensor, "lang layer unit"], saturation: float, largest: int
) -> Bool[Tensor, "lang layer unit"]:
    """The fewest units with the highest scores that hold this share of the sum of scores."""
    ordered = score.sort(-1, descending=True).values
    # What the units above each one hold already: a unit is needed while that is not enough.
    above = ordered.cumsum(-1) - ordered
    needed = (above < saturation * ordered.sum(-1, keepdim=True)).sum(-1).clamp(max=largest)
    chosen = torch.zeros_like(score, dtype=torch.bool)
    for i, j in (needed > 0).nonzero().tolist():
        units = score[i, j].topk(int(needed[i, j])).indices
        chosen[i, j, units] = True
    # With a saturation of 1, rounding in the sums may let units of score 0 in.
    return chosen & (score > 0)


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
    """(push, pull, basis), zero where a language has no spectrum.

    The push is the mean difference inside its leading subspace, the pull the source's mean on the
    same latents, and the basis spans what the subspace's axes write.
    """
    push = decoder.new_zeros(decoder.shape[:3])
    pull = decoder.new_zeros(decoder.shape[:3])
    most_axes = max((spectrum.rank for spectrum in spectra), default=1)
    basis = decoder.new_zeros(*decoder.shape[:2], most_axes, decoder.shape[3])
    for spectrum in spectra:
        key = (spectrum.target, spectrum.layer)
        i = selection.langs.index(spectrum.target)
        j = selection.layers.index(spectrum.layer)
        differences = pairs.differences[key].double()
        count = len(pairs.units[key])
        axes = torch.linalg.svd(differences, full_matrices=False)[2][: spectrum.rank]
        push[i, j, :count] = (axes.T @ (axes @ differences.mean(0))).float()
        pull[i, j, :count] = pairs.source_mean[key].float()
        # Axes that are orthogonal among the latents need not be so once they are decoded.
        _, values, written = torch.linalg.svd(
            axes @ decoder[i, j, :count].double(), full_matrices=False
        )
        independent = written[values > values[0] * DEPENDENT]
        basis[i, j, : len(independent)] = independent.float()
    return push, pull, basis


def _highest(
    score: Float[Tensor, "lang layer unit"], number: int
) -> Bool[Tensor, "lang layer unit"]:
    """The units with the highest positive scores, at most so many of each language and layer."""
    indices = score.topk(min(number, score.shape[-1]), dim=-1).indices
    highest = torch.zeros_like(score, dtype=torch.bool)
    highest.scatter_(-1, indices, value=True)
    return highest & (score > 0)


def _window(spectra: Sequence[Spectrum], lang: str, widths: Sequence[int]) -> tuple[int, ...]:
    """The language's window of layers; empty where its latents never differ from the source's."""
    if not any(spectrum.target == lang for spectrum in spectra):
        return ()
    return window(spectra, target=lang, widths=widths)


def _need_same_pairs(selection: Selection, pairs: LatentPairs) -> None:
    """Raise unless the pairs are those of the selection's latents, in its order."""
    if pairs.source not in selection.langs:
        raise SteerlabError(
            f"the pairs' source {pairs.source!r} is none of {' '.join(selection.langs)}; give the "
            "pairs that were made with this selection"
        )
    for lang in selection.langs:
        # The source is what the others differ from: it has no pairs of its own.
        if lang == pairs.source:
            continue
        for layer in selection.where(lang):
            if tuple(selection.of(lang, layer)) != pairs.units.get((lang, layer)):
                raise SteerlabError(
                    f"the pairs of {lang!r} at layer {layer} are of other latents than were "
                    "chosen; make them anew with latent_pairs(model, corpus, saes, selection)"
                )


def _foxp2(
    latents: Firing, lift: Lift, pairs: LatentPairs, saes: Mapping[int, SAE], *, source: str
) -> Directions:
    return signed(foxp2_features(latents, lift), pairs, latents, saes)


RECORDS = {
    "foxp2": Method(
        _foxp2,
        ("latents", "lift", "pairs", "saes"),
        (*FEATURES, "signed_shift", "push_pull"),
        cites=("saha2026neural",),
    ),
}
