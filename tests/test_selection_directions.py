"""Chosen features and neurons as directions: what they write, span, read, and what taking them
away takes away."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from steerlab.core.directions import Direction, Directions
from steerlab.core.errors import SteerlabError
from steerlab.core.firing import Firing
from steerlab.core.sites import hook_name
from steerlab.edits import ablate
from steerlab.estimate.units import Selection, decoded, gated, masked, monolinguality, sae_diffmean
from steerlab.sae import SAE

LANGS, LAYERS, WIDTH, LATENTS = ("en", "de", "es"), (1, 4), 12, 30
Saes = Mapping[int, SAE]


def autoencoder(layer: int, kind: str = "jumprelu") -> SAE:
    randn = lambda *shape: torch.randn(*shape, generator=torch.Generator().manual_seed(layer))  # noqa: E731
    W_dec = torch.nn.functional.normalize(randn(LATENTS, WIDTH), dim=-1)
    W_dec[21] = -W_dec[20]  # a dependent row
    special = {"jumprelu": {"threshold": torch.rand(LATENTS) * 0.3}, "topk": {"k": 4}}.get(kind, {})
    return SAE(
        W_dec.T * 1.2,
        randn(LATENTS) * 0.1,
        W_dec,
        randn(WIDTH) * 0.2,
        kind,
        layer,
        "resid_post",
        **special,
    )  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def saes() -> Saes:
    return {layer: autoencoder(layer) for layer in LAYERS}


def states(layer: int) -> Tensor:
    """Activations [lang row pos width] with a mean of its own for each language."""
    generator = torch.Generator().manual_seed(100 + layer)
    centre = torch.randn(len(LANGS), 1, 1, WIDTH, generator=generator)
    return centre + torch.randn(len(LANGS), 30, 6, WIDTH, generator=generator)


def collected(saes: Saes) -> Firing:
    about = {"model": {"fingerprint": "abc"}, "saes": [sae.digest for sae in saes.values()]}
    made = Firing(LANGS, LAYERS, LATENTS, WIDTH, site="resid_post", provenance=about)
    mask = torch.ones(30, 6, dtype=torch.bool)
    for i, lang in enumerate(LANGS):
        for layer in LAYERS:
            h = states(layer)[i]
            z = saes[layer].encode(h)
            made.update(lang, layer, on=z > 0, value=z, states=h, mask=mask)
        made.count(lang, mask)
    return made


@pytest.fixture(scope="module")
def firing(saes: Saes) -> Firing:
    return collected(saes)


def selection(units: Mapping[tuple[str, int], list[int]]) -> Selection:
    chosen = torch.zeros(len(LANGS), len(LAYERS), LATENTS, dtype=torch.bool)
    for (iso, layer), places in units.items():
        chosen[LANGS.index(iso), LAYERS.index(layer), places] = True
    score = torch.arange(LATENTS).float().expand(chosen.shape)
    return Selection(
        "by hand", LANGS, LAYERS, "resid_post", chosen, score, {"settings": {"knob": 3}}
    )


FULL = {
    ("en", 1): [2],
    ("en", 4): [3, 4],
    ("de", 1): [5, 6, 7],
    ("de", 4): [8],
    ("es", 1): [20, 21],
    ("es", 4): [9, 2],
}


def without(direction: Direction, h: Tensor) -> Tensor:
    """What `ablate` leaves of activations at the direction's one layer, each token a text of its
    own: BOS is spared."""
    name = hook_name("resid_post", direction.layers[0])
    (hook,) = [hook for place, hook in ablate(direction).hooks(bos=True) if place == name]
    return hook(h.reshape(-1, 1, WIDTH), hook=None).view(h.shape)


# Features


def test_the_vector_is_the_mean_value_times_the_decoder_rows(saes: Saes, firing: Firing) -> None:
    made = decoded(selection(FULL), firing, saes)
    by_hand = sum(firing.level[1, 0, unit] * saes[1].W_dec[unit].double() for unit in (5, 6, 7))
    assert isinstance(by_hand, Tensor)
    torch.testing.assert_close(made.vectors[1, 0], by_hand.float())
    assert not made.vectors[0].any()
    assert not made.basis[0].any()
    assert (made.source, made.estimator, made.site) == ("en", "by hand", "resid_post")
    assert made.provenance["settings"] == {"knob": 3, "selection": "by hand"}
    assert made.provenance["model"] == {"fingerprint": "abc"}
    torch.testing.assert_close(made.means, firing.means.float())
    with pytest.raises(SteerlabError, match="fitted from 'en' only"):
        made.between("de", "es")


def test_without_a_source_a_direction_is_a_difference(saes: Saes, firing: Firing) -> None:
    free, fixed = (decoded(selection(FULL), firing, saes, source=source) for source in (None, "en"))
    assert free.vectors[0].any()
    difference = free.vectors[2] - free.vectors[1]
    torch.testing.assert_close(
        free.between("de", "es").unit, difference / difference.norm(dim=-1, keepdim=True)
    )
    torch.testing.assert_close(free.vectors[1:], fixed.vectors[1:])


def test_ablating_the_basis_is_sequential_projection_on_gram_schmidt_rows(
    saes: Saes, firing: Firing
) -> None:
    h = states(1)[0]
    rows = saes[1].W_dec[[7, 6, 5]]
    left = without(decoded(selection(FULL), firing, saes).between("en", "de").at(1), h)
    one_by_one, done = h.clone(), list[Tensor]()
    for row in rows:
        for earlier in done:
            row = row - (row @ earlier) * earlier
        done.append(row / row.norm())
        one_by_one = one_by_one - (one_by_one @ done[-1])[..., None] * done[-1]
    torch.testing.assert_close(left, one_by_one, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(left @ rows.T, torch.zeros(30, 6, 3), atol=1e-5, rtol=0)
    # The negative control: projections on rows that correlate, each of the original, take away too
    # much.
    summed = h - sum((h @ row)[..., None] * row for row in rows)
    assert (summed @ rows.T).abs().max() > 0.1


def test_the_basis_is_orthonormal_and_drops_dependent_rows(saes: Saes, firing: Firing) -> None:
    made = decoded(selection(FULL), firing, saes)
    gram = torch.einsum("klrw,klsw->klrs", made.basis, made.basis)
    ranks = gram.diagonal(dim1=-2, dim2=-1).sum(-1)
    torch.testing.assert_close(ranks, torch.tensor([[0.0, 0.0], [3.0, 1.0], [1.0, 2.0]]))
    torch.testing.assert_close(
        gram, torch.diag_embed(gram.diagonal(dim1=-2, dim2=-1)), atol=1e-5, rtol=0
    )
    left = without(made.between("en", "es").at(1), states(1)[0])
    torch.testing.assert_close(left @ saes[1].W_dec[20], torch.zeros(30, 6), atol=1e-5, rtol=0)


def test_a_layer_without_features_has_no_direction(saes: Saes, firing: Firing) -> None:
    some = selection({**FULL, ("es", 1): []})
    made = decoded(some, firing, saes)
    with pytest.raises(SteerlabError, match=r"the direction to 'es' is zero at layers \[1\]"):
        made.between("en", "es")
    assert made.at(*some.where("es")).between("en", "es").layers == (4,)
    nothing = decoded(selection({}), firing, saes)
    assert not nothing.vectors.any()
    assert not nothing.basis.any()


@pytest.mark.parametrize("kind", ["relu", "jumprelu"])
def test_the_kept_encoder_computes_the_features_alone(kind: str) -> None:
    saes = {layer: autoencoder(layer, kind) for layer in LAYERS}
    firing = collected(saes)
    made = gated(selection(FULL), firing, saes)
    for (iso, layer), units in FULL.items():
        i, j = LANGS.index(iso), LAYERS.index(layer)
        extra = {name: value[i, j] for name, value in made.extra.items()}
        pre = states(layer)[0] @ extra["encoder"].T + extra["bias"]
        found = pre.relu() * (pre > extra["threshold"])
        order = sorted(units, reverse=True)  # by score
        torch.testing.assert_close(
            found[..., : len(units)],
            saes[layer].encode(states(layer)[0])[..., order],
            atol=1e-5,
            rtol=1e-4,
        )
        assert not found[..., len(units) :].any(), "what is padded is never on"
        assert found.any()
        torch.testing.assert_close(extra["decoder"][: len(units)], saes[layer].W_dec[order])
        torch.testing.assert_close(extra["level"][: len(units)], firing.level[i, j, order].float())


def test_latents_that_depend_on_one_another_are_decoded_but_open_no_gate() -> None:
    saes = {layer: autoencoder(layer, "topk") for layer in LAYERS}
    firing = collected(saes)
    assert set(decoded(selection(FULL), firing, saes).extra) == {"decoder", "level"}
    with pytest.raises(SteerlabError, match="topk"):
        gated(selection(FULL), firing, saes)


def test_gated_directions_are_the_differences_of_means(saes: Saes, firing: Firing) -> None:
    made = gated(monolinguality(firing), firing, saes)
    step = made.between("de", "es")
    gap = (firing.means[2] - firing.means[1]).float()
    torch.testing.assert_close(step.unit * step.gap[:, None], gap)
    assert made.estimator == "monolinguality gated"
    torch.testing.assert_close(step.source_extra["encoder"], made.extra["encoder"][1])


def test_sae_diffmean_is_the_difference_of_mean_reconstructions(saes: Saes, firing: Firing) -> None:
    made = sae_diffmean(firing, saes)
    for j, layer in enumerate(LAYERS):
        rebuilt = saes[layer].decode(saes[layer].encode(states(layer))).mean((1, 2))
        torch.testing.assert_close(
            made.vectors[2, j] - made.vectors[0, j], rebuilt[2] - rebuilt[0], atol=1e-4, rtol=1e-4
        )
    assert made.estimator == "sae diffmean"
    # CLaS-Bench gives the latent step length 1: the direction is the same.
    step = (firing.level[2, 0] - firing.level[0, 0]).float()
    written = step / step.norm() @ saes[1].W_dec
    torch.testing.assert_close(
        made.between("en", "es").unit[0], written / written.norm(), atol=1e-5, rtol=1e-4
    )


def test_layers_of_a_part_and_a_round_trip(saes: Saes, firing: Firing, tmp_path: Path) -> None:
    whole, part = (
        decoded(selection(FULL), firing, saes),
        decoded(selection(FULL).at(4), firing, {4: saes[4]}),
    )
    torch.testing.assert_close(part.vectors[:, 0], whole.vectors[:, 1])
    torch.testing.assert_close(part.means[:, 0], whole.means[:, 1])
    assert Directions.load(whole.save(tmp_path / "whole.safetensors")).digest == whole.digest


def test_another_autoencoder_source_or_layer_is_refused(saes: Saes, firing: Firing) -> None:
    other = {**saes, 1: replace(saes[1], b_enc=saes[1].b_enc + 1)}
    for make in (lambda s: decoded(selection(FULL), firing, s), lambda s: sae_diffmean(firing, s)):
        with pytest.raises(SteerlabError, match="read with another autoencoder of layer 1"):
            make(other)
        with pytest.raises(SteerlabError, match="no autoencoder of layer 4; there are 1"):
            make({1: saes[1]})
        with pytest.raises(
            SteerlabError, match="the firing has 30 of width 12 at resid_post, layer 4"
        ):
            make({1: saes[1], 4: saes[1]})
    with pytest.raises(SteerlabError, match="the source 'fr' is none of en de es"):
        decoded(selection(FULL), firing, saes, source="fr")
    with pytest.raises(
        SteerlabError,
        match="for neurons or experts, and these are 30 units read at resid_post",
    ):
        masked(selection(FULL), firing)


# Neurons


def neurons() -> Firing:
    """Neurons' values, planted: `mlp_post` of width 30."""
    made = Firing(
        LANGS,
        LAYERS,
        LATENTS,
        LATENTS,
        site="mlp_post",
        provenance={"model": {"fingerprint": "abc"}},
    )
    generator, mask = torch.Generator().manual_seed(7), torch.ones(10, 5, dtype=torch.bool)
    for i, lang in enumerate(LANGS):
        for layer in LAYERS:
            values = torch.randn(10, 5, LATENTS, generator=generator) + i
            made.update(lang, layer, on=values > 0, value=values, states=values, mask=mask)
        made.count(lang, mask)
    return made


def test_masked_neurons_keep_their_values_and_the_others() -> None:
    firing = neurons()
    chosen = replace(selection(FULL), site="mlp_post")
    made = masked(chosen, firing)
    assert torch.equal(made.extra["mask"].bool(), chosen.chosen)
    torch.testing.assert_close(made.extra["values"], firing.means.float())
    torch.testing.assert_close(made.extra["rest"][1], firing.means[[0, 2]].mean(0).float())
    torch.testing.assert_close(
        made.vectors[1], (chosen.chosen[1] * (firing.means[1] - firing.means.mean(0))).float()
    )
    step = made.between("de", "es")
    assert torch.equal(step.extra["mask"].bool(), chosen.chosen[2])
    assert torch.equal(step.source_extra["mask"].bool(), chosen.chosen[1])
    assert not step.unit[~(chosen.chosen[1] | chosen.chosen[2])].any()
    fixed = masked(chosen, firing, source="en")
    both = chosen.chosen[2] | chosen.chosen[0]  # the way from the source leads out of its neurons
    torch.testing.assert_close(
        fixed.vectors[2], (both * (firing.means[2] - firing.means[0])).float()
    )
    assert not fixed.vectors[0].any()
    assert fixed.extra["mask"][0].any(), "the source keeps its neurons, to be silenced"
    with pytest.raises(
        SteerlabError, match="chosen with site resid_post, and the firing has mlp_post"
    ):
        masked(selection(FULL), firing)


def test_one_language_has_no_direction() -> None:
    alone = Firing(("en",), [1], 4, 4, site="mlp_post")
    mask, values = torch.ones(2, 3, dtype=torch.bool), torch.ones(2, 3, 4)
    alone.update("en", 1, on=values > 0, value=values, states=values, mask=mask)
    alone.count("en", mask)
    chosen = Selection(
        "by hand",
        ("en",),
        (1,),
        "mlp_post",
        torch.ones(1, 1, 4, dtype=torch.bool),
        torch.ones(1, 1, 4),
    )
    with pytest.raises(SteerlabError, match="this firing is of en alone"):
        masked(chosen, alone)
