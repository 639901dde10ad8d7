"""What each estimator computes, against scikit-learn and by hand."""

import numpy as np
import pytest
import torch
from planting import (
    LANGS,
    LAYERS,
    Texts,
    labelled,
    made_of,
    moments,
    pairs,
    planted,
    two_languages,
)
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

import steerlab.estimate as estimate
from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError

# diffmean


def test_diffmean_is_the_mean_of_tokens_or_of_last_tokens() -> None:
    texts, _ = planted()
    given = moments(texts, scatter=False, sample=0, pairs_from=None)
    for read, expected in (
        ("tokens", lambda h: h.mean((0, 1))),
        ("last", lambda h: h[:, -1].mean(0)),
    ):
        fitted = estimate.diffmean(given, read=read)
        torch.testing.assert_close(
            fitted.vectors, torch.stack([expected(texts[lang]) for lang in LANGS])
        )
    assert estimate.diffmean(given, read="last").estimator == "diffmean last"
    with pytest.raises(
        SteerlabError, match="diffmean reads 'tokens', 'texts' or 'last', not 'first'"
    ):
        estimate.diffmean(given, read="first")


def test_diffmean_against_the_rest_another_language_or_all_tokens() -> None:
    texts = {lang: h if lang != "ja" else h[:20] for lang, h in planted()[0].items()}
    given = moments(texts, pairs_from=None)
    means, count = given.mean.float(), given.count.float()
    every = (means * count[:, None, None]).sum(0) / count.sum()
    expected = {
        "source": lambda i: means[i] - means[0],
        "rest": lambda i: means[i] - means[[k for k in range(4) if k != i]].mean(0),
        "centre": lambda i: means[i] - every,
        "es": lambda i: means[i] - means[2],
        ("es", "ja"): lambda i: means[i] - means[[2, 3]].mean(0),
    }
    for contrast, formula in expected.items():
        fitted = estimate.diffmean(given, contrast=contrast, source="en")
        for place, target in ((1, "de"), (3, "ja")):
            if isinstance(contrast, tuple) and target in contrast:
                continue
            step = fitted.between("en", target)
            torch.testing.assert_close(
                step.unit, torch.nn.functional.normalize(formula(place), dim=-1)
            )
            torch.testing.assert_close(step.gap, (means[place] - means[0]).norm(dim=-1))
        with pytest.raises(SteerlabError, match="fitted from 'en' only; 'de' was asked for"):
            fitted.between("de", "ja")
    assert (
        estimate.diffmean(given, contrast="rest", read="last").estimator
        == "diffmean last against rest"
    )
    with pytest.raises(SteerlabError, match="the direction to 'es' is zero"):
        estimate.diffmean(given, contrast="es").between("en", "es")


def test_clas_benchs_negatives_give_way_to_french() -> None:
    langs = ("en", "ru", "de", "zh", "fr", "es")
    random = torch.Generator().manual_seed(0)
    texts = {lang: torch.randn(5, 3, 1, 8, generator=random) + i for i, lang in enumerate(langs)}
    given = moments(texts)
    means, fitted = given.mean.float()[:, 0], estimate.diffmean(given, contrast="clas")
    for target, others in (("es", (1, 2, 3)), ("de", (1, 4, 3)), ("ru", (4, 2, 3))):
        expected = means[langs.index(target)] - means[list(others)].mean(0)
        unit = fitted.between("en", target).unit[0]
        torch.testing.assert_close(unit, torch.nn.functional.normalize(expected, dim=0))
    few = moments(planted()[0])
    for estimator in (estimate.diffmean, estimate.lda, estimate.probe):
        with pytest.raises(
            SteerlabError,
            match="the contrast 'clas' asks for ru (de|fr) zh; there are en de es ja: give",
        ):
            estimator(few, contrast="clas")
        with pytest.raises(SteerlabError, match="unknown language code 'xx'"):
            estimator(few, contrast="xx")
        with pytest.raises(
            SteerlabError, match="the source 'fr' is none of en de es ja; take it from these"
        ):
            estimator(few, contrast="rest", source="fr")
        with pytest.raises(SteerlabError, match=r"the contrast \(\) asks for nothing"):
            estimator(few, contrast=())


# lda


@pytest.mark.parametrize("shrinkage", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("offset", [0.0, 300.0])
def test_lda_is_that_of_scikit_learn(shrinkage: float, offset: float) -> None:
    texts = {lang: h + offset for lang, h in planted()[0].items()}
    texts["ja"] = texts["ja"][:20]  # unequal priors
    fitted = estimate.lda(moments(texts, pairs_from=None), shrinkage=shrinkage)
    for place in range(len(LAYERS)):
        x, y = labelled(texts, place)
        theirs = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage).fit(x, y).coef_
        for target in range(1, len(LANGS)):
            ours = (fitted.vectors[target] - fitted.vectors[0])[place].double().numpy()
            expected = theirs[target] - theirs[0]
            assert np.linalg.norm(ours - expected) < 2e-3 * np.linalg.norm(expected)


def test_lda_shrinks_as_ledoit_and_wolf_say() -> None:
    from sklearn.covariance import ledoit_wolf_shrinkage

    texts, _ = planted()
    given = moments(texts)
    x, y = labelled(texts, 0)
    centred = x - np.stack([x[y == lang].mean(0) for lang in range(len(LANGS))])[y]
    a = float(ledoit_wolf_shrinkage(centred, assume_centered=True))
    assert 0 < a < 1
    automatic, given_a = estimate.lda(given.at(1)), estimate.lda(given.at(1), shrinkage=a)
    torch.testing.assert_close(
        automatic.between("en", "ja").unit, given_a.between("en", "ja").unit, atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("shrinkage", [-0.1, 1.5, float("nan")])
def test_a_shrinkage_that_is_no_share_is_refused(shrinkage: float) -> None:
    with pytest.raises(
        SteerlabError, match=f"the shrinkage is {shrinkage}; give a share from 0 to 1"
    ):
        estimate.lda(moments(planted()[0]), shrinkage=shrinkage)


def accuracy(fitted: Directions, texts: Texts) -> float:
    """How often a token lies on its own side of the middle of the two means, along the
    direction."""
    step = fitted.between("en", "de")
    middle = fitted.means.mean(0)
    right = [
        ((h - middle) * step.unit).sum(-1) * sign > 0
        for h, sign in zip(texts.values(), (-1, 1), strict=True)
    ]
    return float(torch.cat(right).float().mean())


def test_lda_beats_diffmean_where_noise_is_anisotropic_and_only_there() -> None:
    loud = torch.tensor([8.0] * 4 + [1.0] * 4)
    scores = {}
    for kind, spread in (("loud", loud), ("even", torch.full((8,), 2.0))):
        given, unseen = moments(two_languages(spread)), two_languages(spread, seed=1)
        scores[kind] = [
            accuracy(made, unseen) for made in (estimate.lda(given), estimate.diffmean(given))
        ]
    assert scores["loud"][0] > scores["loud"][1] + 0.1
    assert scores["even"][0] == pytest.approx(scores["even"][1], abs=0.03)


@pytest.mark.parametrize("contrast", ["source", ("es", "ja")])
def test_lda_against_some_languages_is_scikit_learns_of_the_two_classes(contrast: object) -> None:
    texts, _ = planted()
    fitted = estimate.lda(moments(texts), contrast=contrast, shrinkage=0.1, ridge=0.0)  # type: ignore[arg-type]
    others = ["en"] if contrast == "source" else ["es", "ja"]
    x = torch.cat([texts[lang][:, :, 0].flatten(0, 1) for lang in ("de", *others)]).double().numpy()
    y = np.repeat([1, 0], [300, 300 * len(others)])
    theirs = (
        LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.1, priors=[0.5, 0.5])
        .fit(x, y)
        .coef_[0]
    )
    unit = fitted.between("en", "de").unit[0].double().numpy()
    np.testing.assert_allclose(unit, theirs / np.linalg.norm(theirs), atol=2e-3)
    everyone = (
        estimate.lda(moments(texts), shrinkage=0.1).between("en", "de").unit[0].double().numpy()
    )
    assert np.abs(everyone - unit).max() > 0.01
    ridged = estimate.lda(moments(texts), shrinkage=0, ridge=1e6).between("en", "de").unit
    torch.testing.assert_close(
        ridged, estimate.diffmean(moments(texts)).between("en", "de").unit, atol=1e-4, rtol=0
    )
    with pytest.raises(SteerlabError, match="the ridge is -1; give a number from 0 up"):
        estimate.lda(moments(texts), ridge=-1)
    with pytest.raises(SteerlabError, match="these moments hold no clouds"):
        estimate.lda(moments(texts, clouds=False), contrast="source", shrinkage=0)


# probe


def test_a_probe_separates_and_shuffled_labels_do_not() -> None:
    spread = torch.full((8,), 0.8)
    texts, unseen = two_languages(spread), two_languages(spread, seed=1)
    mixed = torch.cat([*texts.values()])[
        torch.randperm(160, generator=torch.Generator().manual_seed(2))
    ]
    assert accuracy(estimate.probe(moments(texts)), unseen) > 0.9
    assert accuracy(estimate.probe(moments({"en": mixed[:80], "de": mixed[80:]})), unseen) < 0.75


def test_a_probe_of_two_languages_points_both_ways() -> None:
    fitted = estimate.probe(moments(two_languages(torch.ones(8)), pairs_from=None))
    torch.testing.assert_close(fitted.vectors[0], -fitted.vectors[1])


def test_a_probe_against_some_languages_is_scikit_learns_of_the_two_classes() -> None:
    from sklearn.linear_model import LogisticRegression

    texts, _ = planted()
    fitted = estimate.probe(moments(texts), contrast=["es", "ja"])
    x = (
        torch.cat([texts[lang][:, :, 0].flatten(0, 1) for lang in ("de", "es", "ja")])
        .double()
        .numpy()
    )
    centre, scale = x.mean(0), x.std(0)
    model = LogisticRegression(max_iter=1000, class_weight="balanced")
    theirs = model.fit((x - centre) / scale, np.repeat([1, 0], [300, 600])).coef_[0] / scale
    unit = fitted.between("en", "de").unit[0].double().numpy()
    assert unit @ theirs / np.linalg.norm(theirs) > 0.999
    everyone = estimate.probe(moments(texts)).between("en", "de").unit[0].double().numpy()
    assert everyone @ unit < 0.98


def test_the_multinomial_probe_is_scikit_learns() -> None:
    from sklearn.linear_model import LogisticRegression

    texts, _ = planted()
    x, y = labelled(texts, 0)
    scale = x.std(0)
    theirs = LogisticRegression(max_iter=1000).fit((x - x.mean(0)) / scale, y).coef_ / scale
    unit = estimate.probe(moments(texts)).between("de", "ja").unit[0].double().numpy()
    expected = theirs[3] - theirs[1]
    assert unit @ expected / np.linalg.norm(expected) > 0.999


# pca and eigengap: texts of one position, so that a text is its mean, and English at the origin


def test_pca_is_not_centred() -> None:
    generator = torch.Generator().manual_seed(0)
    differences = torch.randn(200, 12, generator=generator) * torch.tensor([0.1, 3.0] + [0.1] * 10)
    differences[:, 0] += 5
    unit = estimate.pca(pairs(differences)).between("en", "de").unit[0]
    assert unit[0] > 0.99
    centred = torch.linalg.svd(differences - differences.mean(0))[2][0]
    assert abs(centred[1]) > 0.99, "centring would find the axis of the noise"


def test_pca_takes_its_sign_from_the_mean() -> None:
    differences, _ = made_of([9, 1, 1], mean=1.0)
    there, back = (
        estimate.pca(pairs(sign * differences)).between("en", "de").unit for sign in (1, -1)
    )
    torch.testing.assert_close(there, -back)
    assert (there[0] @ differences.mean(0).float()) > 0


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_eigengap_finds_a_planted_rank(rank: int) -> None:
    differences, right = made_of([*[6.0, 5.0, 4.5][:rank], 0.3, 0.28, 0.26, 0.25, 0.24])
    fitted = estimate.eigengap(pairs(differences))
    basis = fitted.basis[1, 0]
    assert (basis.norm(dim=-1) > 0.5).sum() == len(basis) == rank
    torch.testing.assert_close(basis.T @ basis, right[:rank].T @ right[:rank], atol=1e-4, rtol=0)
    mean = differences.mean(0).float()
    torch.testing.assert_close(
        fitted.vectors[1, 0], right[:rank].T @ (right[:rank] @ mean), atol=1e-4, rtol=0
    )


def test_the_rank_is_bounded_by_the_effective_rank() -> None:
    """The largest gap is after the fifth value, but the first holds nearly everything."""
    values = [10.0, 1.0, 1.0, 1.0, 1.0, 0.05, 0.045]
    share = np.square(values) / np.square(values).sum()
    effective = int(np.ceil(np.exp(-(share * np.log(share)).sum())))
    assert effective == 2 < int(np.argmax(np.divide(values[:-1], values[1:]))) + 1 == 5
    assert estimate.eigengap(pairs(made_of(values)[0])).basis.shape[2] == effective


def test_the_gap_is_not_looked_for_among_zeros_nor_beyond_the_largest() -> None:
    exact = estimate.eigengap(pairs(made_of([5.0, 4.0, 1.0, 0.9])[0]))
    assert exact.basis.shape[2] == 2, "not 4, where the spectrum ends"
    late = [5.0, 4.0, 3.5, 3.3, 3.2, 3.1, 0.1]
    assert estimate.eigengap(pairs(made_of(late)[0])).basis.shape[2] == 6
    assert estimate.eigengap(pairs(made_of(late)[0]), largest=3).basis.shape[2] == 1
