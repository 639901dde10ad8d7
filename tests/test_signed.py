"""FOXP2 from firing to directions: planted latents, planted ranks under a mask, and the shift in
latent space."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from planting import made_of
from torch import Tensor

from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.core.firing import Firing, LatentPairs, Lift
from steerlab.edits import add, signed_shift, steer
from steerlab.estimate import controls
from steerlab.estimate.units import Selection
from steerlab.estimate.units.foxp2 import (
    candidates,
    foxp2_features,
    latent_spectra,
    signed,
    standardised,
)
from steerlab.sae import SAE

LANGS, LAYERS, LATENTS, WIDTH = ("en", "de", "ja"), (1, 2, 3), 20, 12
OWN = {
    "de": (3, 4, 5),
    "ja": (7, 8),
}  # latents planted for each language at every layer; 0 is on for all, 19 for none


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def firing() -> Firing:
    made = Firing(
        LANGS,
        LAYERS,
        LATENTS,
        WIDTH,
        site="resid_post",
        provenance={"model": {"fingerprint": "abc"}},
    )
    mask = torch.ones(10, 6, dtype=torch.bool)
    mask[:, 0] = False
    for number, iso in enumerate(LANGS):
        for layer in LAYERS:
            value = randn(10, 6, LATENTS, seed=10 * layer + number).clamp(min=0) * 0.2
            value[..., 0] = 3.0
            value[..., list(OWN.get(iso, ()))] += 2.0
            value[..., -1] = 0
            states = randn(10, 6, WIDTH, seed=layer) + number
            made.update(iso, layer, on=value > 0, value=value, states=states, mask=mask)
        made.count(iso, mask)
    return made


@pytest.fixture(scope="module")
def saes() -> dict[int, SAE]:
    return {layer: autoencoder(layer) for layer in LAYERS}


def autoencoder(layer: int, kind: str = "jumprelu") -> SAE:
    rows = torch.nn.functional.normalize(randn(LATENTS, WIDTH, seed=layer), dim=-1)
    more: dict[str, Any] = (
        {"threshold": 0.3 * randn(LATENTS, seed=layer).abs()} if kind == "jumprelu" else {"k": 3}
    )
    bias, centre = 0.1 * randn(LATENTS, seed=90), 0.1 * randn(WIDTH, seed=91)
    return SAE(
        rows.T + 0.1 * randn(WIDTH, LATENTS, seed=92),
        bias,
        rows,
        centre,
        kind,
        layer,
        "resid_post",
        **more,
    )


def lifted(slopes: dict[tuple[str, int], dict[int, float]], firing: Firing) -> Lift:
    slope = torch.full((len(LANGS), len(LAYERS), LATENTS), float("nan"))
    for (iso, layer), told in slopes.items():
        for unit, value in told.items():
            slope[LANGS.index(iso), LAYERS.index(layer), unit] = value
    return Lift(LANGS, LAYERS, "en", (1.0,), slope, slope[..., None], {})


@pytest.fixture(scope="module")
def selection(firing: Firing) -> Selection:
    """Every language's planted latents, all of the same slope."""
    slopes = {
        (iso, layer): dict.fromkeys(units, 1.0) for iso, units in OWN.items() for layer in LAYERS
    }
    return foxp2_features(firing, lifted(slopes, firing), saturation=1.0)


def paired(selection: Selection, *, count: int = 40) -> LatentPairs:
    """Differences of rank 1 at every layer, at layer 1 in noise."""
    units, differences, source_mean = {}, {}, {}
    for iso in OWN:
        for layer in LAYERS:
            key = (iso, layer)
            units[key] = tuple(selection.of(iso, layer))
            size = len(units[key])
            axis = 1 + randn(size, seed=layer).abs()
            noise = randn(count, size, seed=5) * (2.0 if layer == 1 else 0.02)
            differences[key] = (2 + randn(count, 1, seed=layer)) * axis + noise
            source_mean[key] = randn(size, seed=7).abs()
    return LatentPairs("en", LANGS, LAYERS, units, differences, source_mean, {})


# ------------------------------------------------------------------------------------------ stage I


def test_selectivity_is_in_units_of_spread(firing: Firing) -> None:
    found = standardised(firing, source="en")
    assert not found[0].any()
    level, spread = firing.level, firing.deviation
    for unit in (3, 7, 11):
        expected = (level[1, 1, unit] - level[0, 1, unit]) / (
            spread[1, 1, unit] + spread[0, 1, unit]
        )
        assert float(found[1, 1, unit]) == pytest.approx(float(expected), rel=1e-4)
    assert not found[..., -1].any(), "a latent that is never on is selective for nothing"


def test_candidates_are_the_planted_latents_and_none_of_the_source(firing: Firing) -> None:
    found = candidates(firing, source="en", pool=3)
    for layer in LAYERS:
        assert set(found.of("de", layer)) == set(OWN["de"])
        assert set(found.of("ja", layer)[:2]) == set(OWN["ja"])
        assert found.of("en", layer) == []
    everything = candidates(firing, source="en", pool=100)
    assert not everything.chosen[..., -1].any()
    assert not everything.chosen[..., 0].any(), "on for all alike"
    assert (everything.score[everything.chosen] > 0).all()


def test_a_feature_has_to_be_selective_and_to_cause(firing: Firing) -> None:
    """Latent 3 causes, 4 does not, 5 was not tried, 7 causes German but is Japanese, 12 is
    nobody's."""
    told = {("de", layer): {3: 2.0, 4: -1.0, 7: 5.0} for layer in LAYERS} | {
        ("ja", 2): {7: 0.5, 8: 0.25}
    }
    found = foxp2_features(firing, lifted(told, firing), saturation=1.0)
    chosen = {
        (iso, layer): [unit for unit in found.of(iso, layer) if unit in (3, 4, 5, 7, 8)]
        for iso in LANGS
        for layer in LAYERS
    }
    assert [chosen["de", layer][0] for layer in LAYERS] == [3, 3, 3]
    assert not any({4, 5} & set(units) for units in chosen.values())
    assert chosen["ja", 2] == [7, 8]
    assert found.where("ja") == (2,)
    assert found.where("en") == ()
    score = standardised(firing, source="en")[1, 0, 3] * 2.0
    assert float(found.score[1, 0, 3]) == pytest.approx(float(score))


@pytest.mark.parametrize(
    ("saturation", "kept"), [(0.4, 1), (0.55, 2), (0.8, 2), (0.81, 3), (1.0, 3)]
)
def test_as_many_are_kept_as_hold_the_share(saturation: float, kept: int, firing: Firing) -> None:
    """Scores .5, .3, .2 of their sum: 1 holds .5, 2 hold .8."""
    place = LANGS.index("de")
    selective = standardised(firing, source="en")[place, 0]
    slopes = {
        unit: share / float(selective[unit])
        for unit, share in zip(OWN["de"], (0.5, 0.3, 0.2), strict=True)
    }
    found = foxp2_features(
        firing, lifted({("de", 1): slopes}, firing), saturation=saturation - 1e-4
    )
    assert found.of("de", 1) == list(OWN["de"][:kept])
    assert foxp2_features(firing, lifted({("de", 1): slopes}, firing), largest=1).of("de", 1) == [3]


# ----------------------------------------------------------------------------------------- stage II


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_a_planted_rank_is_found_and_not_the_size_of_the_mask(rank: int) -> None:
    """Ten of forty latents are in the mask; the others are zeros, behind which the largest ratio
    of all lies."""
    inside, _ = made_of(
        [*[6.0, 5.0, 4.5][:rank], *torch.linspace(0.3, 0.2, 10 - rank).tolist()], width=10
    )
    masked = torch.zeros(40, 40)
    masked[:, 5:15] = inside.float()
    naive = torch.linalg.svdvals(masked.double())
    assert int((naive[:-1] / naive[1:].clamp(min=1e-30)).argmax()) + 1 >= 10, (
        "what the released code finds"
    )
    for differences in (masked, inside.float()):
        key = ("de", 2)
        units = {key: tuple(range(differences.shape[1]))}
        pairs = LatentPairs(
            "en", LANGS, LAYERS, units, {key: differences}, {key: torch.ones(len(units[key]))}, {}
        )
        [found] = latent_spectra(pairs, bootstraps=4)
        assert (found.target, found.layer, found.pairs) == ("de", 2, 40)
        assert (found.rank, found.gap, len(found.values)) == (rank, rank, 10)
        assert found.stability > 0.9
        squares = torch.linalg.svdvals(inside).square()
        assert found.mass == pytest.approx(float(squares[:rank].sum() / squares.sum()), rel=1e-5)


def test_noise_has_no_stable_rank_and_what_never_differs_no_spectrum() -> None:
    differences = {("de", 1): randn(40, 30), ("de", 2): torch.zeros(40, 3), ("de", 3): randn(40, 1)}
    units = {key: tuple(range(rows.shape[1])) for key, rows in differences.items()}
    means = {key: torch.zeros(rows.shape[1]) for key, rows in differences.items()}
    noise, one = latent_spectra(
        LatentPairs("en", LANGS, LAYERS, units, differences, means, {}), bootstraps=6
    )
    assert (noise.layer, one.layer) == (1, 3)
    assert noise.stability < 0.8
    assert (one.rank, one.mass) == (1, 1.0)
    assert one.stability == pytest.approx(1.0)


# ---------------------------------------------------------------------------------------- stage III


@pytest.fixture(scope="module")
def made(selection: Selection, firing: Firing, saes: dict[int, SAE]) -> Directions:
    return signed(selection, paired(selection), firing, saes, widths=(2,), bootstraps=4)


def test_the_push_is_the_mean_difference_in_its_leading_subspace(
    made: Directions, selection: Selection, saes: dict[int, SAE]
) -> None:
    pairs = paired(selection)
    for (iso, layer), differences in pairs.differences.items():
        i, j = LANGS.index(iso), LAYERS.index(layer)
        axis = torch.linalg.svd(differences.double())[2][0].float()
        expected = (differences.mean(0) @ axis) * axis
        count = len(expected)
        torch.testing.assert_close(made.extra["push"][i, j, :count], expected, atol=1e-4, rtol=1e-4)
        assert not made.extra["push"][i, j, count:].any()
        written = expected @ saes[layer].W_dec[list(pairs.units[iso, layer])]
        torch.testing.assert_close(made.vectors[i, j], written, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(
            made.basis[i, j, 0].abs(), (written / written.norm()).abs(), atol=1e-4, rtol=1e-3
        )
        torch.testing.assert_close(made.extra["pull"][i, j, :count], pairs.source_mean[iso, layer])
    assert not made.vectors[0].any()
    assert made.source == "en"
    assert made.estimator == "foxp2 signed"
    assert made.extra["window"].tolist() == [[0, 0, 0], [0, 1, 1], [0, 1, 1]], "layer 1 is noise"


def test_languages_may_have_different_ranks(
    selection: Selection, firing: Firing, saes: dict[int, SAE]
) -> None:
    pairs = paired(selection)
    size = len(pairs.units["de", LAYERS[-1]])
    left = torch.linalg.qr(randn(40, size, seed=1))[0]
    right = torch.linalg.qr(randn(size, size, seed=2))[0]
    values = torch.full((size,), 0.01)
    values[:2] = torch.tensor([6.0, 5.0])
    differences = {**pairs.differences, ("de", LAYERS[-1]): (left * values) @ right.T}
    pairs = replace(pairs, differences=differences)
    basis = signed(selection, pairs, firing, saes, widths=(2,), bootstraps=4).basis[:, -1]
    used = {iso: int(basis[LANGS.index(iso)].any(-1).sum()) for iso in OWN if iso != "en"}
    assert used == dict.fromkeys(used, 1) | {"de": 2}


@pytest.mark.parametrize(("push", "pull"), [(1.5, 0.0), (0.0, 0.7), (2.0, 1.0)])
def test_a_signed_shift_is_done_among_all_latents(
    push: float, pull: float, made: Directions, selection: Selection, saes: dict[int, SAE]
) -> None:
    """z of the whole dictionary, changed under the mask, decoded: h moves by the difference of
    the decodings."""
    pairs, h = paired(selection), randn(2, 30, WIDTH, seed=4) * 2
    edit = signed_shift(made.at(2, 3).between("en", "de"), push=push, pull=pull)
    for part in edit.parts:
        sae, units = saes[part.layer], list(pairs.units["de", part.layer])
        z, prototype, towards = sae.encode(h), torch.zeros(LATENTS), torch.zeros(LATENTS)
        assert 0.2 < float((z[..., units] > 0).float().mean()) < 0.8
        prototype[units] = pairs.source_mean["de", part.layer]
        towards[units] = made.extra["push"][1, LAYERS.index(part.layer), : len(units)]
        pulled = (z @ prototype)[..., None] / (prototype @ prototype) * prototype
        after = z + push * towards - pull * pulled
        expected = sae.decode(after) - sae.decode(z)
        change = part.change(h, part.tensors, None).expand_as(h)
        torch.testing.assert_close(change, expected, atol=1e-4, rtol=1e-4)


def test_a_plain_add_moves_the_same_way(made: Directions) -> None:
    step = made.at(2, 3).between("en", "de")
    for one, other in zip(add(step).parts, signed_shift(step).parts, strict=True):
        cosine = torch.nn.functional.cosine_similarity(one.tensors["shift"], other.tensors["shift"])
        assert float(cosine) == pytest.approx(1, abs=1e-5)


def test_a_layer_without_latents_is_outside_of_the_window(
    selection: Selection, firing: Firing, saes: dict[int, SAE]
) -> None:
    chosen = selection.chosen.clone()
    chosen[1, 2] = False
    fewer, pairs = replace(selection, chosen=chosen), paired(selection)
    pairs = replace(
        pairs,
        differences={key: rows for key, rows in pairs.differences.items() if key != ("de", 3)},
    )
    made = signed(fewer, pairs, firing, saes, widths=(2,), bootstraps=2)
    assert made.extra["window"][1].tolist() == [1, 1, 0]
    assert [
        part.layer for part in steer("signed_shift", made, 1.0, source="en", target="de").parts
    ] == [1, 2]
    with pytest.raises(SteerlabError, match=r"zero at layers \[3\]"):
        made.between("en", "de")


def test_a_random_control_writes_elsewhere_and_as_far(made: Directions) -> None:
    control = controls.random(made, seed=0)
    ours, theirs = made.extra["decoder"], control.extra["decoder"]
    torch.testing.assert_close(theirs @ theirs.mT, ours @ ours.mT, atol=1e-5, rtol=1e-4)
    assert torch.equal(theirs.any(-1), ours.any(-1))
    assert float(torch.nn.functional.cosine_similarity(ours, theirs, dim=-1).abs().mean()) < 0.5
    assert torch.equal(control.extra["encoder"], made.extra["encoder"]), (
        "latents are read where they are"
    )
    for one, other in zip(
        *(signed_shift(d.at(2, 3).between("en", "ja")).parts for d in (made, control)), strict=True
    ):
        torch.testing.assert_close(one.tensors["shift"].norm(), other.tensors["shift"].norm())
        assert not torch.allclose(one.tensors["shift"], other.tensors["shift"], atol=0.1)


def test_a_language_without_differences_has_no_window_and_the_others_have_theirs(
    selection: Selection, firing: Firing, saes: dict[int, SAE]
) -> None:
    pairs = paired(selection)
    no_ja = replace(
        pairs, differences={key: rows for key, rows in pairs.differences.items() if key[0] != "ja"}
    )
    made = signed(selection, no_ja, firing, saes)
    assert not made.extra["window"][made.langs.index("ja")].any()
    assert made.extra["window"][made.langs.index("de")].any()
    with pytest.raises(SteerlabError, match="the direction to 'ja' is zero"):
        steer("signed_shift", made, 1.0, source="en", target="ja")


# ---------------------------------------------------------------------------------- what is refused


def test_what_is_refused(firing: Firing, selection: Selection, saes: dict[int, SAE]) -> None:
    pairs, nothing = paired(selection), lifted({("de", 1): {3: -1.0, 4: 0.0}}, firing)
    other = replace(
        selection, score=torch.arange(LATENTS).float().expand_as(selection.score).clone()
    )
    none = replace(pairs, differences={})
    short = Lift(LANGS, LAYERS, "en", (1.0,), torch.zeros(3, 3, 5), torch.zeros(3, 3, 5, 1), {})
    topk = {layer: autoencoder(layer, "topk") for layer in LAYERS}
    cases: list[tuple[Callable[[], Any], str]] = [
        (
            lambda: standardised(firing, source="fr"),
            "the source 'fr' is none of en de ja; take it from these",
        ),
        (lambda: candidates(firing, pool=0), "a pool of 0 candidates is none; give 1 or more"),
        (
            lambda: foxp2_features(firing, nothing),
            "of 2 latents that were tried none is selective .* try more cand",
        ),
        (
            lambda: foxp2_features(firing, nothing, saturation=1.5),
            "saturation lies above 0 and at most at 1",
        ),
        (
            lambda: foxp2_features(firing, replace(nothing, layers=(1, 2))),
            "the lift was measured for layers",
        ),
        (lambda: foxp2_features(firing, short), "the lift has 5 units and the firing 20"),
        (
            lambda: latent_spectra(pairs, largest=0),
            "the gap is looked for among the first 0 values",
        ),
        (
            lambda: signed(other, pairs, firing, saes),
            "the pairs of 'de' at layer 1 are of other latents than were cho",
        ),
        (
            lambda: signed(selection, none, firing, saes),
            "no language has latents that differ from the source's",
        ),
        (
            lambda: signed(selection, replace(pairs, source="fr"), firing, saes),
            "the source 'fr' is none of en de ja",
        ),
        (
            lambda: signed(selection, pairs, firing, topk),
            "latents of a topk autoencoder are on depends on all others",
        ),
    ]
    for make, told in cases:
        with pytest.raises(SteerlabError, match=told):
            make()
