"""Chosen units as `Directions`: SAE features by their decoder rows, neurons by a mask and values.

A selection says which units stand for a language. The functions here turn it into what an edit
takes: a vector to add, a subspace to remove, and in `extra` what operators on single units need.
"""

from collections.abc import Mapping
from typing import Any

import torch
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor

from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.core.firing import Firing
from steerlab.core.sites import ROUTER
from steerlab.estimate.units.controls import need_of
from steerlab.estimate.units.record import Method
from steerlab.estimate.units.selection import Selection
from steerlab.sae import SAE

Saes = Mapping[int, SAE]
# Singular values below this share of the largest count as zero, and their axes are dropped. It is
# far above the rounding of float64, since decoder rows may be stored in 16 bit.
DEPENDENT = 1e-5
# The smallest length that a vector is divided by: a zero vector stays zero instead of NaN.
SHORTEST = 1e-30


def decoded(
    selection: Selection, firing: Firing, saes: Saes, *, source: str | None = "en"
) -> Directions:
    """Turn SAE features into directions: what a language's features write on average.

    Formula: the vector of a language is Σ_j z̄_j W_dec[j] over its features, z̄_j the mean value
    of feature j over the language's tokens. The basis is orthonormal rows that span the W_dec[j],
    dependent ones dropped, so that `ablate` removes all of them at once. Source: LangFIR
    (arXiv 2604.03532), whose formula for the vector is unpublished; the weighting by mean values
    is our reading.

    Where a language has no features its vector is zero and there is no direction;
    `Selection.where` lists the layers where it has some. `extra` holds `decoder`, `level` = z̄ and,
    where each latent can be computed alone (no topk), `encoder`, `bias`, `threshold`
    [lang layer rank ...], in the order of `Selection.of`, zero-padded.

    Args:
        selection: the features of each language at each layer.
        firing: what the features were chosen from.
        saes: the autoencoders that were read, by layer.
        source: the language that directions lead from. Its own vector is zero and a direction is
            the target's vector alone, as in LangFIR. With None any language is a source, and a
            direction is the difference of two languages' vectors.
    """
    indices = _need_saes(selection, firing, saes)
    # A latent of a topk SAE depends on all others, so that it has no encoder of its own.
    computed_alone = all(saes[layer].kind != "topk" for layer in selection.layers)
    extra = _features(selection, firing, saes, with_encoder=computed_alone)
    vectors = einsum(
        extra["level"],
        extra["decoder"],
        "lang layer rank, lang layer rank width -> lang layer width",
    )
    basis = _spans(extra["decoder"])
    _clear_source(source, selection.langs, vectors, basis)
    means = firing.means[:, indices].float()
    return _build(
        selection.method, selection, firing, vectors, basis, means, source=source, extra=extra
    )


def gated(selection: Selection, firing: Firing, saes: Saes) -> Directions:
    """DiffMean's directions, with the features that tell where the text is in the source language.

    The operator `gate` steers only at those tokens. The vectors are the mean activations, so that
    `between(a, b)` is their difference; `extra` is that of `decoded`. A source without features at
    a layer opens no gate there. Source: Deng et al. 2025 (arXiv 2505.05111).
    """
    indices = _need_saes(selection, firing, saes)
    # The gate reads the features token by token, so that encoders are needed in any case.
    extra = _features(selection, firing, saes, with_encoder=True)
    means = firing.means[:, indices].float()
    name = f"{selection.method} gated"
    return _build(name, selection, firing, means, _centred(means), means, source=None, extra=extra)


def sae_diffmean(firing: Firing, saes: Saes) -> Directions:
    """The difference of two languages' mean latents, decoded: one dense vector.

    Formula: the vector of a language is z̄ W_dec, z̄ the mean latents over its tokens; b_dec
    cancels in the difference. An edit keeps the SAE's reconstruction error, so that a step v among
    the latents is h + v W_dec, whatever the encoder does. Source: CLaS-Bench (arXiv 2601.08331),
    which gives v unit length among the latents: the direction is the same, the unit of strength
    another.
    """
    _need_same_saes(firing, firing.layers, saes)
    decoders = torch.stack([saes[layer].W_dec.double().cpu() for layer in firing.layers])
    vectors = einsum(
        firing.level, decoders, "lang layer unit, layer unit width -> lang layer width"
    ).float()
    directions = Directions(
        vectors,
        _centred(vectors),
        firing.means.float(),
        firing.langs,
        firing.layers,
        firing.site,
        provenance={**firing.provenance, "estimator": "sae diffmean", "settings": {}},
    )
    _need_two(firing)
    return directions


def masked(selection: Selection, firing: Firing, *, source: str | None = None) -> Directions:
    """Turn neurons, or experts, into directions: which they are, and their mean values in each
    language.

    Formula: without a source, the vector of a language is mask · (mean - mean of all languages).
    With a source it is mask · (mean - mean of the source), where the mask holds the source's
    neurons too: to leave the source is to turn them off. Where a language has no neurons the
    vector is zero; `Directions.where` lists the other layers.

    `extra`, each [lang layer width]: `mask`, 1 at a language's neurons; `values`, its mean values;
    `rest`, the mean of the other languages' mean values. The last two are of all neurons, so that
    the mask alone decides. The source keeps its own mask, for operators that silence it.

    Args:
        selection: the neurons or experts of each language at each layer.
        firing: what they were chosen from: neurons read at `mlp_post`, experts at `router` (a
            Routing's `firing`), whose means are those of the router's logits.
        source: the language that directions lead from; None allows any.
    """
    indices = need_of(selection, firing)
    if firing.site not in ("mlp_post", ROUTER) or firing.units != firing.width:
        raise SteerlabError(
            f"a mask is for neurons or experts, and these are {firing.units} units read at "
            f"{firing.site} of width {firing.width}; "
            "collect the firing of neurons, or use decoded for an SAE's features"
        )
    means = firing.means[:, indices].float()
    values = firing.level[:, indices]
    # With one language there are no others; the division by 1 leaves zeros.
    rest = (values.sum(0) - values) / max(1, len(values) - 1)
    mask = selection.chosen.float()
    if source is None:
        vectors = mask * (means - means.mean(0))
    else:
        index = _lang_index(source, selection.langs)
        vectors = mask.maximum(mask[index]) * (means - means[index])
    basis = _unit_rows(vectors)
    _clear_source(source, selection.langs, vectors, basis)
    extra = {"mask": mask, "values": values.float(), "rest": rest.float()}
    return _build(
        selection.method, selection, firing, vectors, basis, means, source=source, extra=extra
    )


def _features(
    selection: Selection, firing: Firing, saes: Saes, *, with_encoder: bool
) -> dict[str, Tensor]:
    """What each language's features write (decoder), are on average (level) and read (encoder).

    All are [lang layer rank ...], rank the number of features of the language with most,
    zero-padded for the others.
    """
    indices = need_of(selection, firing)
    level = firing.level
    # At least one row, since an empty axis would have no maximum and no norm.
    rank = max(1, int(selection.chosen.sum(-1).max()))
    shape = (len(selection.langs), len(selection.layers), rank)
    extra = {"decoder": torch.zeros(*shape, firing.width)}
    if with_encoder:
        extra["encoder"] = torch.zeros(*shape, firing.width)
    extra["level"] = torch.zeros(shape)
    if with_encoder:
        extra["bias"] = torch.zeros(shape)
        extra["threshold"] = torch.zeros(shape)
    for i, lang in enumerate(selection.langs):
        for j, layer in enumerate(selection.layers):
            units = selection.of(lang, layer)
            parts = {"decoder": saes[layer].W_dec[units], "level": level[i, indices[j], units]}
            if with_encoder:
                parts["encoder"], parts["bias"], parts["threshold"] = saes[layer].readers(units)
            for name, value in parts.items():
                extra[name][i, j, : len(units)] = value.float().cpu()
    return extra


def _spans(
    decoder: Float[Tensor, "lang layer rank width"],
) -> Float[Tensor, "lang layer axis width"]:
    """Orthonormal rows that span the decoder rows of each language and layer, zero-padded."""
    langs, layers, _, width = decoder.shape
    spans = {}
    for i in range(langs):
        for j in range(layers):
            spans[i, j] = _span(decoder[i, j])
    axes = max(1, *(len(rows) for rows in spans.values()))
    basis = torch.zeros(langs, layers, axes, width)
    for (i, j), rows in spans.items():
        basis[i, j, : len(rows)] = rows
    return basis


def _span(rows: Float[Tensor, "rank width"]) -> Float[Tensor, "axis width"]:
    """Orthonormal rows with the same span as these; none where all are zero."""
    # Unit length first: whether a row depends on the others is a matter of angles, and a short row
    # beside a long one is no dependent one.
    nonzero = rows[rows.any(-1)].double()
    unit = _unit_rows(nonzero)[:, 0]
    if not len(unit):
        return rows[:0]
    _, values, axes = torch.linalg.svd(unit, full_matrices=False)
    return axes[values > values[0] * DEPENDENT].float()


def _unit_rows(vectors: Float[Tensor, "*any width"]) -> Float[Tensor, "*any 1 width"]:
    """Each vector at unit length, as a basis of one row; a zero vector stays zero."""
    length = vectors.norm(dim=-1, keepdim=True).clamp(min=SHORTEST)
    return rearrange(vectors / length, "... width -> ... 1 width")


def _centred(vectors: Float[Tensor, "lang layer width"]) -> Float[Tensor, "lang layer 1 width"]:
    """The unit direction of each language's vector from the mean of all languages."""
    return _unit_rows(vectors - vectors.mean(0, keepdim=True))


def _clear_source(
    source: str | None, langs: tuple[str, ...], vectors: Tensor, basis: Tensor
) -> None:
    """Set the source's vector and basis to zero, in place; without a source nothing changes."""
    if source is not None:
        index = _lang_index(source, langs)
        vectors[index] = 0
        basis[index] = 0


def _lang_index(source: str, langs: tuple[str, ...]) -> int:
    if source not in langs:
        raise SteerlabError(
            f"the source {source!r} is none of {' '.join(langs)}; take it from these"
        )
    return langs.index(source)


def _need_saes(selection: Selection, firing: Firing, saes: Saes) -> list[int]:
    """The indices of the selection's layers in the firing.

    Raises where the units were not chosen from this firing or read with other autoencoders.
    """
    indices = need_of(selection, firing)
    _need_same_saes(firing, selection.layers, saes)
    return indices


def _need_same_saes(firing: Firing, layers: tuple[int, ...], saes: Saes) -> None:
    """Raise unless these are the autoencoders that the firing was read with."""
    missing = [layer for layer in layers if layer not in saes]
    if missing:
        available = ", ".join(map(str, saes)) or "none"
        raise SteerlabError(
            f"there is no autoencoder of layer {missing[0]}; there are {available}: give one, or "
            "use .at"
        )
    # A firing that was built by hand does not say which autoencoders it was read with.
    digests = firing.provenance.get("saes")
    for layer in layers:
        sae = saes[layer]
        given = (sae.latents, sae.width, sae.layer, sae.site)
        read = (firing.units, firing.width, layer, firing.site)
        if given != read:
            raise SteerlabError(
                f"the autoencoder of layer {sae.layer} has {sae.latents} latents of width "
                f"{sae.width} at {sae.site}; "
                f"the firing has {firing.units} of width {firing.width} at {firing.site}, layer "
                f"{layer}: give those"
            )
        if digests is not None and sae.digest not in digests:
            raise SteerlabError(
                f"the firing was read with another autoencoder of layer {layer}; collect it with "
                "this one"
            )


def _build(
    estimator: str,
    selection: Selection,
    firing: Firing,
    vectors: Tensor,
    basis: Tensor,
    means: Tensor,
    *,
    source: str | None,
    extra: Mapping[str, Tensor],
) -> Directions:
    """Directions that say which selection and which reading they come from."""
    settings = {**selection.provenance.get("settings", {}), "selection": selection.method}
    metadata: dict[str, Any] = {
        **firing.provenance,
        "estimator": estimator,
        "settings": settings,
    }
    directions = Directions(
        vectors.float(),
        basis.float(),
        means,
        selection.langs,
        selection.layers,
        firing.site,
        source,
        metadata,
        dict(extra),
    )
    _need_two(firing)
    return directions


def _need_two(firing: Firing) -> None:
    """Raise where the firing is of one language, or of one without texts."""
    firing.need_texts()
    if len(firing.langs) < 2:
        raise SteerlabError(
            f"this firing is of {' '.join(firing.langs)} alone; a direction needs two languages"
        )


def _sae_diffmean(latents: Firing, saes: Mapping[int, SAE], *, source: str) -> Directions:
    return sae_diffmean(latents, saes)


# A dense vector: no chosen features, and so none to clamp.
RECORDS = {
    "sae diffmean": Method(
        _sae_diffmean,
        ("latents", "saes"),
        ("add", "ablate", "rotate", "affine", "push"),
        cites=("gurgurov2026clas",),
    ),
}
