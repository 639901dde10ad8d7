"""The contract of all estimators: every one finds what was planted, and what only it is for."""

import pytest
import torch
from planting import (
    LANGS,
    LAYERS,
    WIDTH,
    Texts,
    add_texts,
    apart,
    made_of,
    moments,
    noisy,
    pairs,
    planted,
    shuffled,
)
from torch import Tensor

import steerlab.estimate as estimate
from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.core.moments import Moments
from steerlab.core.sites import hook_name

FROM_ONE_SOURCE = [name for name in estimate.__all__ if estimate.variant(name).paired]
every_estimator = pytest.mark.parametrize("name", estimate.__all__)


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
    assert (fitted.langs, fitted.layers, fitted.site, fitted.estimator) == (
        LANGS,
        LAYERS,
        "resid_post",
        name,
    )
    assert fitted.provenance["model"] == {"fingerprint": "abc"}
    assert isinstance(fitted.provenance["settings"], dict)
    assert torch.equal(fitted.means, given.mean.float())
    for target in LANGS[1:]:
        step = fitted.between("en", target)
        torch.testing.assert_close(step.unit.norm(dim=-1), torch.ones(2))
        torch.testing.assert_close(
            step.gap, (given.mean[LANGS.index(target)] - given.mean[0]).norm(dim=-1).float()
        )
    gram = torch.einsum("klrw,klsw->klrs", fitted.basis, fitted.basis)
    used = gram.diagonal(dim1=-2, dim2=-1).round()
    torch.testing.assert_close(gram, torch.diag_embed(used), atol=1e-5, rtol=0)
    assert set(used.flatten().tolist()) <= {0.0, 1.0}


@every_estimator
def test_the_sign_points_at_the_target(name: str) -> None:
    """And well, but for what keeps a few dimensions of many."""
    texts, _ = planted()
    fitted = fit(name, texts)
    for target in LANGS[1:]:
        step = fitted.between("en", target)
        toward = fitted.means[LANGS.index(target)] - fitted.means[0]
        assert (
            (step.unit * toward).sum(-1) > (0.2 if name == "sparse" else 0.5) * toward.norm(dim=-1)
        ).all()


def test_every_estimator_says_what_it_estimates_and_needs() -> None:
    assert set(estimate.ESTIMATES) == set(estimate.__all__) >= set(estimate.NEEDS)
    assert set(PLANTS) == set(estimate.ESTIMATES.values())
    for name in estimate.__all__:
        needs = estimate.NEEDS.get(name, ())
        size, source = 300 if "sample" in needs else 0, "en" if "pairs" in needs else None
        texts, wide = planted()[0], {"scatter": "scatter" in needs, "clouds": "clouds" in needs}
        getattr(estimate, name)(moments(texts, sample=size, pairs_from=source, **wide))


@every_estimator
def test_opposite_ways_are_opposite_or_refused(name: str) -> None:
    texts, _ = planted()
    fitted = fit(name, texts)
    if name in FROM_ONE_SOURCE:
        assert fitted.source == "en"
        assert not fitted.basis[0].any(), "the source has no difference from itself"
        for target in ("es", "en"):
            with pytest.raises(
                SteerlabError,
                match="fitted from 'en' only; 'de' was asked for as the source: fit again",
            ):
                fitted.between("de", target)
    else:
        assert fitted.source is None
        torch.testing.assert_close(
            fitted.between("de", "es").unit, -fitted.between("es", "de").unit
        )


@every_estimator
def test_batches_shards_and_padding_do_not_matter(name: str) -> None:
    texts, _ = planted()
    whole = fit(name, texts)
    shards = []
    for start, stop, padding in ((0, 20, 0), (20, 60, 3)):
        made = Moments(LANGS, LAYERS, WIDTH, scatter=True, clouds=True, sample=300, pairs_from="en")
        for first in range(start, stop, 7):
            add_texts(
                made,
                {lang: h[first : min(first + 7, stop)] for lang, h in texts.items()},
                padding=padding,
            )
        shards.append(made)
    merged = getattr(estimate, name)(shards[0].merge(shards[1]))
    tolerance = (
        0.005 if name == "probe" else 1e-3
    )  # where the optimiser stops depends on the order of the tokens
    for target in LANGS[1:]:
        one, other = whole.between("en", target), merged.between("en", target)
        torch.testing.assert_close(one.unit, other.unit, atol=tolerance, rtol=0)
        torch.testing.assert_close(one.gap, other.gap, atol=1e-4, rtol=1e-4)
        gram = (
            one.basis.mT @ one.basis,
            other.basis.mT @ other.basis,
        )  # the subspace: axes have no sign
        torch.testing.assert_close(*gram, atol=2 * tolerance, rtol=0)
    assert whole.extra.keys() == merged.extra.keys()
    for key in ("mask", "values", "spectrum", "centre", "shared"):
        if key in whole.extra:
            torch.testing.assert_close(whole.extra[key], merged.extra[key], atol=1e-3, rtol=1e-3)


def unlike(texts: Texts, fitted: Directions) -> float:
    """How surely a token of a target lies further along its direction than one of English: 0.5
    is chance."""
    found = []
    for target in LANGS[1:]:
        unit = fitted.between("en", target).unit
        here, there = ((texts[lang] * unit).sum(-1).flatten(0, 1) for lang in (target, "en"))
        found.append(float((here[:, None] > there[None]).float().mean()))
    return sum(found) / len(found)


@every_estimator
def test_unseen_texts_are_told_apart_and_not_with_dealt_labels(name: str) -> None:
    texts, unseen = planted(0)[0], planted(0, noise_seed=5)[0]
    assert unlike(unseen, fit(name, texts)) > 0.8
    by_chance = [unlike(unseen, fit(name, shuffled(texts, seed))) for seed in range(6)]
    assert sum(by_chance) / 6 == pytest.approx(0.5, abs=0.15)


# What each one estimates, planted


LOUD = torch.tensor(
    [0.5] * 9 + [8.0] * 3
)  # a nuisance many times larger than the shift, on axes of its own


def quiet(places: Tensor) -> Tensor:
    """The same places with nothing on the loud axes, so that the nuisance is independent of the
    shift."""
    return torch.nn.functional.normalize(places * (LOUD < 1), dim=1) * 2**0.5


def cosine_to(fitted: Directions, truth: Tensor) -> float:
    units = torch.stack([fitted.between("en", target).unit[0] for target in LANGS[1:]])
    return float(torch.nn.functional.cosine_similarity(units, truth, dim=-1).min())


def plant_mean_difference(name: str) -> None:
    places = quiet(apart())
    fitted = fit(name, noisy(places, LOUD, count=4000))
    assert cosine_to(fitted, places[1:] - places[0]) > 0.95
    nothing = fit(name, noisy(places * 0, LOUD, count=4000))
    assert cosine_to(nothing, places[1:] - places[0]) < 0.5


def plant_discriminant(name: str) -> None:
    """The direction in which noise is least in the way: W⁻¹ times the shift, and not the shift."""
    places, spread = apart(), torch.tensor([0.7] * 6 + [2.0] * 6)
    fitted = fit(name, noisy(places, spread, count=1500))
    step = places[1:] - places[0]
    assert cosine_to(fitted, step / spread.square()) > 0.95 > cosine_to(fitted, step) + 0.1


def plant_axis(name: str) -> None:
    """Beside a nuisance of sentences that pairs take away."""
    axes = torch.linalg.qr(torch.randn(12, len(LANGS), generator=torch.Generator().manual_seed(2)))[
        0
    ].T
    generator = torch.Generator().manual_seed(3)
    size = 1 + torch.randn(
        200, len(LANGS), 1, 1, generator=generator
    )  # of each pair its own: not a mere shift
    texts = noisy(torch.zeros(len(LANGS), 12), LOUD * 0 + 0.2, count=200)
    shared = torch.randn(200, 1, 1, 12, generator=generator) * 10
    moved = {
        lang: h + shared + (size[:, i] * axes[i])[:, None] * (i > 0)
        for i, (lang, h) in enumerate(texts.items())
    }
    assert cosine_to(fit(name, moved), axes[1:]) > 0.95


def plant_subspace_of_pairs(name: str) -> None:
    for rank in (1, 2, 3):
        differences, right = made_of([*[6.0, 5.0, 4.5][:rank], 0.3, 0.28, 0.26, 0.25, 0.24])
        found = getattr(estimate, name)(pairs(differences)).basis[1, 0]
        torch.testing.assert_close(
            found.T @ found, right[:rank].T @ right[:rank], atol=1e-4, rtol=0
        )


def plant_subspace_of_means(name: str) -> None:
    """And the vector that all share, orthogonal to it, under a nuisance that is louder than
    both."""
    axes = torch.linalg.qr(torch.randn(9, 4, generator=torch.Generator().manual_seed(4)))[0].T
    inside = torch.cat([torch.eye(3), -torch.ones(1, 3)]) * 3
    places = torch.nn.functional.pad(inside @ axes[:3] + 5 * axes[3], (0, 3))
    fitted = fit(name, noisy(places, LOUD, count=20_000))
    basis, own = fitted.basis[2, 0], torch.nn.functional.pad(axes[:3], (0, 3))
    assert float((basis @ own.T).square().sum()) / 3 > 0.95
    assert torch.equal(fitted.basis[0], fitted.basis[3])
    shared = fitted.extra["shared"][0, 0]
    assert (
        float(
            torch.nn.functional.cosine_similarity(
                shared, torch.nn.functional.pad(axes[3], (0, 3)), 0
            )
        )
        > 0.95
    )
    assert (basis @ shared).abs().max() < 1e-4 * shared.norm()


def plant_dimensions(name: str) -> None:
    places = torch.zeros(len(LANGS), 12)
    for lang, dims in enumerate(([], [0, 3], [1, 8], [2, 4])):
        places[lang, dims] = torch.tensor([3.0, -3.0])[: len(dims)]
    fitted = estimate.sparse(moments(noisy(places, LOUD * 0 + 0.5, count=300)), dims=2)
    assert [row.nonzero()[:, 0].tolist() for row in fitted.extra["mask"][:, 0]] == [
        [],
        [0, 3],
        [1, 8],
        [2, 4],
    ]
    torch.testing.assert_close(fitted.extra["values"][:, 0], fitted.means[:, 0], atol=1e-4, rtol=0)
    assert cosine_to(fitted, places[1:]) > 0.95


PLANTS = {
    "mean difference": plant_mean_difference,
    "discriminant": plant_discriminant,
    "axis of the paired differences": plant_axis,
    "subspace of the paired differences": plant_subspace_of_pairs,
    "subspace of the language means": plant_subspace_of_means,
    "dimensions of the mean difference": plant_dimensions,
}


@every_estimator
def test_what_was_planted_is_found(name: str) -> None:
    PLANTS[estimate.ESTIMATES[name]](name)


# What is refused


@pytest.mark.parametrize(
    ("name", "parts", "missing"),
    [
        ("lda", {"scatter": False}, "scatter"),
        ("lda", {"sample": 0}, "sample"),
        ("probe", {"sample": 0}, "sample"),
        ("pca", {"pairs_from": None}, "pairs"),
        ("eigengap", {"pairs_from": None}, "pairs"),
        ("ellipsoid", {"clouds": False}, "clouds"),
        ("leace", {"scatter": False}, "scatter"),
    ],
)
def test_missing_parts_say_how_to_collect_them(name: str, parts: dict, missing: str) -> None:
    given = moments(planted()[0], **parts)
    with pytest.raises(
        SteerlabError,
        match=rf"hold no {missing}; collect\(\.\.\., also=\['{missing}'\]\) gathers it",
    ):
        getattr(estimate, name)(given)


@every_estimator
def test_a_language_that_was_never_read_is_named(name: str) -> None:
    texts, _ = planted()
    given = Moments(LANGS, (0, 1), WIDTH, scatter=True, clouds=True, sample=50, pairs_from="en")
    for lang in ("en", "de"):
        h = texts[lang]
        activations = {hook_name("resid_post", layer): h[:, :, layer] for layer in (0, 1)}
        given.update(lang, activations, torch.ones(h.shape[:2], dtype=torch.bool))
    with pytest.raises(
        SteerlabError, match=r"hold no text of es, ja|the pairs hold nothing of de, es, ja"
    ):
        getattr(estimate, name)(given)


@every_estimator
def test_one_language_has_no_direction(name: str) -> None:
    texts = {"en": planted()[0]["en"]}
    with pytest.raises(
        SteerlabError, match="these moments are of en alone; a direction needs two languages"
    ):
        getattr(estimate, name)(moments(texts))


def test_a_rank_needs_as_many_pairs() -> None:
    given = pairs(made_of([3.0, 2.0, 1.0], count=3)[0])
    assert estimate.pca(given, rank=3).basis.shape[2] == 3
    with pytest.raises(
        SteerlabError,
        match="a rank of 4 needs as many pairs; there are de 3: add some, or ask less",
    ):
        estimate.pca(given, rank=4)
    with pytest.raises(SteerlabError, match="the rank is 13; give a number from 1 to 12"):
        estimate.pca(given, rank=13)
    with pytest.raises(
        SteerlabError, match="the gap is looked for among the first 0 values; give 1 or more"
    ):
        estimate.eigengap(given, largest=0)


@pytest.mark.parametrize("name", estimate.VARIANTS)
def test_every_variant_bears_its_name_and_needs_what_it_says(name: str) -> None:
    langs, random = ("en", "ru", "de", "zh", "fr"), torch.Generator().manual_seed(0)
    texts = {
        lang: torch.randn(20, 3, 2, 12, generator=random) + 0.3 * i for i, lang in enumerate(langs)
    }
    needs = estimate.variant(name).needs
    size, pairs_from = 60 if "sample" in needs else 0, "de" if "pairs" in needs else None
    parts = {"scatter": "scatter" in needs, "clouds": "clouds" in needs}
    fitted = estimate.fit(
        name, moments(texts, sample=size, pairs_from=pairs_from, **parts), source="de"
    )
    assert fitted.estimator == name
    assert fitted.source in (None, "de")
    fitted.between("de", "fr")


def test_estimators_are_variants_of_their_own_name() -> None:
    assert set(estimate.__all__) <= set(estimate.VARIANTS)
    assert all(estimate.VARIANTS[name].make is getattr(estimate, name) for name in estimate.__all__)
    with pytest.raises(
        SteerlabError, match="there is no estimator 'magic'; there are diffmean, diffmean texts"
    ):
        estimate.fit("magic", moments(planted()[0]))
