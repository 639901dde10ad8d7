"""Ways to find where a language lies: statistics in, `Directions` out; none of them sees a model."""

from collections.abc import Callable

import torch
from torch import Tensor

from steerlab.directions import Directions
from steerlab.stats import Moments
from steerlab.terms import SteerlabError

__all__ = ["diffmean", "eigengap", "lda", "pca", "probe"]
# What `collect(also=...)` has to gather for each, beside count and mean.
NEEDS = {"eigengap": ("pairs",), "lda": ("scatter", "sample"), "pca": ("pairs",), "probe": ("sample",)}


def diffmean(moments: Moments, *, read: str = "tokens") -> Directions:
    """Language means; their differences are the directions (DiffMean).

    `read="tokens"` averages every token, `"last"` each text's last token. Formula: v_k = mean of h over language k.
    Source: CLaS-Bench (Gurgurov et al. 2026), where DiffMean is the strongest method on average.
    """
    if read not in ("tokens", "last"):
        raise SteerlabError(f"diffmean reads 'tokens' or 'last', not {read!r}")
    moments.need_texts()
    means = (moments.mean if read == "tokens" else moments.last).float()
    return _directions(moments, means, f"diffmean {read}" if read == "last" else "diffmean")


def lda(moments: Moments, *, shrinkage: float | None = None) -> Directions:
    """Fisher's discriminant: means in the metric of the shrunk within-language covariance.

    Formula: v_k = S⁻¹ mean_k with S = (1-a) W + a tr(W)/d I, W the pooled within-language covariance of all tokens and
    a Ledoit and Wolf's (2004) for the sampled tokens, unless `shrinkage` gives it. Equal to scikit-learn's
    `LinearDiscriminantAnalysis(solver="lsqr", shrinkage=a)`. Needs `scatter`, and `sample` for the shrinkage.
    """
    if shrinkage is not None and not 0 <= shrinkage <= 1:
        raise SteerlabError(f"the shrinkage is {shrinkage}; give a share from 0 to 1, or none for Ledoit and Wolf's")
    covariance, vectors = moments.covariance(), []
    for place in range(len(moments.layers)):
        a = _ledoit_wolf(moments, place) if shrinkage is None else shrinkage
        within = covariance[place]
        ball = torch.eye(moments.width, dtype=within.dtype) * within.trace() / moments.width
        vectors.append(torch.linalg.solve((1 - a) * within + a * ball, moments.mean[:, place].T).T)
    return _directions(moments, torch.stack(vectors, 1).float(), "lda", shrinkage=shrinkage)


def probe(moments: Moments, *, inverse_penalty: float = 1.0) -> Directions:
    """Weights of a multinomial logistic probe that tells the languages apart, token by token.

    Formula: v_k = w_k / scale, scikit-learn's `LogisticRegression(C=inverse_penalty)` on standardised tokens of the
    reservoir. Needs `sample`.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    sample, vectors = moments.need("sample"), []
    for place in range(len(moments.layers)):
        x, y = _sampled(moments, place)
        scaler = StandardScaler().fit(x)
        fit = LogisticRegression(C=inverse_penalty, max_iter=200, tol=1e-3).fit(scaler.transform(x), y)
        weights = torch.tensor(fit.coef_ / scaler.scale_, dtype=torch.float32)
        # Of two languages scikit-learn gives one row, for the second.
        vectors.append(torch.cat([-weights, weights]) if len(weights) == 1 else weights)
    return _directions(moments, torch.stack(vectors, 1), "probe", inverse_penalty=inverse_penalty, tokens=sample.size)


def pca(moments: Moments) -> Directions:
    """First principal axis of the paired differences, not centred, its sign by the mean difference.

    Formula: v_t = u₁ of Σ d dᵀ, d = mean of a sentence in t minus the mean of its translation in the source, scaled by
    the projection of the mean difference. Source: RepE (Zou et al. 2023); centring would remove what is sought.
    Needs `pairs`; from their source only.
    """
    return _from_pairs(moments, "pca", lambda values, count: 1)


def eigengap(moments: Moments, *, largest: int = 12) -> Directions:
    """The leading subspace of the paired differences, its rank by the eigengap.

    Formula: σ the singular values of the differences d; r = min(⌈effective rank⌉, argmax σᵢ/σᵢ₊₁), the argmax over the
    first `largest` numerically non-zero values, effective rank = exp of the entropy of σ²/Σσ². The direction is the
    mean difference projected on the subspace. Source: Neural FOXP2 stage II (2026); the released code looks for the
    gap in the zero part of the spectrum and so always finds its own mask's size. Needs `pairs`; from their source only.
    """

    # σ comes from dᵀd in single precision: what is this small beside the largest σ cannot be told from zero.
    zero = (moments.width * torch.finfo(torch.float32).eps) ** 0.5

    def rank(values: Tensor, count: int) -> int:
        squares = values.square()
        share = (squares / squares.sum()).clamp(min=1e-12)
        effective = torch.exp(-(share * share.log()).sum()).ceil().int().item()
        real = values[: min(count, len(values))]
        real = real[real > values[0] * zero][: largest + 1]
        gap = 1 if len(real) < 2 else int((real[:-1] / real[1:]).argmax()) + 1
        return max(1, min(int(effective), gap))

    return _from_pairs(moments, "eigengap", rank, largest=largest)


def _directions(moments: Moments, vectors: Tensor, estimator: str, **settings: object) -> Directions:
    """Rank 1: each language's basis is its vector less the mean of all."""
    centred = vectors - vectors.mean(0, keepdim=True)
    basis = centred / centred.norm(dim=-1, keepdim=True).clamp(min=1e-30)
    return Directions(
        vectors=vectors,
        basis=basis[:, :, None],
        means=moments.mean.float(),
        langs=moments.langs,
        layers=moments.layers,
        site=moments.site,
        provenance={**moments.provenance, "estimator": estimator, "settings": settings},
    )


def _from_pairs(moments: Moments, estimator: str, rank: Callable[[Tensor, int], int], **settings: object) -> Directions:
    pairs = moments.need("pairs")
    numbers = dict(zip(pairs.langs, pairs.count.tolist(), strict=True))
    if missing := [iso for iso, number in numbers.items() if not number and iso != pairs.source]:
        raise SteerlabError(f"the pairs hold nothing of {', '.join(missing)}; add some: moments.pairs.update(means)")
    shape = (len(moments.langs), len(moments.layers), moments.width)
    vectors = torch.zeros(shape)
    found: dict[tuple[int, int], Tensor] = {}
    for lang, iso in enumerate(moments.langs):
        if iso == pairs.source:
            continue
        for place in range(len(moments.layers)):
            values, axes = torch.linalg.eigh(pairs.square[lang, place].double())
            values, axes = values.flip(0).clamp(min=0).sqrt(), axes.flip(1).T
            kept = axes[: rank(values, int(pairs.count[lang]))]
            mean = pairs.total[lang, place] / pairs.count[lang]
            vectors[lang, place] = (kept.T @ (kept @ mean)).float()
            found[lang, place] = kept.float()
    basis = torch.zeros(*shape[:2], max(map(len, found.values())), moments.width)
    for (lang, place), kept in found.items():
        basis[lang, place, : len(kept)] = kept
    return Directions(
        vectors=vectors,
        basis=basis,
        means=moments.mean.float(),
        langs=moments.langs,
        layers=moments.layers,
        site=moments.site,
        source=pairs.source,
        provenance={**moments.provenance, "estimator": estimator, "settings": settings},
    )


def _sampled(moments: Moments, place: int) -> tuple[Tensor, Tensor]:
    """(tokens [token width], language of each) of the reservoir at one layer, in double precision."""
    sample = moments.need("sample")
    moments.need_texts()
    by_lang = [sample.of(lang)[:, place].double() for lang in range(len(moments.langs))]
    labels = [torch.full((len(tokens),), lang) for lang, tokens in enumerate(by_lang)]
    return torch.cat(by_lang), torch.cat(labels)


def _ledoit_wolf(moments: Moments, place: int) -> float:
    from sklearn.covariance import ledoit_wolf_shrinkage

    tokens, labels = _sampled(moments, place)
    for lang in range(len(moments.langs)):
        tokens[labels == lang] -= tokens[labels == lang].mean(0)
    return float(ledoit_wolf_shrinkage(tokens.numpy(), assume_centered=True))
