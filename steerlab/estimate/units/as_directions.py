"""Chosen units as `Directions`: features by their decoder rows, neurons by a mask and their
values."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.core.firing import Firing
from steerlab.estimate.units.controls import need_of
from steerlab.estimate.units.record import Method
from steerlab.estimate.units.selection import Selection
from steerlab.sae import SAE

Saes = Mapping[int, SAE]
DEPENDENT = 1e-5  # of the largest singular value; decoder rows may be stored in 16 bit


def decoded(
    selection: Selection, firing: Firing, saes: Saes, *, source: str | None = "en"
) -> Directions:
    """Features as directions: what a language's features write on average, and the subspace that
    they span.

    Formula: the vector of a language is Σ_j z̄_j W_dec[j] over its features, z̄_j the mean value
    over its tokens; the basis is orthonormal rows that span the W_dec[j], dependent ones dropped,
    so that `ablate` takes all of them away at once. With `source` its vector is zero and directions
    lead from it only, along the target's features alone, as in LangFIR; with None a direction is
    the difference of two languages' vectors. Source: LangFIR (arXiv 2604.03532), whose formula for
    the vector is unpublished; the weighting by mean values is our reading.

    Where a language has no features its vector is zero, and there is no direction:
    `Selection.where` lists its layers. `extra`: `decoder`, `level` = z̄ and, where each latent can
    be computed alone (no topk), `encoder`, `bias`, `threshold` [lang layer rank ...], in the order
    of `Selection.of`, zero-padded.
    """
    kept = _need_saes(selection, firing, saes)
    extra = _features(
        selection, firing, saes, alone=all(saes[layer].kind != "topk" for layer in selection.layers)
    )
    vectors = torch.einsum("klr,klrw->klw", extra["level"], extra["decoder"])
    spans = {
        (i, j): _span(extra["decoder"][i, j])
        for i in range(len(selection.langs))
        for j in range(len(selection.layers))
    }
    basis = torch.zeros(*vectors.shape[:2], max(1, *map(len, spans.values())), vectors.shape[2])
    for (i, j), rows in spans.items():
        basis[i, j, : len(rows)] = rows
    _without(source, selection.langs, vectors, basis)
    means = firing.means[:, kept].float()
    return _frozen(selection.method, selection, firing, vectors, basis, means, source, extra)


def gated(selection: Selection, firing: Firing, saes: Saes) -> Directions:
    """DiffMean's directions with the features that say where the source language is, for `gate`.

    The vectors are the mean activations, so that `between(a, b)` is their difference; `extra` as
    `decoded` has it. A source without features at a layer opens no gate there. Source: Deng et al.
    2025 (arXiv 2505.05111).
    """
    kept = _need_saes(selection, firing, saes)
    extra, means = _features(selection, firing, saes, alone=True), firing.means[:, kept].float()
    name = f"{selection.method} gated"
    return _frozen(name, selection, firing, means, _centred(means), means, None, extra)


def sae_diffmean(firing: Firing, saes: Saes) -> Directions:
    """The difference of two languages' mean latents, decoded: one dense vector.

    Formula: the vector of a language is z̄ W_dec, z̄ the mean latents over its tokens; b_dec
    cancels in the difference. Since the reconstruction error is kept, adding a latent step v and
    decoding is h + v W_dec: encoding cancels. Source: CLaS-Bench (arXiv 2601.08331), which gives v
    unit length among the latents: the direction is the same, the unit of strength another.
    """
    _need_like(firing, firing.layers, saes)
    weights = torch.stack([saes[layer].W_dec.double().cpu() for layer in firing.layers])
    vectors, means = (
        torch.einsum("klu,luw->klw", firing.level, weights).float(),
        firing.means.float(),
    )
    about = {**firing.provenance, "estimator": "sae diffmean", "settings": {}}
    return _need_two(
        firing,
        Directions(
            vectors,
            _centred(vectors),
            means,
            firing.langs,
            firing.layers,
            firing.site,
            provenance=about,
        ),
    )


def masked(selection: Selection, firing: Firing, *, source: str | None = None) -> Directions:
    """Neurons as directions: which they are, and their mean values in the language and in the
    others.

    Formula: the vector of a language is mask · (mean - mean of all languages); with a source, mask
    · (mean - mean of the source) with the source's neurons in the mask too, since the way from it
    leads out of them. `extra`: `mask` [lang layer width] 1 at a language's neurons, `values` its
    mean values there, `rest` the mean over the other languages of theirs; at all neurons, so that
    the mask decides. A source keeps its own mask, for operators that silence it. Where there are no
    neurons the vector is zero: `Directions.where` lists the other layers.
    """
    kept = need_of(selection, firing)
    if firing.site != "mlp_post" or firing.units != firing.width:
        raise SteerlabError(
            f"a mask is for neurons, and these are {firing.units} units read at {firing.site} of "
            f"width {firing.width}; "
            "collect the firing of neurons, or use decoded for an SAE's features"
        )
    means, values = firing.means[:, kept].float(), firing.level[:, kept]
    rest = (values.sum(0) - values) / max(1, len(values) - 1)
    mask = selection.chosen.float()
    if source is None:
        vectors = mask * (means - means.mean(0))
    else:
        place = _place(source, selection.langs)
        vectors = mask.maximum(mask[place]) * (means - means[place])
    basis = _unit(vectors)
    _without(source, selection.langs, vectors, basis)
    extra = {"mask": mask, "values": values.float(), "rest": rest.float()}
    return _frozen(selection.method, selection, firing, vectors, basis, means, source, extra)


def _features(
    selection: Selection, firing: Firing, saes: Saes, *, alone: bool
) -> dict[str, Tensor]:
    """What a language's features read, write and are on average [lang layer rank ...],
    zero-padded."""
    kept, level = need_of(selection, firing), firing.level
    rank, width = max(1, int(selection.chosen.sum(-1).max())), firing.width
    shape = (len(selection.langs), len(selection.layers), rank)
    wide, narrow = (
        ("decoder", *(["encoder"] if alone else [])),
        ("level", *(["bias", "threshold"] if alone else [])),
    )
    extra = {name: torch.zeros(*shape, width) for name in wide} | {
        name: torch.zeros(shape) for name in narrow
    }
    for i, iso in enumerate(selection.langs):
        for j, layer in enumerate(selection.layers):
            units = selection.of(iso, layer)
            found = {"decoder": saes[layer].W_dec[units], "level": level[i, kept[j], units]}
            if alone:
                found |= dict(
                    zip(("encoder", "bias", "threshold"), saes[layer].readers(units), strict=True)
                )
            for name, value in found.items():
                extra[name][i, j, : len(units)] = value.float().cpu()
    return extra


def _span(rows: Float[Tensor, "rank width"]) -> Float[Tensor, "found width"]:
    """Orthonormal rows that span these."""
    unit = _unit(rows[rows.any(-1)].double())[:, 0]
    if not len(unit):
        return rows[:0]
    _, values, axes = torch.linalg.svd(unit, full_matrices=False)
    return axes[values > values[0] * DEPENDENT].float()


def _unit(vectors: Float[Tensor, "*any width"]) -> Float[Tensor, "*any 1 width"]:
    """Of length 1, zero ones zero."""
    return (vectors / vectors.norm(dim=-1, keepdim=True).clamp(min=1e-30))[..., None, :]


def _centred(vectors: Float[Tensor, "lang layer width"]) -> Float[Tensor, "lang layer 1 width"]:
    return _unit(vectors - vectors.mean(0, keepdim=True))


def _without(source: str | None, langs: tuple[str, ...], vectors: Tensor, basis: Tensor) -> None:
    """The source has no direction to itself."""
    if source is not None:
        place = _place(source, langs)
        vectors[place], basis[place] = 0, 0


def _place(source: str, langs: tuple[str, ...]) -> int:
    if source not in langs:
        raise SteerlabError(
            f"the source {source!r} is none of {' '.join(langs)}; take it from these"
        )
    return langs.index(source)


def _need_saes(selection: Selection, firing: Firing, saes: Saes) -> list[int]:
    """The places of the selection's layers in the firing, if the autoencoders are those that
    were read."""
    kept = need_of(selection, firing)
    _need_like(firing, selection.layers, saes)
    return kept


def _need_like(firing: Firing, layers: tuple[int, ...], saes: Saes) -> None:
    if missing := [layer for layer in layers if layer not in saes]:
        told = ", ".join(map(str, saes)) or "none"
        raise SteerlabError(
            f"there is no autoencoder of layer {missing[0]}; there are {told}: give one, or use .at"
        )
    known = firing.provenance.get("saes")
    for layer in layers:
        sae = saes[layer]
        if (sae.latents, sae.width, sae.layer, sae.site) != (
            firing.units,
            firing.width,
            layer,
            firing.site,
        ):
            raise SteerlabError(
                f"the autoencoder of layer {sae.layer} has {sae.latents} latents of width "
                f"{sae.width} at {sae.site}; "
                f"the firing has {firing.units} of width {firing.width} at {firing.site}, layer "
                f"{layer}: give those"
            )
        if known is not None and sae.digest not in known:
            raise SteerlabError(
                f"the firing was read with another autoencoder of layer {layer}; collect it with "
                "this one"
            )


def _frozen(
    estimator: str,
    selection: Selection,
    firing: Firing,
    vectors: Tensor,
    basis: Tensor,
    means: Tensor,
    source: str | None,
    extra: Mapping[str, Tensor],
) -> Directions:
    settings = {**selection.provenance.get("settings", {}), "selection": selection.method}
    about: dict[str, Any] = {**firing.provenance, "estimator": estimator, "settings": settings}
    return _need_two(
        firing,
        Directions(
            vectors.float(),
            basis.float(),
            means,
            selection.langs,
            selection.layers,
            firing.site,
            source,
            about,
            dict(extra),
        ),
    )


def _need_two(firing: Firing, made: Directions) -> Directions:
    firing.need_texts()
    if len(firing.langs) < 2:
        raise SteerlabError(
            f"this firing is of {' '.join(firing.langs)} alone; a direction needs two languages"
        )
    return made


def _sae_diffmean(latents: Firing, saes: Mapping[int, SAE], *, source: str) -> Directions:
    return sae_diffmean(latents, saes)


# A dense vector: no chosen features, and so none to clamp.
RECORDS = {
    "sae diffmean": Method(
        _sae_diffmean, ("latents", "saes"), ("add", "ablate", "rotate", "affine", "push")
    ),
}
