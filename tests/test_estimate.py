"""Every estimator finds what was planted, and each one what only it is for."""

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from torch import Tensor

import steerlab.estimate as estimate
from steerlab.directions import Directions
from steerlab.stats import Moments
from steerlab.terms import SteerlabError, hook_name

LANGS, LAYERS, WIDTH = ("en", "de", "es", "ja"), (1, 4), 24
Texts = Mapping[str, Tensor]  # h [row pos layer width] by language
every_estimator = pytest.mark.parametrize("name", estimate.__all__)


def moments(texts: Texts, *, scatter: bool = True, sample: int = 300, pairs_from: str | None = "en") -> Moments:
    width, layers = next(iter(texts.values())).shape[-1], next(iter(texts.values())).shape[-2]
    names = tuple(range(layers)) if layers != len(LAYERS) else LAYERS
    about = {"model": {"fingerprint": "abc"}}
    made = Moments(tuple(texts), names, width, scatter=scatter, sample=sample, pairs_from=pairs_from, provenance=about)
    means = {}
    for lang, h in texts.items():
        activations = {hook_name("resid_post", layer): h[:, :, place] for place, layer in enumerate(names)}
        means[lang] = made.update(lang, activations, torch.ones(h.shape[:2], dtype=torch.bool))
    if made.pairs is not None:
        made.pairs.update(means)
    return made


def planted(seed: int = 0) -> tuple[dict[str, Tensor], Tensor]:
    """Texts, each its sentence's vector, its language's and noise; and the languages' vectors [lang layer width]."""
    generator = torch.Generator().manual_seed(seed)
    randn = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    places = torch.linalg.qr(randn(len(LAYERS), WIDTH, len(LANGS)))[0].mT.transpose(0, 1) * 3
    sentences, shared = randn(60, 1, len(LAYERS), WIDTH), randn(len(LAYERS), WIDTH) * 2
    noise = {lang: randn(60, 5, len(LAYERS), WIDTH) for lang in LANGS}
    return {lang: shared + sentences + places[i] + noise[lang] for i, lang in enumerate(LANGS)}, places


def shuffled(texts: Texts, seed: int) -> dict[str, Tensor]:
    """The same texts, the languages of each sentence dealt anew."""
    every = torch.stack([texts[lang] for lang in LANGS])
    order = torch.rand(every.shape[:2], generator=torch.Generator().manual_seed(seed)).argsort(0)
    dealt = every.gather(0, order[(...,) + (None,) * 3].expand_as(every))
    return dict(zip(LANGS, dealt, strict=True))


def fit(name: str, texts: Texts) -> Directions:
    fitted = getattr(estimate, name)(moments(texts))
    assert isinstance(fitted, Directions)
    return fitted


# The contract of all


@every_estimator
def test_shapes_units_and_provenance(name: str) -> None:
    texts, _ = planted()
    given = moments(texts)
    fitted = getattr(estimate, name)(given)
    assert (fitted.langs, fitted.layers, fitted.site, fitted.estimator) == (LANGS, LAYERS, "resid_post", name)
    assert fitted.provenance["model"] == {"fingerprint": "abc"}
    assert isinstance(fitted.provenance["settings"], dict)
    assert torch.equal(fitted.means, given.mean.float())
    for target in LANGS[1:]:
        step = fitted.between("en", target)
        torch.testing.assert_close(step.unit.norm(dim=-1), torch.ones(2))
        torch.testing.assert_close(step.gap, (given.mean[LANGS.index(target)] - given.mean[0]).norm(dim=-1).float())
    gram = torch.einsum("klrw,klsw->klrs", fitted.basis, fitted.basis)
    used = gram.diagonal(dim1=-2, dim2=-1).round()
    torch.testing.assert_close(gram, torch.diag_embed(used), atol=1e-5, rtol=0)
    assert set(used.flatten().tolist()) <= {0.0, 1.0}


@every_estimator
def test_the_sign_points_at_the_target(name: str) -> None:
    texts, _ = planted()
    fitted = fit(name, texts)
    for target in LANGS[1:]:
        step = fitted.between("en", target)
        toward = fitted.means[LANGS.index(target)] - fitted.means[0]
        assert ((step.unit * toward).sum(-1) > 0.5 * toward.norm(dim=-1)).all()


@every_estimator
def test_a_planted_direction_is_found_and_not_with_shuffled_labels(name: str) -> None:
    texts, places = planted()

    def agreement(fitted: Directions) -> float:
        units = torch.stack([fitted.between("en", target).unit for target in LANGS[1:]])
        truth = torch.nn.functional.normalize(places[1:] - places[0], dim=-1)
        return float((units * truth).sum(-1).abs().mean())

    by_chance = [agreement(fit(name, shuffled(texts, seed))) for seed in range(5)]
    assert agreement(fit(name, texts)) > max(0.9, sum(by_chance) / 5 + 0.2)


@every_estimator
def test_a_fit_says_whether_it_is_for_one_source(name: str) -> None:
    texts, _ = planted()
    fitted = fit(name, texts)
    if name in ("pca", "eigengap"):
        assert fitted.source == "en"
        assert not fitted.basis[0].any(), "the source has no difference from itself"
        with pytest.raises(SteerlabError, match="fitted on pairs from 'en' only; 'de' was asked for"):
            fitted.between("de", "es")
    else:
        assert fitted.source is None
        fitted.between("de", "es")


@pytest.mark.parametrize(
    ("name", "parts", "missing"),
    [
        ("lda", {"scatter": False}, "scatter"),
        ("lda", {"sample": 0}, "sample"),
        ("probe", {"sample": 0}, "sample"),
        ("pca", {"pairs_from": None}, "pairs"),
        ("eigengap", {"pairs_from": None}, "pairs"),
    ],
)
def test_missing_parts_say_how_to_collect_them(name: str, parts: dict, missing: str) -> None:
    given = moments(planted()[0], **parts)
    with pytest.raises(SteerlabError, match=rf"hold no {missing}; collect\(\.\.\., also=\['{missing}'\]\) gathers it"):
        getattr(estimate, name)(given)


@every_estimator
def test_a_language_that_was_never_read_is_named(name: str) -> None:
    texts, _ = planted()
    given = Moments(LANGS, (0,), WIDTH, scatter=True, sample=50, pairs_from="en")
    for lang in ("en", "de"):
        h = texts[lang][:, :, 0]
        given.update(lang, {hook_name("resid_post", 0): h}, torch.ones(h.shape[:2], dtype=torch.bool))
    with pytest.raises(SteerlabError, match=r"hold no text of es, ja|the pairs hold nothing of de, es, ja"):
        getattr(estimate, name)(given)


# diffmean


def test_diffmean_is_the_mean_of_tokens_or_of_last_tokens() -> None:
    texts, _ = planted()
    given = moments(texts, scatter=False, sample=0, pairs_from=None)
    for read, expected in (("tokens", lambda h: h.mean((0, 1))), ("last", lambda h: h[:, -1].mean(0))):
        fitted = estimate.diffmean(given, read=read)
        torch.testing.assert_close(fitted.vectors, torch.stack([expected(texts[lang]) for lang in LANGS]))
    assert estimate.diffmean(given, read="last").estimator == "diffmean last"
    with pytest.raises(SteerlabError, match="diffmean reads 'tokens' or 'last', not 'first'"):
        estimate.diffmean(given, read="first")


# lda


def labelled(texts: Texts, place: int) -> tuple[np.ndarray, np.ndarray]:
    x = [h[:, :, place].flatten(0, 1).double().numpy() for h in texts.values()]
    return np.concatenate(x), np.repeat(np.arange(len(x)), [len(part) for part in x])


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
    torch.testing.assert_close(automatic.between("en", "ja").unit, given_a.between("en", "ja").unit, atol=1e-4, rtol=0)


@pytest.mark.parametrize("shrinkage", [-0.1, 1.5, float("nan")])
def test_a_shrinkage_that_is_no_share_is_refused(shrinkage: float) -> None:
    with pytest.raises(SteerlabError, match=f"the shrinkage is {shrinkage}; give a share from 0 to 1"):
        estimate.lda(moments(planted()[0]), shrinkage=shrinkage)


def two_languages(spread: Tensor, seed: int = 0) -> dict[str, Tensor]:
    """Tokens about two means one apart on every axis, with this standard deviation on each axis."""
    generator = torch.Generator().manual_seed(seed)
    noise = {lang: torch.randn(80, 5, 1, len(spread), generator=generator) * spread for lang in ("en", "de")}
    return {"en": noise["en"], "de": noise["de"] + 1}


def accuracy(fitted: Directions, texts: Texts) -> float:
    """How often a token lies on its own side of the middle of the two means, along the direction."""
    step = fitted.between("en", "de")
    middle = fitted.means.mean(0)
    right = [((h - middle) * step.unit).sum(-1) * sign > 0 for h, sign in zip(texts.values(), (-1, 1), strict=True)]
    return float(torch.cat(right).float().mean())


def test_lda_beats_diffmean_where_noise_is_anisotropic_and_only_there() -> None:
    loud = torch.tensor([8.0] * 4 + [1.0] * 4)
    scores = {}
    for kind, spread in (("loud", loud), ("even", torch.full((8,), 2.0))):
        given, unseen = moments(two_languages(spread)), two_languages(spread, seed=1)
        scores[kind] = [accuracy(made, unseen) for made in (estimate.lda(given), estimate.diffmean(given))]
    assert scores["loud"][0] > scores["loud"][1] + 0.1
    assert scores["even"][0] == pytest.approx(scores["even"][1], abs=0.03)


# probe


def test_a_probe_separates_and_shuffled_labels_do_not() -> None:
    spread = torch.full((8,), 0.8)
    texts, unseen = two_languages(spread), two_languages(spread, seed=1)
    mixed = torch.cat([*texts.values()])[torch.randperm(160, generator=torch.Generator().manual_seed(2))]
    assert accuracy(estimate.probe(moments(texts)), unseen) > 0.9
    assert accuracy(estimate.probe(moments({"en": mixed[:80], "de": mixed[80:]})), unseen) < 0.75


def test_a_probe_of_two_languages_points_both_ways() -> None:
    fitted = estimate.probe(moments(two_languages(torch.ones(8)), pairs_from=None))
    torch.testing.assert_close(fitted.vectors[0], -fitted.vectors[1])


# pca and eigengap: texts of one position, so that a text is its mean, and English at the origin


def pairs(differences: Tensor) -> Moments:
    h = differences[:, None, None].float()
    return moments({"en": h * 0, "de": h}, scatter=False, sample=0)


def made_of(values: list[float], *, count: int = 40, width: int = 12, mean: float = 0.2) -> tuple[Tensor, Tensor]:
    """(differences with just these singular values, their right singular vectors)."""
    generator = torch.Generator().manual_seed(0)
    left = torch.linalg.qr(torch.randn(count, len(values), generator=generator, dtype=torch.float64) + mean)[0]
    right = torch.linalg.qr(torch.randn(width, len(values), generator=generator, dtype=torch.float64))[0].T
    return (left * torch.tensor(values, dtype=torch.float64)) @ right, right.float()


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
    there, back = (estimate.pca(pairs(sign * differences)).between("en", "de").unit for sign in (1, -1))
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
    torch.testing.assert_close(fitted.vectors[1, 0], right[:rank].T @ (right[:rank] @ mean), atol=1e-4, rtol=0)


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
