"""Linear discriminants: Fisher's, and the weights of a logistic probe."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.core.moments import Moments
from steerlab.estimate.build import (
    Contrast,
    build,
    named,
    need_moments,
    need_two,
    negatives,
    source_of,
)
from steerlab.estimate.record import Estimator

TOLERANCE = 2e-3  # of the probe's weights; a cosine is then right to about its square
MAX_ITER = 5000


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
    covariance of all tokens: the same contrast as DiffMean, in another metric. Equal to
    scikit-learn's `LinearDiscriminantAnalysis(solver="lsqr", shrinkage=a)`. Unless `shrinkage`
    gives it, a is Ledoit and Wolf's (2004) for all tokens that were read,
    a = Σ_k ω_k² (E‖x - μ_k‖⁴ - ‖W‖²) / n_k / ‖W - tr(W)/d I‖², with n_k the tokens of language k,
    ω_k its share of them, and the fourth moment E taken from the sample. Needs `scatter`, and
    `sample` for the shrinkage. With a `contrast` ("source", "rest", a code, "clas" or several
    codes) every target has a discriminant of its own against those languages as one class, W being
    the mean of the two classes' covariances, and the fit is for one `source`; that needs `clouds`.
    CLaS-Bench:
    `contrast="clas", shrinkage=0, ridge=1e-6`.

    Args:
        moments: what was read.
        shrinkage: a, from 0 to 1; by default Ledoit and Wolf's.
        ridge: what is added to the diagonal.
        contrast: the languages that every target is set against; by default the steered source.
        source: the source that a fit with a contrast is for.
    """
    if shrinkage is not None and not 0 <= shrinkage <= 1:
        raise SteerlabError(
            f"the shrinkage is {shrinkage}; give a share from 0 to 1, or none for Ledoit and Wolf's"
        )
    if not ridge >= 0:
        raise SteerlabError(f"the ridge is {ridge}; give a number from 0 up")
    need_moments(moments)
    settings: dict[str, object] = {"shrinkage": shrinkage, "ridge": ridge, "contrast": contrast}
    if contrast is not None:
        vectors = _against(moments, contrast, source, shrinkage, ridge)
        return build(moments, vectors, named("lda", contrast), source=source, settings=settings)
    covariance = moments.covariance()
    weights = moments.count / moments.count.sum()
    solved = []
    for index, within in enumerate(covariance):
        means = moments.mean[:, index]
        a = shrinkage
        if a is None:
            a = _ledoit_wolf(moments, index, within, weights, means)
        solved.append(torch.linalg.solve(_shrunk(within, a, ridge), means.T).T)
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
            a = shrinkage
            if a is None:
                # The two classes weigh the same, and so do the languages of the second class,
                # whose tokens lie about their common mean.
                weights = torch.zeros_like(moments.count)
                weights[others] = 0.5 / len(others)
                weights[lang] = 0.5
                centres = moments.mean[:, place].clone()
                centres[others] = means.mean(0)
                a = _ledoit_wolf(moments, place, within, weights, centres)
            step = moments.mean[lang, place] - means.mean(0)
            vectors[lang, place] = torch.linalg.solve(_shrunk(within, a, ridge), step)
    return vectors


def _shrunk(within: Tensor, a: float, ridge: float) -> Float[Tensor, "width width"]:
    one = torch.eye(len(within), dtype=within.dtype)
    return (1 - a) * within + (a * within.trace() / len(within) + ridge) * one


def probe(
    moments: Moments,
    *,
    inverse_penalty: float = 1.0,
    contrast: Contrast = None,
    source: str = "en",
    tolerance: float = TOLERANCE,
    max_iter: int = MAX_ITER,
) -> Directions:
    """Weights of a logistic probe that tells the languages apart, token by token.

    Formula: v_k = w_k / scale, the optimum of scikit-learn's
    `LogisticRegression(C=inverse_penalty)` on standardised tokens of the reservoir: one multinomial
    probe, whose w_t - w_s is the log-odds of t against s. With a `contrast` ("source", "rest", a
    code, "clas" or several codes) a binary probe for each target against those languages, the two
    classes weighing the same, for one `source`. CLaS-Bench trains `contrast="clas"` by Adam (1e-4,
    one epoch) and so stops far from the optimum that is found here. Needs `sample`. The provenance
    says of the worst of all fits whether it `converged`, its `gradient` as `tolerance` counts it,
    and the most `iterations` of any; a fit that did not converge warns.

    Args:
        moments: with a sample of tokens.
        inverse_penalty: C of f(w) = ½‖w‖² + C Σ loss.
        contrast: what each target is set against.
        source: the language that the directions set out from, with a contrast.
        tolerance: the optimiser stops where ‖∇f‖ <= tolerance ‖w‖. Since the penalty makes f
            1-strongly convex in w, the weights are then as near to the optimum: ‖w - w*‖ <= ‖∇f‖,
            the intercept at its best.
        max_iter: where it stops in any case.
    """
    need_two(moments)
    if not tolerance > 0 or max_iter < 1:
        raise SteerlabError(
            f"the tolerance is {tolerance} and max_iter {max_iter}; give numbers above 0"
        )
    sample = moments.need("sample")
    fits: list[_Fit] = []
    vectors = []
    need: list[list[int]] = []
    if contrast is not None:
        source_of(moments, contrast, source)
        for target in moments.langs:
            no_fit = target == source
            need.append(
                [] if no_fit else negatives(moments, contrast, target=target, source=source)
            )
    for index in range(len(moments.layers)):
        tokens, labels = _sampled(moments, index)
        if contrast is None:
            fits.append(_logistic(tokens, labels, inverse_penalty, tolerance, max_iter))
            vectors.append(fits[-1].weights)
            continue
        result = torch.zeros(len(moments.langs), moments.width)
        for lang, others in enumerate(need):
            if lang not in others and others:
                kept = torch.isin(labels, torch.tensor([lang, *others]))
                is_target = (labels[kept] == lang).long()
                fit = _logistic(
                    tokens[kept], is_target, inverse_penalty, tolerance, max_iter, balanced=True
                )
                fits.append(fit)
                result[lang] = fit.weights[1]
        vectors.append(result)
    settings = {"inverse_penalty": inverse_penalty, "tokens": sample.size, "contrast": contrast}
    # Of the defaults nothing is said, as before they could be chosen.
    if (tolerance, max_iter) != (TOLERANCE, MAX_ITER):
        settings |= {"tolerance": tolerance, "max_iter": max_iter}
    only = None if contrast is None else source
    directions = build(
        moments, torch.stack(vectors, 1), named("probe", contrast), source=only, settings=settings
    )
    return replace(directions, provenance={**directions.provenance, **_report(fits, tolerance)})


@dataclass(frozen=True)
class _Fit:
    """Weights [class width] of a logistic regression, and how far its optimiser came.

    `gradient` is ‖∇f‖/‖w‖ at the weights.
    """

    weights: Tensor
    iterations: int
    gradient: float


def _report(fits: Sequence[_Fit], tolerance: float) -> dict[str, object]:
    """What the provenance says of the optimisation; warns where it did not end."""
    worst = max((fit.gradient for fit in fits), default=0.0)
    failed = sum(fit.gradient > tolerance for fit in fits)
    if failed:
        warnings.warn(
            f"{failed} of {len(fits)} probes did not converge (gradient {worst:.2g} of a tolerance "
            f"of {tolerance:.2g}); give a larger max_iter or a smaller inverse_penalty",
            stacklevel=3,
        )
    most = max((fit.iterations for fit in fits), default=0)
    return {"converged": not failed, "iterations": most, "gradient": worst}


def _logistic(
    tokens: Float[Tensor, "token width"],
    labels: Int[Tensor, " token"],
    inverse_penalty: float,
    tolerance: float,
    max_iter: int,
    *,
    balanced: bool = False,
) -> _Fit:
    """Multinomial logistic regression on standardised tokens, in double precision, by L-BFGS.

    f(W, b) = ½‖W‖² + C Σ_i a_i (logsumexp(W x_i + b) - (W x_i + b)_{y_i}); a is 1 or, if
    `balanced`, makes all classes weigh the same. The weights are per unit of the raw activations.
    Of two classes the penalty is scikit-learn's for its one row w = w_1 - w_0: ½‖w‖² = ‖W‖², W
    having the rows ±w/2.
    """
    from scipy.optimize import minimize

    count, width = tokens.shape
    sizes = torch.bincount(labels).double()
    classes = len(sizes)
    # A dimension that never changes tells nothing; its scale is 1, as scikit-learn's.
    scale = tokens.std(0, correction=0)
    scale = torch.where(scale > 0, scale, 1.0)
    # A column of ones stands for the intercept, which is not penalised.
    x = torch.cat([(tokens - tokens.mean(0)) / scale, torch.ones(count, 1).double()], 1)
    penalty = torch.full((width + 1, 1), 2.0 if classes == 2 else 1.0, dtype=torch.float64)
    penalty[-1] = 0
    weight = torch.ones(count, dtype=torch.float64)
    if balanced:
        weight = (count / classes / sizes)[labels]
    truth = torch.nn.functional.one_hot(labels, classes).double()
    share = (inverse_penalty * weight)[:, None]

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        w = torch.from_numpy(flat).view(width + 1, classes)
        logits = x @ w
        norm = logits.logsumexp(1, keepdim=True)
        loss = (share[:, 0] * (norm[:, 0] - (logits * truth).sum(1))).sum()
        gradient = x.T @ (share * ((logits - norm).exp() - truth)) + penalty * w
        return float(loss + (penalty * w * w).sum() / 2), gradient.numpy().ravel()

    # The last point and its gradient, so that the check of a step costs no second pass.
    last: list[np.ndarray] = []

    def evaluated(flat: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = objective(flat)
        last[:] = [flat.copy(), gradient.copy()]
        return value, gradient

    def relative(flat: np.ndarray) -> float:
        if not np.array_equal(flat, last[0]):
            evaluated(flat)
        size = float(np.linalg.norm(flat[:-classes]))
        return float(np.linalg.norm(last[1])) / max(size, 1e-30)

    def enough(intermediate_result: Any) -> None:
        # SciPy's own rules, of the largest entry or of the loss, are no bound on the weights.
        if relative(intermediate_result.x) <= tolerance:
            raise StopIteration

    result = minimize(
        evaluated,
        np.zeros((width + 1) * classes),
        jac=True,
        method="L-BFGS-B",
        callback=enough,
        options={"maxiter": max_iter, "maxfun": 20 * max_iter, "ftol": 0, "gtol": 0, "maxcor": 20},
    )
    weights = torch.from_numpy(result.x).view(width + 1, classes)[:-1].T / scale
    if classes == 2:
        weights = weights * 2  # as scikit-learn's one row
    return _Fit(weights.float(), int(result.nit), relative(result.x))


def _sampled(moments: Moments, place: int) -> tuple[Tensor, Tensor]:
    """(tokens [token width], language of each) of the reservoir at one layer, in double
    precision."""
    sample = moments.need("sample")
    moments.need_texts()
    by_lang = [sample.of(lang)[:, place].double() for lang in range(len(moments.langs))]
    labels = [torch.full((len(tokens),), lang) for lang, tokens in enumerate(by_lang)]
    return torch.cat(by_lang), torch.cat(labels)


def _ledoit_wolf(
    moments: Moments,
    index: int,
    within: Float[Tensor, "width width"],
    weights: Float[Tensor, " lang"],
    centres: Float[Tensor, "lang width"],
) -> float:
    """Ledoit and Wolf's shrinkage for a covariance that was estimated from all tokens.

    The formula is in `lda`. Where the sample is all tokens, it is scikit-learn's
    `ledoit_wolf_shrinkage` of the centred tokens.

    Args:
        moments: of which the sample and the numbers of tokens are read.
        index: of the layer.
        within: the covariance.
        weights: of each language in it; they add up to 1, and 0 leaves a language out.
        centres: what the tokens of each language lie about in it.
    """
    sample = moments.need("sample")
    square = within.square().sum()
    error = torch.zeros((), dtype=torch.float64)
    for lang, weight in enumerate(weights):
        if weight == 0:
            continue
        tokens = sample.of(lang)[:, index].double() - centres[lang]
        fourth = tokens.square().sum(1).square().mean()
        # Divided by the tokens that the covariance was made of, not by those of the sample: with
        # these the shrinkage would be as many times too strong as the sample is smaller.
        error += weight**2 * (fourth - square) / moments.count[lang]
    distance = square - within.trace().square() / len(within)
    return float((error / distance.clamp(min=1e-30)).clamp(0, 1))


RECORDS = {
    "lda": Estimator(
        make=lda,
        needs=("scatter", "sample"),
        estimates="discriminant",
        cites=("fisher1936use", "ledoit2004well", "gurgurov2026clas"),
    ),
    "lda against source": Estimator(
        make=lda, knobs={"contrast": "source"}, needs=("clouds", "sample"), sourced=True
    ),
    "lda against clas": Estimator(
        make=lda, knobs={"contrast": "clas"}, needs=("clouds", "sample"), sourced=True
    ),
    "probe": Estimator(
        make=probe,
        needs=("sample",),
        estimates="discriminant",
        cites=("gurgurov2026clas",),
    ),
    "probe against source": Estimator(
        make=probe, knobs={"contrast": "source"}, needs=("sample",), sourced=True
    ),
    "probe against clas": Estimator(
        make=probe, knobs={"contrast": "clas"}, needs=("sample",), sourced=True
    ),
}
