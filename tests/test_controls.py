"""Controls give the same dose as what they control, and know nothing, or the wrong thing, of the
target."""

from dataclasses import replace

import pytest
import torch

from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.core.samples import derangement
from steerlab.edits import add
from steerlab.estimate import controls, merged

LANGS, LAYERS, WIDTH = ("en", "de", "es", "fr", "ja"), (1, 4), 64


def directions(langs: tuple[str, ...] = LANGS, source: str | None = None) -> Directions:
    means = torch.randn(len(langs), len(LAYERS), WIDTH, generator=torch.Generator().manual_seed(99))
    basis = torch.nn.functional.normalize(means - means.mean(0), dim=-1)[:, :, None]
    about = {"estimator": "diffmean", "model": {"fingerprint": "abc"}}
    return Directions(means.clone(), basis, means, langs, LAYERS, "resid_post", source, about)


def every_control(fitted: Directions, seed: int = 0) -> dict[str, Directions]:
    covariance = torch.diag(torch.linspace(0.1, 9, WIDTH)).expand(len(LAYERS), WIDTH, WIDTH)
    return {
        "random": controls.random(fitted, seed=seed),
        "covariance": controls.random(fitted, seed=seed, covariance=covariance),
        "shuffled": controls.shuffled(fitted, seed=seed),
        "wrong": controls.wrong(fitted, source="en", seed=seed),
    }


@pytest.mark.parametrize("seed", range(5))
def test_equal_strength_is_equal_dose(seed: int) -> None:
    fitted = directions()
    for name, control in every_control(fitted, seed).items():
        assert torch.equal(control.means, fitted.means), name
        for target in LANGS[1:]:
            ours, theirs = fitted.between("en", target), control.between("en", target)
            assert torch.equal(ours.gap, theirs.gap)
            for mine, other in zip(add(ours).parts, add(theirs).parts, strict=True):
                torch.testing.assert_close(
                    mine.tensors["shift"].norm(), other.tensors["shift"].norm()
                )
            assert ((ours.unit * theirs.unit).sum(-1) < 0.9).all(), (
                f"{name} gives another direction to {target}"
            )


def test_controls_say_what_they_are_and_keep_where_they_belong() -> None:
    fitted = directions(source="en")
    names = {name: control.estimator for name, control in every_control(fitted, 3).items()}
    assert names == {
        "random": "random isotropic 3",
        "covariance": "random covariance 3",
        "shuffled": "shuffled 3",
        "wrong": "wrong 3",
    }
    for control in every_control(fitted).values():
        assert (control.langs, control.layers, control.source) == (LANGS, LAYERS, "en")
        assert control.provenance["model"] == {"fingerprint": "abc"}
        torch.testing.assert_close(
            control.basis.norm(dim=-1), torch.ones(len(LANGS), len(LAYERS), 1)
        )


def test_controls_keep_the_unit_of_strength() -> None:
    fitted = replace(directions(), strength_unit="absolute")
    for name, control in every_control(fitted).items():
        assert torch.equal(control.between("en", "de").gap, fitted.between("en", "de").gap), name


def test_seeds_repeat_and_differ() -> None:
    fitted = directions()
    one, same, other = (every_control(fitted, seed) for seed in (0, 0, 1))
    for name in one:
        assert torch.equal(one[name].vectors, same[name].vectors)
        assert not torch.equal(one[name].vectors, other[name].vectors)


def between_targets(fitted: Directions) -> torch.Tensor:
    """The cosines of the directions from English to each two other languages, at each layer."""
    units = torch.stack([fitted.between("en", target).unit for target in LANGS[1:]])
    pairs = torch.triu_indices(len(units), len(units), offset=1)
    return (units[pairs[0]] * units[pairs[1]]).sum(-1)


@pytest.mark.parametrize("kind", ["isotropic", "covariance"])
@pytest.mark.parametrize("fit_of", [None, "en"])
def test_random_directions_to_two_targets_share_no_vector(kind: str, fit_of: str | None) -> None:
    """Each is drawn by itself; as differences of the languages' vectors they would have cosines of
    one half."""
    fitted, even = directions(source=fit_of), torch.eye(WIDTH).expand(len(LAYERS), WIDTH, WIDTH)
    covariance = even if kind == "covariance" else None
    source = None if fit_of else "en"

    def drawn(seed: int) -> Directions:
        return controls.random(fitted, seed=seed, source=source, covariance=covariance)

    cosines = torch.stack([between_targets(drawn(seed)) for seed in range(10)])
    assert abs(float(cosines.mean())) < 0.03
    assert float(cosines.abs().max()) < 4 / WIDTH**0.5
    control = drawn(0)
    for target in LANGS[1:]:
        assert torch.equal(control.between("en", target).gap, fitted.between("en", target).gap)
    with pytest.raises(SteerlabError, match="fitted from 'en' only"):
        control.between("de", "es")
    shared = between_targets(controls.random(directions(), seed=0, covariance=covariance))
    assert float(shared.mean()) == pytest.approx(0.5, abs=0.1), "without a source they share it"
    with pytest.raises(SteerlabError, match="there is no 'pl' among en de es fr ja; give the"):
        controls.random(fitted, seed=0, source="pl")


def test_the_two_kinds_of_random_share_no_draws() -> None:
    """With equal variances along every axis they would be the same vectors."""
    fitted, even = directions(), torch.eye(WIDTH).expand(len(LAYERS), WIDTH, WIDTH)
    one, other = controls.random(fitted, seed=0), controls.random(fitted, seed=0, covariance=even)
    cosine = torch.nn.functional.cosine_similarity(one.vectors, other.vectors, dim=-1)
    assert cosine.abs().max() < 0.6, "64 numbers"


def test_random_is_isotropic_or_spread_like_the_activations() -> None:
    fitted = directions()
    turn = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(1)))[0]
    spread = torch.cat([torch.full((8,), 10.0), torch.full((WIDTH - 8,), 0.1)])
    covariance = (turn * spread @ turn.T).expand(len(LAYERS), WIDTH, WIDTH)

    def loud(control: Directions) -> float:
        """The share of the vectors' squares on the eight loud axes."""
        inside = control.vectors @ turn[:, :8]
        return float(inside.square().sum() / control.vectors.square().sum())

    seeds = range(10)
    even = sum(loud(controls.random(fitted, seed=seed)) for seed in seeds) / 10
    uneven = (
        sum(loud(controls.random(fitted, seed=seed, covariance=covariance)) for seed in seeds) / 10
    )
    assert even == pytest.approx(8 / WIDTH, abs=0.03)
    assert uneven == pytest.approx(80 / (80 + 0.1 * (WIDTH - 8)), abs=0.03)


@pytest.mark.parametrize("count", [2, 3, 5, 16])
def test_a_derangement_has_no_fixed_point(count: int) -> None:
    orders = [derangement(count, seed).tolist() for seed in range(100)]
    for order in orders:
        assert sorted(order) == list(range(count))
        assert all(place != there for place, there in enumerate(order))
    assert len(set(map(tuple, orders))) >= {2: 1, 3: 2, 5: 30, 16: 100}[count]


def test_shuffled_gives_every_language_anothers_vector() -> None:
    fitted = directions()
    for seed in range(20):
        order = [
            int((fitted.vectors == vector).flatten(1).all(1).nonzero())
            for vector in controls.shuffled(fitted, seed=seed).vectors
        ]
        assert sorted(order) == list(range(5))
        assert all(place != there for place, there in enumerate(order))


def test_wrong_keeps_the_source_and_gives_the_direction_to_another_target() -> None:
    fitted = directions()
    for seed in range(20):
        control = controls.wrong(fitted, source="de", seed=seed)
        assert torch.equal(control.vectors[1], fitted.vectors[1])
        units = {target: fitted.between("de", target).unit for target in LANGS if target != "de"}
        for target in units:
            given = control.between("de", target).unit
            [meant] = [other for other, unit in units.items() if torch.allclose(unit, given)]
            assert meant != target


def test_a_single_target_has_no_wrong_direction() -> None:
    with pytest.raises(
        SteerlabError, match="needs two targets or more; fit directions of more languages"
    ):
        controls.wrong(directions(("en", "de")), source="en", seed=0)


def equipped() -> Directions:
    """Directions with subspaces of rank 3 and what every operator asks for."""
    fitted, random = directions(), torch.Generator().manual_seed(3)
    rows = lambda langs, rank: torch.randn(langs, len(LAYERS), rank, WIDTH, generator=random)  # noqa: E731
    orthonormal = lambda langs, rank: torch.linalg.qr(rows(langs, rank).mT)[0].mT.contiguous()  # noqa: E731
    extra = {
        "read": rows(1, 4),
        "write": rows(1, 4),
        "centre": rows(1, 1)[:, :, 0],
        "axes": orthonormal(5, 6),
        "spectrum": torch.rand(5, len(LAYERS), 6, generator=random),
        "mask": (rows(5, 1)[:, :, 0] > 1).float(),
        "values": rows(5, 1)[:, :, 0],
    }
    basis = orthonormal(5, 3)
    basis[1, 0, 2] = 0
    return replace(fitted, basis=basis, extra=extra)


def test_random_subspaces_have_the_same_rank_and_know_nothing() -> None:
    fitted = equipped()
    for covariance in (None, torch.eye(WIDTH).expand(len(LAYERS), -1, -1)):
        control = controls.random(fitted, seed=0, covariance=covariance)
        assert torch.equal(control.basis.any(-1), fitted.basis.any(-1))
        gram = control.basis @ control.basis.mT
        torch.testing.assert_close(
            gram, torch.diag_embed(control.basis.any(-1).float()), atol=1e-5, rtol=0
        )
        overlap = (control.basis @ fitted.basis.mT).square().sum((2, 3)).mean()
        assert overlap < 3 * (3 * 3 / WIDTH), "no more than by chance"
        extra = control.extra
        assert torch.equal(extra["read"], extra["write"])
        torch.testing.assert_close(
            extra["read"] @ extra["read"].mT, torch.eye(4).expand(1, 2, 4, 4), atol=1e-5, rtol=0
        )
        torch.testing.assert_close(
            extra["axes"] @ extra["axes"].mT, torch.eye(6).expand(5, 2, 6, 6), atol=1e-5, rtol=0
        )
        assert torch.equal(extra["spectrum"], fitted.extra["spectrum"])
        assert torch.equal(extra["mask"].sum(-1), fitted.extra["mask"].sum(-1))
        assert not torch.equal(extra["mask"], fitted.extra["mask"])


def test_random_neurons_are_as_many_and_keep_what_is_known_of_each_together() -> None:
    fitted = equipped()
    extra = {**fitted.extra, "rest": fitted.extra["values"] + 100}
    control = controls.random(replace(fitted, extra=extra), seed=0).extra
    torch.testing.assert_close(control["rest"], control["values"] + 100)
    inside = [(found["mask"] * found["values"]).norm(dim=-1) for found in (control, extra)]
    torch.testing.assert_close(*inside)
    assert not torch.equal(control["mask"], extra["mask"])


def test_random_decoders_write_elsewhere_and_as_far() -> None:
    fitted = directions()
    rows = torch.randn(5, len(LAYERS), 4, WIDTH, generator=torch.Generator().manual_seed(1))
    rows[1, 0, 2:] = 0
    rows[2, 1] = 0
    control = controls.random(replace(fitted, extra={"decoder": rows}), seed=0).extra["decoder"]
    torch.testing.assert_close(control @ control.mT, rows @ rows.mT, atol=1e-4, rtol=1e-4)
    assert torch.equal(control.any(-1), rows.any(-1))
    cosine = torch.nn.functional.cosine_similarity(control, rows, dim=-1)[rows.any(-1)]
    assert float(cosine.abs().max()) < 0.6


def test_dealt_labels_deal_subspaces_and_the_rest_too() -> None:
    fitted = equipped()
    for control in (controls.shuffled(fitted, seed=1), controls.wrong(fitted, source="en", seed=1)):
        order = [int((fitted.vectors == v).flatten(1).all(1).nonzero()) for v in control.vectors]
        assert torch.equal(control.basis, fitted.basis[order])
        assert control.extra.keys() == {"axes", "spectrum", "mask", "values"}, (
            "what all share cannot be dealt"
        )
        for name, value in control.extra.items():
            assert torch.equal(value, fitted.extra[name][order])


def test_merged_gives_relatives_one_vector() -> None:
    fitted = directions()
    found = merged(fitted)  # families: en de | es fr | ja
    v = fitted.vectors
    assert torch.allclose(found.vectors[0], (v[0] + v[1]) / 2)
    assert torch.allclose(found.vectors[3], (v[2] + v[3]) / 2)
    assert torch.allclose(found.vectors[4], v[4])
    assert torch.equal(found.means, fitted.means)
    with pytest.raises(SteerlabError, match="is zero at layers"):
        found.between("en", "de")
    alone = merged(fitted, dict.fromkeys(LANGS, "all"), without_own=True)
    assert torch.allclose(alone.vectors[2], (v.sum(0) - v[2]) / 4)


def test_merged_needs_a_group_for_everyone_and_company() -> None:
    with pytest.raises(SteerlabError, match="no group is named for ja"):
        merged(directions(), {"en": "a", "de": "a", "es": "b", "fr": "b"})
    with pytest.raises(SteerlabError, match="ja is alone in its group"):
        merged(directions(), without_own=True)


@pytest.mark.parametrize("bases", [1, 3])
def test_a_random_dictionary_reconstructs_exactly(bases: int) -> None:
    made = controls.dictionary(WIDTH, 2 * WIDTH * bases, layer=1, seed=0)
    h = 5 * torch.randn(7, WIDTH, generator=torch.Generator().manual_seed(3))
    latents = made.encode(h)
    torch.testing.assert_close(made.decode(latents), h, atol=1e-4, rtol=1e-4)
    assert (latents > 0).float().mean() == 0.5
    gram = made.W_enc.mT @ made.W_enc
    torch.testing.assert_close(gram.diagonal(), torch.ones(len(gram)))
    assert made == controls.dictionary(WIDTH, 2 * WIDTH * bases, layer=1, seed=0)
    assert made != controls.dictionary(WIDTH, 2 * WIDTH * bases, layer=1, seed=1)
    for latents_of in (0, WIDTH, 3 * WIDTH, 2 * WIDTH + 1):
        with pytest.raises(SteerlabError, match="give a multiple of 128"):
            controls.dictionary(WIDTH, latents_of, layer=1, seed=0)
