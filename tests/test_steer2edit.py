"""Steer2Edit: the closed form is the optimum, what is planted is found, and a mean input is moved
along the step alone."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.optimize import minimize

import steerlab as sl
from steerlab.core.corpus import Corpus
from steerlab.core.errors import SteerlabError
from steerlab.core.moments import Moments
from steerlab.edits.writing import elastic_net
from steerlab.engine.weights.change import changed
from steerlab.models.loading import load
from steerlab.models.model import Model

SITES = ("attn_z", "mlp_post")
PAIR: dict[str, Any] = {"source": "en", "target": "de"}


@pytest.fixture(scope="module")
def readings(polyglot: Model, lines: Corpus) -> tuple[Moments, ...]:
    few = lines.select(["en", "de"]).split("estimate").take(24)
    return tuple(sl.collect(polyglot, few, site=site, also=[]) for site in SITES)


@pytest.mark.parametrize(("rho", "alpha"), [(0.18, 0.8), (0.55, 0.05), (0.3, 0.0), (2.0, 0.9)])
def test_the_closed_form_is_the_optimum(rho, alpha):
    g = torch.tensor([0.9, -0.6, 0.3, -0.145, 0.1, 0.0, -0.02], dtype=torch.float64)

    def worse(x: Any) -> float:
        lam = torch.from_numpy(x[: len(g)] - x[len(g) :])  # of two parts, so that |λ| is smooth
        size = torch.from_numpy(x).sum()
        penalty = rho * (alpha * size + (1 - alpha) / 2 * lam.square().sum())
        return float(penalty - g @ lam)

    found = minimize(
        worse,
        [0.1] * 2 * len(g),
        bounds=[(0, None)] * 2 * len(g),
        options={"maxiter": 5000, "ftol": 1e-14, "gtol": 1e-10},
    ).x
    closed = elastic_net(g, rho, alpha)
    torch.testing.assert_close(
        closed, torch.from_numpy(found[: len(g)] - found[len(g) :]), atol=2e-3, rtol=2e-3
    )
    assert (closed[g.abs() <= rho * alpha] == 0).all()


def test_a_mean_input_is_moved_along_the_step_and_towards_it(polyglot, readings):
    weights = sl.steer2edit(polyglot, *readings, **PAIR, rho_heads=2.0, rho_neurons=2.0)
    made = changed(polyglot.hf, weights.changes)
    assert len(made) == len(weights.changes) > polyglot.n_layers
    for change in weights.changes:
        moments = readings["down_proj" in change.module]
        layer = int(change.module.split(".")[2])
        start, end = (moments.pooled[moments.langs.index(lang), layer] for lang in ("en", "de"))
        module = polyglot.hf.get_submodule(change.module)
        old, new = module.weight.detach().double(), made[change.module, "weight"].double()
        unit = torch.nn.functional.normalize(old @ (end - start).double(), dim=0)
        # Of each component by itself: heads are 64 inputs wide, neurons one.
        size = 64 if "o_proj" in change.module else 1
        mean = ((start + end) / 2).double()
        moved = (new - old) * mean
        parts = moved.view(len(old), -1, size).sum(-1).mT
        along = parts @ unit
        across = parts - along[:, None] * unit
        assert across.norm() < 1e-5 * along.norm()
        assert (along > -1e-7).all()
        assert along.max() > 0
        for part in (new - old).view(len(old), -1, size).unbind(1)[:4]:
            sizes = torch.linalg.svdvals(part)
            assert (sizes[1:] < 1e-5 * max(1e-3, float(sizes[0]))).all()  # rank 1
    with torch.inference_mode():
        before = polyglot.hf(torch.tensor([[1, 5, 6]])).logits
        with weights.on(polyglot):
            assert not torch.equal(polyglot.hf(torch.tensor([[1, 5, 6]])).logits, before)
        assert torch.equal(polyglot.hf(torch.tensor([[1, 5, 6]])).logits, before)


def test_formulas_by_hand(polyglot, readings):
    """Cosines, k̂ and λ of one head and one neuron, written out."""
    rho, alpha = 2.0, 0.5
    weights = sl.steer2edit(
        polyglot, *readings, **PAIR, rho_heads=rho, rho_neurons=rho, alpha=alpha
    )
    layer, scale = 4, rho / math.sqrt(256)
    heads, neurons = readings
    out = polyglot.hf.model.layers[layer].self_attn.o_proj.weight.detach().double()
    at = [heads.langs.index(lang) for lang in ("en", "de")]
    start, end = heads.pooled[at, layer].double()
    v = out @ (end - start)
    v /= v.norm()
    mean = (start + end) / 2
    for head, lam in enumerate(weights.metadata["heads"][layer]):
        own = out[:, 64 * head : 64 * head + 64]
        given = own @ mean[64 * head : 64 * head + 64]
        g = float(given @ v / given.norm())
        wanted = math.copysign(max(abs(g) - scale * alpha, 0) / (scale * (1 - alpha)), g)
        assert lam == pytest.approx(wanted, abs=1e-6)
    down = polyglot.hf.model.layers[layer].mlp.down_proj.weight.detach().double()
    start, end = neurons.pooled[at, layer].double()
    v = down @ (end - start)
    v /= v.norm()
    g = torch.sign(start + end) * (v @ down) / down.norm(dim=0)
    assert weights.metadata["neurons"][layer] == int((g.abs() > scale * alpha).sum())
    changes = {change.module: change for change in weights.changes}
    row = changes[f"model.layers.{layer}.mlp.down_proj"].right[0]
    wanted_row = elastic_net(g, scale, alpha) * torch.sign(v @ down)
    torch.testing.assert_close(row, wanted_row, atol=1e-6, rtol=1e-5)


def test_fewer_with_more_of_the_l1_and_none_is_refused(polyglot, readings):
    def edited(alpha: float) -> int:
        made = sl.steer2edit(polyglot, readings[1], **PAIR, rho_neurons=4.0, alpha=alpha)
        return sum(made.metadata["neurons"].values())

    counts = [edited(alpha) for alpha in (0.0, 0.3, 0.6)]
    assert counts[0] > counts[1] > counts[2] > 0
    assert counts[0] > 0.99 * polyglot.n_layers * 704
    with pytest.raises(SteerlabError, match=r"no component agrees by more .*the largest .*/√d; ta"):
        sl.steer2edit(polyglot, *readings, **PAIR, rho_heads=99.0, rho_neurons=99.0, alpha=0.9)


def test_the_control_is_as_large_and_writes_elsewhere(polyglot, readings):
    made = sl.steer2edit(polyglot, *readings, **PAIR)
    control = sl.steer2edit(polyglot, *readings, **PAIR, random=1)
    for one, other in zip(made.changes, control.changes, strict=True):
        assert torch.equal(one.right, other.right)
        assert float(other.left.norm()) == pytest.approx(float(one.left.norm()))
        assert abs(float((one.left * other.left).sum())) < 0.4
    again = sl.steer2edit(polyglot, *readings, **PAIR, random=1)
    assert again.digest == control.digest != made.digest


@pytest.mark.parametrize("shape", ["gpt2", "gemma3", "llama"])
def test_every_shape_of_heads(
    lively: Callable[[str], Path], lines: Corpus, shape: str, tmp_path: Path
) -> None:
    """Grouped heads, Conv1D, and a norm behind the projection, before which the step is taken."""
    model = load(lively(shape))
    few = lines.select(["en", "de"]).split("estimate").take(4)
    readings = [sl.collect(model, few, site=site, also=[]) for site in SITES]
    weights = sl.steer2edit(model, *readings, **PAIR, rho_heads=1.0, rho_neurons=1.0, alpha=0.2)
    assert all(len(lams) == 4 for lams in weights.metadata["heads"].values())
    folder = weights.save(tmp_path / "edited")
    ids = torch.tensor([[1, 5, 6, 7]])
    with torch.inference_mode():
        with weights.on(model):
            wanted = model.hf(ids).logits
        assert torch.equal(load(folder).hf(ids).logits, wanted)
        assert not torch.equal(model.hf(ids).logits, wanted)


def test_what_is_no_reading_of_components_is_refused(polyglot, readings, moments):
    cases: list[tuple[Any, dict[str, Any], str]] = [
        (
            (moments,),
            {},
            "steer2edit reads heads at attn_z and neurons at mlp_post, not resid_post",
        ),
        (readings, {"target": "fr"}, "nothing was read of 'fr'; there are"),
        (readings, {"rho_heads": 0.0}, "rho is 0.0; give a number above 0, or None"),
        (readings, {"alpha": 1.0}, "alpha is 1.0; give a share from 0 to below 1"),
        (readings[:1], {"rho_heads": None}, "neither heads nor neurons are left to change"),
    ]
    for given, options, refused in cases:
        with pytest.raises(SteerlabError, match=refused):
            sl.steer2edit(polyglot, *given, **{**PAIR, **options})


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("shape", ["gpt2", "gemma3", "llama"])
def test_by_name_hooks_do_what_the_weights_do(
    lively: Callable[[str], Path], lines: Corpus, site: str, shape: str
) -> None:
    """The same in float32, and baked the same weights."""
    model = load(lively(shape))
    few = lines.select(["de", "en"]).split("estimate").take(6)
    name, knob = ("steer2edit", "neurons") if site == "mlp_post" else ("steer2edit heads", "heads")
    penalties: dict[str, Any] = {"rho_heads": None, "rho_neurons": None, f"rho_{knob}": 1.5}
    weights = sl.steer2edit(
        model, sl.collect(model, few, site=site, also=[]), **PAIR, **penalties, alpha=0.2
    )
    step = sl.fit(name, model, few).between("en", "de")
    assert step.site == site
    edit = sl.edits.write_along(step, rho=1.5, alpha=0.2, positions="everywhere")
    ids = torch.tensor([[1, 5, 6, 7]])
    with torch.inference_mode():
        plain = model.hf(ids).logits
        with weights.on(model):
            wanted = model.hf(ids).logits
        with edit.on(model):
            hooked = model.forward(ids, torch.ones_like(ids, dtype=torch.bool))[0]
        with sl.bake(model, edit).on(model):
            baked = model.hf(ids).logits
    moved = (wanted - plain).abs().max()
    assert moved > 1e-2
    assert (hooked - wanted).abs().max() < 1e-4 * moved + 1e-5
    assert (baked - wanted).abs().max() < 1e-4 * moved + 1e-5


def test_what_writes_along_needs_what_was_read(polyglot: Model, lines: Corpus) -> None:
    few = lines.select(["en", "de"]).split("estimate").take(6)
    step = sl.fit("steer2edit", polyglot, few).between("en", "de")
    with pytest.raises(SteerlabError, match=r"write_along: nothing of 'de' agrees by more .*/√d"):
        sl.edits.write_along(step, rho=90.0, alpha=0.9)
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"rho": 0.0}, "rho is 0.0; give a number above 0"),
        ({"alpha": 1.0}, "alpha is 1.0; give a share from 0 to below 1"),
        ({"strength": math.nan}, "strength is nan"),
    ]
    for options, told in wrong:
        with pytest.raises(SteerlabError, match=told):
            sl.edits.write_along(step, **options)
    plain = sl.fit("diffmean", polyglot, few, layers=[3]).between("en", "de")
    with pytest.raises(SteerlabError, match="write_along needs the agreement, .* fit with steer2e"):
        sl.edits.write_along(plain)


def test_by_name_in_a_sweep(polyglot: Model, lines: Corpus) -> None:
    options: dict[str, Any] = {"targets": ["de"], "limit": 4, "new_tokens": 6}
    rows = sl.sweep(
        polyglot,
        lines.select(["en", "de"]),
        estimators=["steer2edit", "steer2edit heads"],
        operators={"write_along": [8.0, 2.0]},
        **options,
    )
    assert not rows.attrs.get("failed")
    assert set(rows["method"]) == {"steer2edit_write_along", "steer2edit heads_write_along"}
    assert set(rows["site"]) == {"mlp_post", "attn_z"}
    doses = rows.groupby(["method", "strength"])["displacement"].mean().unstack()
    assert (doses[2.0] > doses[8.0]).all()
    assert rows.attrs["fit"]["steer2edit"]["tokens"] > 0
