"""Erasers, conceptors' ellipsoids, the subspace that languages differ in, and dimensions of
their own."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from planting import LANGS, LAYERS, WIDTH, Texts, apart, moments, noisy, planted, two_languages
from safetensors.torch import load_file
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from torch import Tensor

import steerlab.estimate as estimate
import steerlab.estimate.controls as controls
from steerlab.core.corpus import Corpus
from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.edits import ablate, conceptor, erase, overwrite
from steerlab.engine.collect import text_means
from steerlab.estimate.pca import shared_and_own
from steerlab.models.model import Model


def changed(edit: object, h: Tensor) -> Tensor:
    """h [token width] after an edit of one layer."""
    [part] = edit.parts  # type: ignore[attr-defined]
    return h + part.change(h[None], part.tensors, None)[0]


def tokens(texts: Texts) -> tuple[Tensor, np.ndarray]:
    """(tokens [token width] of the first layer, language of each)."""
    found = [h[:, :, 0].flatten(0, 1) for h in texts.values()]
    return torch.cat(found), np.repeat(np.arange(len(found)), [len(h) for h in found])


def probed(h: Tensor, labels: np.ndarray) -> float:
    """How often a fresh linear probe names the language of the very tokens that it is trained
    on."""
    return float(LogisticRegression(max_iter=1000).fit(h.numpy(), labels).score(h.numpy(), labels))


# LEACE


@pytest.mark.parametrize("concept", ["all", "target"])
def test_after_leace_a_fresh_probe_is_at_chance_and_it_was_not_before(concept: str) -> None:
    texts = {lang: h[:, :, :1] for lang, h in planted()[0].items()}
    fitted = estimate.leace(moments(texts), concept=concept)
    h, labels = tokens(texts)
    step = fitted["es"].at(0)
    erased, removed = (
        changed(erase(step), h),
        changed(ablate(estimate.diffmean(moments(texts))["es"].at(0)), h),
    )
    asked = labels if concept == "all" else (labels == 2).astype(int)
    chance = float(np.bincount(asked).max() / len(asked))
    assert probed(h, asked) > chance + 0.15
    assert probed(erased, asked) < chance + 0.02
    assert concept == "target" or probed(removed, asked) > chance + 0.2, (
        "one direction is not the whole language"
    )
    assert probed(changed(erase(step, fraction=0.5), h), asked) > chance + 0.1
    if concept == "target":
        assert probed(erased, labels) > 0.5, "the other languages are still told apart"


def test_leace_on_sentences_as_a_model_reads_them(polyglot: Model, lines: Corpus) -> None:
    read = text_means(polyglot, lines.split("estimate"), layers=[5])
    texts = {iso: h[:, None] for iso, h in read.items()}
    fitted = estimate.leace(moments(texts, clouds=False, pairs_from=None), shrinkage=0.0)
    h, labels = tokens(texts)
    assert probed(h, labels) > 0.95
    assert probed(changed(erase(fitted["de"]), h), labels) < 1 / len(texts) + 0.05
    blind = controls.random(fitted, seed=0)
    assert probed(changed(erase(blind["de"]), h), labels) > 0.95, (
        "a projection of equal rank that knows nothing"
    )


def test_leace_keeps_the_mean_and_moves_less_than_removing_the_whole_subspace() -> None:
    texts = noisy(apart() * 2, torch.tensor([0.5] * 6 + [3.0] * 6))
    h, _ = tokens(texts)
    fitted = estimate.leace(moments(texts), shrinkage=0.0)
    erased = changed(erase(fitted["de"].at(0)), h)
    torch.testing.assert_close(erased.mean(0), h.mean(0), atol=1e-2, rtol=0)
    torch.testing.assert_close(
        changed(erase(fitted["de"].at(0)), erased), erased, atol=1e-3, rtol=0
    )
    # Least squares in the metric that whitens: no projection that erases as much moves less there.
    inverse = torch.linalg.inv(torch.linalg.cholesky(torch.cov(h.T))).T
    centred = h - h.mean(0)
    plain = h - centred @ fitted.basis[1, 0].T @ fitted.basis[1, 0]
    assert ((erased - h) @ inverse).square().mean() < ((plain - h) @ inverse).square().mean()


def test_leace_of_one_target_reads_along_lda_and_writes_along_diffmean() -> None:
    given = moments(two_languages(torch.tensor([4.0] * 4 + [1.0] * 4)))
    fitted = estimate.leace(given, concept="target", shrinkage=0.0)
    read, write = fitted.extra["read"][1, 0, 0], fitted.extra["write"][1, 0, 0]
    lda = estimate.lda(given, shrinkage=0.0).between("en", "de").unit[0]
    means = estimate.diffmean(given).between("en", "de").unit[0]
    assert float(torch.nn.functional.cosine_similarity(read, lda, 0).abs()) > 0.999
    assert float(torch.nn.functional.cosine_similarity(write, means, 0).abs()) > 0.999
    assert float(torch.nn.functional.cosine_similarity(lda, means, 0)) < 0.95
    assert float(read @ write) == pytest.approx(1, abs=1e-4)


def test_where_nothing_tells_languages_apart_there_is_nothing_to_erase() -> None:
    same = torch.zeros(4, 12)
    fitted = estimate.leace(moments(noisy(same, torch.ones(12), count=3000)), tolerance=0.1)
    assert not fitted.extra["read"].any()
    with pytest.raises(
        SteerlabError, match="nothing tells the languages apart: there is nothing to erase"
    ):
        erase(fitted["de"])


# The subspace in which languages differ


@pytest.mark.parametrize("rank", [3, 1])
def test_what_is_shared_is_orthogonal_to_what_is_not(rank: int) -> None:
    means = torch.randn(4, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 2
    shared, own = shared_and_own(means, rank)
    torch.testing.assert_close(own @ own.T, torch.eye(rank).double())
    assert (own @ shared).abs().max() < 1e-10
    rest = means - means @ own.T @ own
    if rank == 3:
        torch.testing.assert_close(rest, shared.expand(4, 9))  # nothing else is left of any
    else:
        assert (rest - shared).abs().max() > 0.1
    assert (own @ means.mean(0)).abs().max() > 1e-3, "the plain mean is not orthogonal"


def test_disentangling_reads_the_last_token_and_ablates_all_languages_alike() -> None:
    texts, _ = planted()
    fitted = estimate.disentangle(moments(texts))
    last = torch.stack([texts[lang][:, -1].mean(0) for lang in LANGS])
    left = [changed(ablate(fitted[lang].at(1)), last[i, :1])[0] for i, lang in enumerate(LANGS)]
    for one in left:
        torch.testing.assert_close(one, fitted.extra["shared"][0, 0], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(last[0, 0], last[1, 0], atol=0.5)
    other = estimate.disentangle(moments(texts), read="tokens")
    assert not torch.allclose(other.extra["shared"], fitted.extra["shared"], atol=0.05)
    for wrong, told in (
        ({"read": "first"}, "disentangle reads 'tokens', 'texts' or 'last', not 'first'"),
        ({"rank": 4}, "4 languages' means in width 24 have no subspace of rank 4"),
        ({"rank": 0}, "the rank is 0; give a number from 1 to 24"),
    ):
        with pytest.raises(SteerlabError, match=told):
            estimate.disentangle(moments(texts), **wrong)


# PCA of means and of clouds


def test_pca_of_means_is_scikit_learns_and_as_good_as_diffmean_at_full_rank() -> None:
    given = moments(planted()[0])
    fitted = estimate.pca(given, of="means", rank=2)
    theirs = PCA(2).fit(given.mean[:, 0].numpy()).components_
    ours = fitted.basis[0, 0].double().numpy()
    np.testing.assert_allclose(np.abs(ours @ theirs.T), np.eye(2), atol=1e-5)
    assert torch.equal(fitted.basis[0], fitted.basis[3])
    whole, means = estimate.pca(given, of="means", rank=3), estimate.diffmean(given)
    torch.testing.assert_close(
        whole.between("de", "ja").unit, means.between("de", "ja").unit, atol=1e-5, rtol=0
    )
    assert estimate.pca(given, of="means").estimator == "pca means"
    with pytest.raises(
        SteerlabError, match="4 languages' means span 3 axes, not 4; give fewer, or add languages"
    ):
        estimate.pca(given, of="means", rank=4)


def test_pca_of_a_cloud_is_scikit_learns_of_the_targets_own_tokens() -> None:
    texts = noisy(apart() * 4, torch.tensor([5.0, 3.0, 2.0] + [0.3] * 9))
    given = moments(texts)
    fitted = estimate.pca(given, of="cloud", rank=3)
    for lang, iso in enumerate(LANGS):
        theirs = PCA(3).fit(texts[iso].flatten(0, 2).double().numpy()).components_
        np.testing.assert_allclose(
            np.abs(fitted.basis[lang, 0].double().numpy() @ theirs.T), np.eye(3), atol=1e-2
        )
    assert fitted.source is None
    assert estimate.pca(given, of="cloud").basis.shape[2] == 12, "20 axes, or as many as there are"
    with pytest.raises(
        SteerlabError, match="pca is of 'pairs', 'means' or 'cloud', not of 'tokens'"
    ):
        estimate.pca(given, of="tokens")
    with pytest.raises(
        SteerlabError, match=r"these moments hold no clouds; collect\(\.\.\., also=\['clouds'\]\)"
    ):
        estimate.pca(moments(texts, clouds=False), of="cloud")
    few = moments({lang: h[:2] for lang, h in texts.items()}, pairs_from=None)
    with pytest.raises(
        SteerlabError, match="4 axes of a cloud need more tokens than en, de, es, ja has; read more"
    ):
        estimate.pca(few, of="cloud", rank=4)


# Ellipsoids


def test_an_ellipsoid_is_the_second_moment_and_its_conceptor_regresses_the_cloud_on_itself() -> (
    None
):
    """C minimises the mean ‖x - Cx‖² + ‖C‖² / aperture², which is what it is for."""
    texts = noisy(apart() * 3, torch.linspace(0.2, 3, 12))
    fitted = estimate.ellipsoid(moments(texts))
    x = texts["de"].flatten(0, 2).double()
    axes, spectrum = fitted.extra["axes"][1, 0].double(), fitted.extra["spectrum"][1, 0].double()
    torch.testing.assert_close((axes.T * spectrum) @ axes, x.T @ x / len(x), atol=1e-3, rtol=1e-3)
    aperture = 0.8
    kept = changed(
        conceptor(fitted["de"].at(0), aperture=aperture, beta=1.0), torch.eye(12)
    ).double()

    def loss(matrix: Tensor) -> float:
        return float((x - x @ matrix).square().sum(-1).mean() + matrix.square().sum() / aperture**2)

    best = loss(kept)
    for seed in range(5):
        other = torch.randn(12, 12, generator=torch.Generator().manual_seed(seed)).double() * 0.01
        assert loss(kept + other) > best
    few = estimate.ellipsoid(moments(texts), rank=3)
    assert few.extra["axes"].shape == (4, 1, 3, 12)
    assert torch.equal(few.extra["spectrum"], fitted.extra["spectrum"][:, :, :3])
    with pytest.raises(SteerlabError, match="the rank is 13; give a number from 1 to 12"):
        estimate.ellipsoid(moments(texts), rank=13)


# Dimensions


def test_the_monolingual_setting_sets_the_last_layer_against_a_lower_one_of_the_same_language() -> (
    None
):
    places = torch.zeros(4, 3, 12)
    places[:, 2, 5] = 4  # what all languages gain on the way up
    places[1, 2, 8] = -6
    generator = torch.Generator().manual_seed(0)
    noise = {lang: torch.randn(200, 2, 3, 12, generator=generator) * 0.3 for lang in LANGS}
    given = moments({lang: places[i] + noise[lang] for i, lang in enumerate(LANGS)})
    fitted = estimate.sparse(given, setting="monolingual", dims=2, anchor=0)
    assert fitted.extra["mask"][1, 0].nonzero()[:, 0].tolist() == [5, 8]
    assert fitted.estimator == "sparse monolingual"
    fitted.between("de", "es")  # no source of its own
    for one in (fitted, estimate.sparse(given, dims=2)):
        assert not (one.basis[:, :, 0] * (1 - one.extra["mask"])).any(), (
            "what `ablate` removes lies in them too"
        )
    parallel = estimate.sparse(given, dims=1)
    assert parallel.extra["mask"][1, 0].nonzero()[:, 0].tolist() == [8], (
        "what all gain is no difference from English"
    )
    assert torch.equal(parallel.extra["mask"][1, 0], parallel.extra["mask"][1, 2]), (
        "one for every layer"
    )
    tamed = estimate.sparse(given, setting="monolingual", dims=1, anchor=1, massive=[8])
    assert tamed.extra["mask"][1, 0].nonzero()[:, 0].tolist() == [5]


def test_overwriting_takes_every_text_to_the_targets_own_values() -> None:
    texts = {lang: h[:, :, :1] for lang, h in planted()[0].items()}
    fitted = estimate.sparse(moments(texts), dims=6)
    h, _ = tokens(texts)
    new = changed(overwrite(fitted.between("en", "ja").at(0)), h)
    torch.testing.assert_close(new.norm(dim=-1), h.norm(dim=-1), atol=1e-3, rtol=1e-3)
    mask = fitted.extra["mask"][3, 0].bool()
    one = torch.nn.functional.normalize(new[:, mask], dim=-1)
    torch.testing.assert_close(one, one[:1].expand_as(one), atol=1e-3, rtol=0)
    with pytest.raises(SteerlabError, match="there are no dimensions of 'en' to overwrite"):
        overwrite(replace(fitted, source=None).between("de", "en"))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (
            {"setting": "bilingual"},
            "sparse dimensions are of the setting 'parallel' or 'monolingual', not 'bilingual'",
        ),
        ({"dims": 0}, "0 dimensions cannot be kept of 24; give fewer, or more"),
        ({"dims": 24, "massive": [3]}, "24 dimensions cannot be kept of 23; give fewer"),
        ({"massive": [24]}, "there is no dimension 24; the width is 24"),
        ({"source": "fr"}, "the source 'fr' is none of en de es ja; take it from these"),
        (
            {"setting": "monolingual", "anchor": 4},
            "the anchor 4 is no layer below the last of 1, 4; collect more",
        ),
        (
            {"setting": "monolingual", "anchor": 0},
            "the anchor 0 is no layer below the last of 1, 4",
        ),
    ],
)
def test_sparse_settings_that_are_refused(settings: dict, told: str) -> None:
    with pytest.raises(SteerlabError, match=told):
        estimate.sparse(moments(planted()[0]), **settings)


# What travels


def test_what_only_some_operators_need_is_saved_cut_and_checked(tmp_path: Path) -> None:
    given = moments(planted()[0])
    for name in ("leace", "ellipsoid", "sparse", "disentangle"):
        fitted = getattr(estimate, name)(given)
        again = Directions.load(fitted.save(tmp_path / f"{name}.safetensors"))
        assert again.extra.keys() == fitted.extra.keys() != set()
        for key, value in fitted.extra.items():
            torch.testing.assert_close(again.extra[key], value, rtol=0, atol=0)
            assert torch.equal(fitted.at(4).extra[key], value[:, 1:])
            torch.testing.assert_close(
                fitted["ja"].at(4).extra[key][0], value[-1, 1], rtol=0, atol=0
            )
        assert again.digest == fitted.digest
        key = next(iter(fitted.extra))
        other = replace(fitted, extra={**fitted.extra, key: fitted.extra[key] * 2})
        assert other.digest != fitted.digest
        for wrong in (fitted.extra[key][:, :1], fitted.extra[key] * float("nan")):
            with pytest.raises(
                SteerlabError,
                match=f"extra '{key}' has shape .*, not .* or is not finite; fit again",
            ):
                replace(fitted, extra={key: wrong})
    plain = estimate.diffmean(given).save(tmp_path / "diffmean.safetensors")
    assert set(load_file(plain)) == {"vectors", "basis", "means"}
    assert Directions.load(plain).extra == {}
    assert (fitted.width, fitted.layers) == (WIDTH, LAYERS)
