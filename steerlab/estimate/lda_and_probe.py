"""Linear discriminants: Fisher's, and the weights of a logistic probe."""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.core.moments import Moments
from steerlab.estimate.build import Contrast, build, named, need_two, negatives, source_of
from steerlab.estimate.record import Estimator


def lda(
    moments: Moments,
    *,
    shrinkage: float | None = None,
    ridge: float = 0.0,
    contrast: Contrast = None,
    source: str = "en",
) -> Directions:
    """Fisher's discriminant: means in the metric of the shrunk within-language covariance.

    Formula: v_k = S⁻¹ mean_k with S = (1-a) W + a tr(W)/d I + ridge I, W the pooled within-language
    covariance of all tokens and a Ledoit and Wolf's (2004) for the sampled tokens, unless
    `shrinkage` gives it: the same contrast as DiffMean, in another metric. Equal to scikit-learn's
    `LinearDiscriminantAnalysis(solver="lsqr", shrinkage=a)`. Needs `scatter`, and `sample` for the
    shrinkage. With a `contrast` ("source", "rest", a code, "clas" or several codes) every target
    has a discriminant of its own against those languages as one class, W being the mean of the two
    classes' covariances, and the fit is for one `source`; that needs `clouds`. CLaS-Bench:
    `contrast="clas", shrinkage=0, ridge=1e-6`.
    """
    if shrinkage is not None and not 0 <= shrinkage <= 1:
        raise SteerlabError(
            f"the shrinkage is {shrinkage}; give a share from 0 to 1, or none for Ledoit and Wolf's"
        )
    if not ridge >= 0:
        raise SteerlabError(f"the ridge is {ridge}; give a number from 0 up")
    settings: dict[str, object] = {"shrinkage": shrinkage, "ridge": ridge, "contrast": contrast}
    if contrast is not None:
        vectors = _against(moments, contrast, source, shrinkage, ridge)
        return build(moments, vectors, named("lda", contrast), source=source, settings=settings)
    covariance, solved = moments.covariance(), []
    everyone = range(len(moments.langs))
    for place in range(len(moments.layers)):
        a = _ledoit_wolf(moments, place, everyone) if shrinkage is None else shrinkage
        solved.append(
            torch.linalg.solve(_shrunk(covariance[place], a, ridge), moments.mean[:, place].T).T
        )
    return build(moments, torch.stack(solved, 1), "lda", settings=settings)


def _against(
    moments: Moments, contrast: Contrast, source: str, shrinkage: float | None, ridge: float
) -> Float[Tensor, "lang layer width"]:
    source_of(moments, contrast, source)
    moments.need_texts()
    clouds, vectors = moments.need("clouds"), torch.zeros_like(moments.mean)
    for lang, iso in enumerate(moments.langs):
        if iso == source:
            continue
        others = negatives(moments, contrast, target=iso, source=source)
        for place in range(len(moments.layers)):
            means = moments.mean[others, place]
            apart = means - means.mean(0)
            each = clouds[others, place].double() / moments.count[others, None, None]
            within = clouds[lang, place].double() / moments.count[lang]
            within = (within + each.mean(0) + apart.T @ apart / len(others)) / 2
            a = _ledoit_wolf(moments, place, [lang, *others]) if shrinkage is None else shrinkage
            step = moments.mean[lang, place] - means.mean(0)
            vectors[lang, place] = torch.linalg.solve(_shrunk(within, a, ridge), step)
    return vectors


def _shrunk(within: Tensor, a: float, ridge: float) -> Float[Tensor, "width width"]:
    one = torch.eye(len(within), dtype=within.dtype)
    return (1 - a) * within + (a * within.trace() / len(within) + ridge) * one


def probe(
    moments: Moments, *, inverse_penalty: float = 1.0, contrast: Contrast = None, source: str = "en"
) -> Directions:
    """Weights of a logistic probe that tells the languages apart, token by token.

    Formula: v_k = w_k / scale, scikit-learn's `LogisticRegression(C=inverse_penalty)` on
    standardised tokens of the reservoir: one multinomial probe, whose w_t - w_s is the log-odds of
    t against s. With a `contrast` ("source", "rest", a code, "clas" or several codes) a binary
    probe for each target against those languages, the two classes weighing the same, for one
    `source`. CLaS-Bench trains `contrast="clas"` by Adam (1e-4, one epoch) and so stops far from
    the optimum that is found here. Needs `sample`.
    """
    need_two(moments)
    sample, vectors = moments.need("sample"), []
    if contrast is not None:
        source_of(moments, contrast, source)
        need = [
            negatives(moments, contrast, target=t, source=source) if t != source else []
            for t in moments.langs
        ]
    for place in range(len(moments.layers)):
        tokens, labels = _sampled(moments, place)
        if contrast is None:
            vectors.append(_weights(tokens, labels, inverse_penalty, None))
            continue
        found = torch.zeros(len(moments.langs), moments.width)
        for lang, others in enumerate(need):
            if lang not in others and others:
                kept = torch.isin(labels, torch.tensor([lang, *others]))
                found[lang] = _weights(
                    tokens[kept], (labels[kept] == lang).long(), inverse_penalty, "balanced"
                )[1]
        vectors.append(found)
    settings = {"inverse_penalty": inverse_penalty, "tokens": sample.size, "contrast": contrast}
    only = None if contrast is None else source
    return build(
        moments, torch.stack(vectors, 1), named("probe", contrast), source=only, settings=settings
    )


def _weights(
    tokens: Tensor, labels: Tensor, inverse_penalty: float, balance: str | None
) -> Float[Tensor, "class width"]:
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(tokens)
    fit = LogisticRegression(C=inverse_penalty, max_iter=200, tol=1e-3, class_weight=balance)
    weights = torch.tensor(
        fit.fit(scaler.transform(tokens), labels).coef_ / scaler.scale_, dtype=torch.float32
    )
    # Of two classes scikit-learn gives one row, for the second.
    return torch.cat([-weights, weights]) if len(weights) == 1 else weights


def _sampled(moments: Moments, place: int) -> tuple[Tensor, Tensor]:
    """(tokens [token width], language of each) of the reservoir at one layer, in double
    precision."""
    sample = moments.need("sample")
    moments.need_texts()
    by_lang = [sample.of(lang)[:, place].double() for lang in range(len(moments.langs))]
    labels = [torch.full((len(tokens),), lang) for lang, tokens in enumerate(by_lang)]
    return torch.cat(by_lang), torch.cat(labels)


def _ledoit_wolf(moments: Moments, place: int, langs: Iterable[int]) -> float:
    from sklearn.covariance import ledoit_wolf_shrinkage

    tokens, labels = _sampled(moments, place)
    kept = torch.isin(labels, torch.tensor(list(langs)))
    tokens, labels = tokens[kept], labels[kept]
    for lang in labels.unique():
        tokens[labels == lang] -= tokens[labels == lang].mean(0)
    return float(ledoit_wolf_shrinkage(tokens.numpy(), assume_centered=True))


RECORDS = {
    "lda": Estimator(make=lda, needs=("scatter", "sample"), estimates="discriminant"),
    "lda against source": Estimator(
        make=lda, knobs={"contrast": "source"}, needs=("clouds", "sample"), sourced=True
    ),
    "lda against clas": Estimator(
        make=lda, knobs={"contrast": "clas"}, needs=("clouds", "sample"), sourced=True
    ),
    "probe": Estimator(make=probe, needs=("sample",), estimates="discriminant"),
    "probe against source": Estimator(
        make=probe, knobs={"contrast": "source"}, needs=("sample",), sourced=True
    ),
    "probe against clas": Estimator(
        make=probe, knobs={"contrast": "clas"}, needs=("sample",), sourced=True
    ),
}
