"""Principal axes: of pairs, of the language means, of each language's own cloud of tokens."""

import torch
from jaxtyping import Float
from torch import Tensor

from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.core.moments import Moments
from steerlab.estimate.build import build, need_two
from steerlab.estimate.diffmean import READS
from steerlab.estimate.eigengap import effective_rank, leading, need_pairs
from steerlab.estimate.record import Estimator

CLOUD = 20  # axes that CLaS-Bench keeps of a language's own cloud


def pca(moments: Moments, *, of: str = "pairs", rank: int | None = None) -> Directions:
    """Principal axes, on which the mean difference is projected, so that it gives the sign.

    `of="pairs"`: the first right singular vectors of the paired differences (`rank` 1), not
    centred, since centring would remove what is sought (RepE, Zou et al. 2023; repeng's default
    does centre). Needs `pairs`, and is good for their source only. `of="means"`: the axes between
    the language means, centred over languages, as many as the effective rank; the same for all.
    `of="cloud"`: the first 20 axes of the target's own tokens, centred, with no contrast at all
    (CLaS-Bench's PCA, which `push` steers with). Needs `clouds`. Formula: v_t = UᵀU m, U the axes,
    m the mean difference (of the pairs, or from the mean of all languages).
    """
    if of == "pairs":
        number = 1 if rank is None else _whole(rank, moments.width)
        need_pairs(moments, number)
        return leading(moments, "pca", lambda values, count: number, {"rank": number})
    if of not in ("means", "cloud"):
        raise SteerlabError(f"pca is of 'pairs', 'means' or 'cloud', not of {of!r}")
    need_two(moments)
    moments.need_texts()
    axes = (
        _between(moments, rank)
        if of == "means"
        else _clouds(moments, CLOUD if rank is None else rank)
    )
    return _projected(moments, axes, f"pca {of}")


def _between(moments: Moments, rank: int | None) -> Float[Tensor, "lang layer rank width"]:
    most = len(moments.langs) - 1
    if rank is not None and _whole(rank, moments.width) > most:
        raise SteerlabError(
            f"{most + 1} languages' means span {most} axes, not {rank}; give fewer, or add "
            "languages"
        )
    centred = (moments.mean - moments.mean.mean(0)).transpose(0, 1)
    _, values, axes = torch.linalg.svd(centred, full_matrices=False)
    if rank is None:
        rank = min(most, int(effective_rank(values).ceil().max()))
    return axes[None, :, :rank].expand(len(moments.langs), -1, -1, -1)


def _clouds(moments: Moments, rank: int) -> Float[Tensor, "lang layer rank width"]:
    clouds = moments.need("clouds")
    number = min(_whole(rank, None), moments.width)
    if few := [
        iso for iso, n in zip(moments.langs, moments.count.tolist(), strict=True) if n <= number
    ]:
        raise SteerlabError(
            f"{number} axes of a cloud need more tokens than {', '.join(few)} has; read more, or "
            "ask less"
        )
    return torch.stack(
        [torch.linalg.eigh(cloud.double())[1].flip(-1).mT[:, :number] for cloud in clouds]
    )


def _projected(moments: Moments, axes: Tensor, estimator: str) -> Directions:
    centred = moments.mean - moments.mean.mean(0)
    inside = torch.einsum("klw,klrw->klr", centred, axes)
    return build(
        moments,
        torch.einsum("klr,klrw->klw", inside, axes),
        estimator,
        basis=axes,
        settings={"rank": axes.shape[2]},
    )


def disentangle(moments: Moments, *, read: str = "last", rank: int | None = None) -> Directions:
    """The subspace of all languages' means and the one vector that they share, orthogonal to it.

    Formula: min ‖M - m_a 1ᵀ - M_s Γᵀ‖², m_a ⟂ M_s, M the languages' means as columns; solved by
    `shared_and_own`. Every language's basis is M_s, of `rank` languages - 1 by default, and v_k =
    M_sᵀM_s m_k; the part that is left is m_a, in `extra["shared"]`. `read` is "last" as in the
    source (the last token of a prompt), or "tokens" or "texts"; a direction points from the means
    that are read to each other, not always from those of all tokens. `ablate` with a fraction in
    the middle layers and a negative one at the top, or `detour`, is its intervention. Source:
    Language-Reasoning Disentanglement (arXiv 2505.15257).
    """
    if read not in READS:
        raise SteerlabError(f"disentangle reads 'tokens', 'texts' or 'last', not {read!r}")
    need_two(moments)
    moments.need_texts()
    most = len(moments.langs) - 1
    number = most if rank is None else _whole(rank, moments.width)
    if number > most or most >= moments.width:
        raise SteerlabError(
            f"{most + 1} languages' means in width {moments.width} have no subspace of rank "
            f"{number}"
        )
    means = getattr(moments, READS[read]).transpose(0, 1)
    found = [shared_and_own(layer, number) for layer in means]
    own = torch.stack([axes for _, axes in found])[None].expand(most + 1, -1, -1, -1)
    inside = torch.einsum("lkw,klrw->klr", means, own)
    vectors = torch.einsum("klr,klrw->klw", inside, own)
    shared = torch.stack([vector for vector, _ in found])[None]
    name, settings = (
        "disentangle" if read == "last" else f"disentangle {read}",
        {"read": read, "rank": number},
    )
    return build(moments, vectors, name, basis=own, extra={"shared": shared}, settings=settings)


def shared_and_own(
    means: Float[Tensor, "lang width"], rank: int
) -> tuple[Float[Tensor, " width"], Float[Tensor, "rank width"]]:
    """(the vector that all languages share, orthonormal rows of the subspace in which they differ,
    orthogonal to it).

    Best fit B of the centred means at this rank, with the mean put back; then the shared vector
    anew as B⁺ᵀ1 / ‖B⁺ᵀ1‖², the point of the languages' affine hull that is nearest to the origin,
    and the SVD of what is left.
    """
    centre = means.mean(0)
    u, values, axes = torch.linalg.svd(means - centre, full_matrices=False)
    best = (u[:, :rank] * values[:rank]) @ axes[:rank] + centre
    normal = torch.linalg.pinv(best).sum(1)
    shared = normal / normal.square().sum().clamp(min=1e-30)
    return shared, torch.linalg.svd(best - shared, full_matrices=False)[2][:rank]


def ellipsoid(moments: Moments, *, rank: int | None = None) -> Directions:
    """The axes and lengths of each language's cloud of tokens, not centred: what a `conceptor`
    projects onto.

    Formula: R_k = XᵀX / n over the tokens of language k, R = Qᵀ diag(s) Q; `extra` holds `axes` Q
    [rank width] and `spectrum` s [rank], the `rank` largest or all; the vectors are the language
    means, as DiffMean's. Source: Steering with Conceptors (arXiv 2410.16314). Needs `clouds`:
    width² per layer and language, and as much in the result unless `rank` is given.
    """
    need_two(moments)
    moments.need_texts()
    moments.need("clouds")
    number = moments.width if rank is None else _whole(rank, moments.width)
    places = range(len(moments.layers))
    found = [
        [torch.linalg.eigh(moments.second_moment(lang, place)) for place in places]
        for lang in range(len(moments.langs))
    ]
    spectrum = torch.stack(
        [torch.stack([values.flip(0) for values, _ in row]) for row in found]
    ).clamp(min=0)
    axes = torch.stack([torch.stack([vectors.flip(1).T for _, vectors in row]) for row in found])
    extra = {"axes": axes[:, :, :number], "spectrum": spectrum[:, :, :number]}
    return build(moments, moments.mean, "ellipsoid", extra=extra, settings={"rank": number})


def _whole(rank: int, width: int | None) -> int:
    if rank < 1 or (width is not None and rank > width):
        raise SteerlabError(f"the rank is {rank}; give a number from 1 to {width or 'the width'}")
    return rank


RECORDS = {
    "pca": Estimator(
        make=pca,
        needs=("pairs",),
        estimates="axis of the paired differences",
        cites=("zou2023representation",),
    ),
    "pca means": Estimator(
        make=pca,
        knobs={"of": "means"},
        no_source="axes of the language means: of this package",
    ),
    "pca cloud": Estimator(
        make=pca,
        knobs={"of": "cloud"},
        needs=("clouds",),
        cites=("gurgurov2026clas",),
    ),
    "disentangle": Estimator(
        make=disentangle,
        estimates="subspace of the language means",
        cites=("zhao2025less",),
    ),
    "disentangle tokens": Estimator(make=disentangle, knobs={"read": "tokens"}),
    "ellipsoid": Estimator(
        make=ellipsoid,
        needs=("clouds",),
        estimates="mean difference",
        cites=("jaeger2014conceptors", "postmus2024conceptors"),
    ),
}
