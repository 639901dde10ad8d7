"""What a direction has to beat: directions of the same dose that know nothing of the target
language, or the wrong thing.

All keep the true means, and with them the true gaps that give strength its unit: equal strength is
equal dose.
"""

from collections.abc import Mapping

import torch
from einops import einsum, rearrange
from jaxtyping import Float, Int
from torch import Tensor

from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.core.random import generator
from steerlab.core.samples import derangement
from steerlab.edits.drawn import draw_turned
from steerlab.sae import SAE

__all__ = ["dictionary", "random", "shuffled", "wrong"]


def random(
    directions: Directions,
    *,
    seed: int,
    source: str | None = None,
    covariance: Float[Tensor, "layer width width"] | None = None,
) -> Directions:
    """Draw a random vector for every language; equal strength is equal dose.

    From a source the directions to the targets are drawn, each by itself: the result is for this
    source only. Without one the vectors of the languages are, so that directions from one language
    to any two others share its vector, and have a cosine of about one half.

    Subspaces become random ones of the same rank. What only some operators need (`extra`) becomes
    random too: as many dimensions or neurons, an ellipsoid as long, a projection of equal rank,
    decoder rows of equal lengths and angles, so that latents are read where they are and written
    elsewhere.

    Args:
        directions: what is to be beaten.
        seed: of the draw.
        source: the language that is steered from; by default the one that the fit is for, if it
            is for one.
        covariance: of the activations at each layer; the vectors are then spread as activations
            are. By default all directions are equally likely.
    """
    # Each kind has a stream of its own, so that equal seeds of the two kinds share no numbers.
    if covariance is None:
        kind = "isotropic"
        rng = generator("random directions", seed)
    else:
        kind = "covariance"
        rng = generator("random directions spread like activations", seed)
    vectors = torch.randn(directions.means.shape, generator=rng)
    if covariance is not None:
        # Σ^(1/2) gives white noise the covariance Σ; rounding may leave small negative eigenvalues.
        values, axes = torch.linalg.eigh(covariance.double())
        root = (axes * values.clamp(min=0).sqrt()[:, None]).float()
        vectors = einsum(vectors, root, "lang layer noise, layer width noise -> lang layer width")
    source = directions.source if source is None else source
    if source is not None:
        if source not in directions.langs:
            raise SteerlabError(
                f"there is no {source!r} among {' '.join(directions.langs)}; give the language "
                "that is steered from"
            )
        # The differences from the source are then what was drawn.
        vectors[directions.langs.index(source)] = 0
    # A basis of one row is the vector itself, which `_replace` computes.
    one_row = directions.basis.shape[2] == 1
    basis = None if one_row else _orthonormal(directions.basis, rng)
    return with_vectors(
        directions,
        vectors,
        f"random {kind} {seed}",
        source=source,
        basis=basis,
        extra=_random_extra(directions.extra, rng),
    )


def shuffled(directions: Directions, *, seed: int) -> Directions:
    """Give every language another's vector: a permutation that leaves none in its place."""
    order = derangement(len(directions.langs), seed)
    return _reordered(directions, order, f"shuffled {seed}")


def wrong(directions: Directions, *, source: str, seed: int) -> Directions:
    """Give every target another target's vector, while the source keeps its own.

    Args:
        directions: what is to be beaten.
        source: the language that is steered from.
        seed: decides which target gets whose vector.
    """
    targets = [index for index, lang in enumerate(directions.langs) if lang != source]
    if len(targets) < 2:
        raise SteerlabError(
            "a wrong target's direction needs two targets or more; fit directions of more languages"
        )
    order = list(range(len(directions.langs)))
    others = derangement(len(targets), seed).tolist()
    for index, other in zip(targets, others, strict=True):
        order[index] = targets[other]
    return _reordered(directions, torch.tensor(order), f"wrong {seed}")


def dictionary(width: int, latents: int, *, layer: int, site: str = "resid_post", seed: int) -> SAE:
    """A random dictionary in an SAE's place, which knows nothing of the model: n random orthonormal
    bases and their negatives, z = relu(h W), h = z Wᵀ / n exactly.

    What is trained as well on it owes nothing to what an SAE has found.

    Args:
        width: of the activations.
        latents: how many; a multiple of 2 · width.
        layer: the layer that it stands for.
        site: where in that layer.
        seed: of the draw.
    """
    bases = latents // (2 * width) if width > 0 else 0
    if bases < 1 or latents != 2 * width * bases:
        raise SteerlabError(
            f"{latents} latents of width {width}; give a multiple of {2 * width}: orthonormal "
            "bases and their negatives"
        )
    rng = generator("random dictionary", seed)
    drawn = torch.randn(bases, width, width, generator=rng, dtype=torch.float64)
    rows = torch.linalg.qr(drawn)[0].float()  # [basis, latent, width]: orthonormal both ways
    signed = rearrange(
        torch.stack([rows, -rows]), "sign basis latent width -> (basis sign latent) width"
    )
    return SAE(
        W_enc=signed.mT,
        b_enc=torch.zeros(latents),
        W_dec=signed / bases,
        b_dec=torch.zeros(width),
        kind="relu",
        layer=layer,
        site=site,
        about={"id": f"random dictionary {seed}"},
    )


def _reordered(directions: Directions, order: Int[Tensor, " lang"], estimator: str) -> Directions:
    """Language i gets what language `order[i]` has."""
    # A tensor of one row is for all languages alike: there is nothing to exchange, and it is left
    # out.
    extra = {name: value[order] for name, value in directions.extra.items() if len(value) > 1}
    return with_vectors(
        directions,
        directions.vectors[order],
        estimator,
        source=directions.source,
        basis=directions.basis[order],
        extra=extra,
    )


def _random_extra(extra: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
    """What only some operators need, with random directions and units in place of the true ones."""
    # The order of the draws decides the numbers of a seed.
    result = dict(extra)
    for name in ("read", "axes"):
        if name in extra:
            result[name] = _orthonormal(extra[name], generator)
    if "write" in result:
        # A projection reads and writes along the same axes.
        result["write"] = result["read"]
    if "mask" in extra:
        # Neurons with their values: one permutation of all three keeps them together.
        order = torch.rand(extra["mask"].shape[-1], generator=generator).argsort()
        for name in ("mask", "values", "rest"):
            if name in extra:
                result[name] = extra[name][..., order]
    if "decoder" in extra:
        result["decoder"] = draw_turned(extra["decoder"], generator)
    return result


def _orthonormal(
    like: Float[Tensor, "lang layer rank width"], generator: torch.Generator
) -> Tensor:
    """Random orthonormal rows in the shape of these; rows of padding stay zero."""
    drawn = torch.randn(like.mT.shape, generator=generator)
    return torch.linalg.qr(drawn)[0].mT * like.any(-1, keepdim=True)


def with_vectors(
    directions: Directions,
    vectors: Tensor,
    estimator: str,
    *,
    source: str | None,
    basis: Tensor | None = None,
    extra: Mapping[str, Tensor] | None = None,
) -> Directions:
    """Directions with other vectors and the same means; the basis as `build` makes it, by
    default."""
    if basis is None:
        centred = vectors - vectors.mean(0, keepdim=True)
        length = centred.norm(dim=-1, keepdim=True).clamp(min=1e-30)
        basis = rearrange(centred / length, "lang layer width -> lang layer 1 width")
    # Of what was fitted only the sizes are taken.
    made = {key: value for key, value in directions.provenance.items() if key != "cost"}
    return Directions(
        vectors=vectors,
        basis=basis,
        means=directions.means,
        langs=directions.langs,
        layers=directions.layers,
        site=directions.site,
        source=source,
        provenance={**made, "estimator": estimator},
        extra=extra or {},
        strength_unit=directions.strength_unit,
    )
