"""Fits that end where they should: the probe at its optimum, the shrinkage for all tokens."""

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from planting import labelled, moments, planted, two_languages
from sklearn.covariance import LedoitWolf
from sklearn.linear_model import LogisticRegression

import steerlab.estimate as estimate
from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.estimate.lda_and_probe import TOLERANCE


def steep() -> dict[str, torch.Tensor]:
    """Texts of four languages whose dimensions hang together, so that an optimiser has far to
    go."""
    texts, _ = planted()
    generator = torch.Generator().manual_seed(1)
    mixing = torch.randn(24, 24, generator=generator) * torch.logspace(0, -2, 24)
    return {lang: h[:40, :, :1] @ mixing for lang, h in texts.items()}


def least_cosine(one: Directions, other: Directions) -> float:
    """The least cosine between the same directions of two fits, over all pairs of languages."""
    cosines = []
    for source in one.langs:
        for target in one.langs:
            if source != target and one.source in (None, source):
                a = one.between(source, target).unit.double()
                b = other.between(source, target).unit.double()
                cosines.append(float((a * b).sum(-1).min()))
    return min(cosines)


# The probe


@pytest.mark.parametrize("contrast", [None, "source", ("es", "ja")])
def test_a_probe_is_at_its_optimum(contrast: str | tuple[str, ...] | None) -> None:
    given = moments(steep(), sample=200)
    fitted = estimate.probe(given, contrast=contrast)
    assert fitted.provenance["converged"] is True
    assert 0 < fitted.provenance["gradient"] <= TOLERANCE
    further = estimate.probe(given, contrast=contrast, tolerance=1e-6)
    assert further.provenance["iterations"] > fitted.provenance["iterations"]
    assert least_cosine(fitted, further) > 1 - 1e-4
    # Where the optimiser used to stop, the direction is another.
    with pytest.warns(UserWarning, match="probes did not converge .* give a larger max_iter"):
        early = estimate.probe(given, contrast=contrast, max_iter=5)
    assert early.provenance["converged"] is False
    assert early.provenance["iterations"] == 5
    assert early.provenance["gradient"] > TOLERANCE
    assert least_cosine(early, further) < 1 - 1e-3


def test_ten_times_the_iterations_change_nothing() -> None:
    given = moments(steep(), sample=200)
    fitted = estimate.probe(given)
    tenfold = fitted.provenance["iterations"] * 10
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        further = estimate.probe(given, tolerance=1e-12, max_iter=tenfold)
    assert least_cosine(fitted, further) > 1 - 1e-4


def test_the_gradient_in_the_provenance_is_that_of_the_formula() -> None:
    texts = steep()
    x, y = labelled(texts, 0)
    x = (x - x.mean(0)) / x.std(0)
    given = moments(texts, sample=200)
    cases: list[dict[str, Any]] = [{}, {"max_iter": 3}]
    for options in cases:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            fitted = estimate.probe(given, **options)
        w = fitted.vectors[:, 0].double().numpy() * labelled(texts, 0)[0].std(0)
        # The intercept is no part of the directions: it is fitted here, the weights being given.
        b = np.zeros(4)
        for _ in range(2000):
            logits = x @ w.T + b
            p = np.exp(logits - logits.max(1, keepdims=True))
            p /= p.sum(1, keepdims=True)
            b -= 2 * (p - np.eye(4)[y]).mean(0)
        gradient = (p - np.eye(4)[y]).T @ x + w
        relative = np.linalg.norm(gradient) / np.linalg.norm(w)
        assert (relative <= 2 * TOLERANCE) == (not options)


@pytest.mark.parametrize("balance", [None, "balanced"])
def test_two_languages_have_scikit_learns_weights(balance: str | None) -> None:
    texts = two_languages(torch.ones(8))
    texts["de"] = texts["de"][:30]
    x, y = labelled(texts, 0)
    model = LogisticRegression(max_iter=5000, tol=1e-8, class_weight=balance)
    theirs = model.fit((x - x.mean(0)) / x.std(0), y).coef_[0] / x.std(0)
    fitted = estimate.probe(
        moments(texts, sample=400, pairs_from=None), contrast=None if balance is None else "source"
    )
    np.testing.assert_allclose(fitted.vectors[1, 0].numpy(), theirs, rtol=0.01, atol=0.01)
    # A quarter of the weight on one class is another fit.
    other = LogisticRegression(max_iter=5000, class_weight={0: 1, 1: 30})
    wrong = other.fit((x - x.mean(0)) / x.std(0), y).coef_[0] / x.std(0)
    assert np.abs(wrong - theirs).max() > 0.05


def test_a_tolerance_or_a_limit_of_nothing_is_refused() -> None:
    given = moments(two_languages(torch.ones(8)))
    for options in ({"tolerance": 0.0}, {"max_iter": 0}):
        with pytest.raises(SteerlabError, match="the tolerance is .* give numbers above 0"):
            estimate.probe(given, **options)


# Ledoit and Wolf's shrinkage


def solved(within: np.ndarray, a: float, step: np.ndarray) -> np.ndarray:
    shrunk = (1 - a) * within + a * np.trace(within) / len(within) * np.eye(len(within))
    v = np.linalg.solve(shrunk, step)
    return v / np.linalg.norm(v)


@pytest.mark.parametrize("sample", [300, 60])
def test_the_shrinkage_is_for_all_tokens(sample: int) -> None:
    """However many tokens the sample has: scikit-learn's of all."""
    texts = steep() | {"ja": steep()["ja"][:10]}
    given = moments(texts, sample=sample, pairs_from=None)
    x, y = labelled(texts, 0)
    means = np.stack([x[y == lang].mean(0) for lang in range(4)])
    centred = x - means[y]
    within = centred.T @ centred / len(x)
    expected = LedoitWolf(assume_centered=True).fit(centred).shrinkage_
    unit = estimate.lda(given).between("en", "de").unit[0].double().numpy()
    # One number decides the direction, so the nearest shrinkage of a grid says which was taken.
    grid = expected * np.linspace(0.2, 8, 391)
    cosines = [unit @ solved(within, a, means[1] - means[0]) for a in grid]
    taken = grid[int(np.argmax(cosines))]
    assert taken == pytest.approx(expected, rel=0.03 if sample == 300 else 0.3)
    # What the sample alone would ask for is far from it.
    few = np.concatenate([centred[y == lang][:60] for lang in range(4)])
    if sample == 60:
        assert LedoitWolf(assume_centered=True).fit(few).shrinkage_ > 1.7 * expected


def test_the_shrinkage_against_one_language_is_scikit_learns_of_the_two() -> None:
    texts = steep()
    x, y = labelled({lang: texts[lang] for lang in ("en", "de")}, 0)
    means = np.stack([x[y == lang].mean(0) for lang in range(2)])
    centred = x - means[y]
    expected = LedoitWolf(assume_centered=True).fit(centred).shrinkage_
    unit = estimate.lda(moments(texts), contrast="source").between("en", "de").unit[0]
    within = centred.T @ centred / len(x)
    step = means[1] - means[0]
    theirs = solved(within, expected, step)
    assert unit.double().numpy() @ theirs > 1 - 1e-6
    assert solved(within, 7 * expected, step) @ theirs < 1 - 1e-4
