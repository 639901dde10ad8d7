"""Edits of latents and neurons are their formulas, nothing at their zero, and the same in a
stack as alone."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from by_hand import SITE_OF, with_units
from conftest import PROMPTS
from torch import Tensor

import steerlab.edits as edits
from steerlab.core.directions import Direction, Directions
from steerlab.core.errors import SteerlabError
from steerlab.edits import (
    OPERATORS,
    Edit,
    add_code,
    clamp,
    gate,
    neuron_add,
    neuron_set,
    neuron_zero,
    signed_shift,
    stack,
    steer,
)
from steerlab.engine.prompts import encode, pad
from steerlab.models.model import Model

WIDTH = 16
UNITS = tuple(name for name, told in OPERATORS.items() if told.units)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def direction(
    seed: int = 0, *, site: str = "resid_post", layers: tuple[int, ...] = (2,), rank: int = 3
) -> Direction:
    start, step = (
        randn(len(layers), WIDTH, seed=seed) * 3,
        randn(len(layers), WIDTH, seed=seed + 50),
    )
    gap = step.norm(dim=-1)
    basis = (step / gap[:, None])[:, None]
    return with_units(
        Direction("de", "en", layers, site, step / gap[:, None], gap, start, basis), seed, rank=rank
    )


def of(name: str, seed: int = 0, **other: Any) -> Direction:
    return direction(seed, site=SITE_OF[OPERATORS[name].units], **other)


def done(edit: Edit, h: Tensor) -> Tensor:
    """What the parts of an edit make of h [row pos width], one after the other."""
    for part in edit.parts:
        rows = slice(None) if part.rows is None else part.rows
        if not part.identity:
            h = h.clone()
            h[rows] = h[rows] + part.change(h[rows], part.tensors, None)
    return h


def latents(found: Any, h: Tensor) -> Tensor:
    """As an SAE reads them, written out for each unit."""
    pre = torch.stack(
        [h @ row + bias for row, bias in zip(found["encoder"][0], found["bias"][0], strict=True)],
        -1,
    )
    return torch.where(pre > found["threshold"][0], pre.clamp(min=0), torch.zeros(()))


h = randn(3, 40, WIDTH, seed=7)


# ------------------------------------------------------------------------------------------ neurons


def test_neurons_are_added_to_set_and_zeroed() -> None:
    step = of("neuron_add")
    mask, values, rest = (step.extra[name][0] for name in ("mask", "values", "rest"))
    theirs = step.source_extra["mask"][0].bool() & ~mask.bool()
    assert theirs.any()
    assert (step.source_extra["mask"][0].bool() & mask.bool()).any(), "some serve both"
    quiet = h.masked_fill(theirs, 0)
    inside = lambda new: torch.where(mask.bool(), new, h)  # noqa: E731
    hushed = lambda new: torch.where(mask.bool(), new, quiet)  # noqa: E731
    for edit, expected in (
        (neuron_add(step, strength=0.7), h + 0.7 * mask * values),
        (neuron_add(step, strength=0.7, against="rest"), h + 0.7 * mask * (values - rest)),
        (neuron_add(step, strength=0.7, silence=True), quiet + 0.7 * mask * values),
        (neuron_add(step, strength=0.0, silence=True), quiet),
        (neuron_set(step, scale=1.5), inside((1.5 * values).expand_as(h))),
        (neuron_set(step, scale=1.5, silence=True), hushed((1.5 * values).expand_as(h))),
        (neuron_set(step, fraction=0.5), inside(h / 2 + values / 2)),
        (neuron_zero(step), h.masked_fill(mask.bool(), 0)),
        (neuron_zero(step, fraction=0.25), inside(0.75 * h)),
    ):
        torch.testing.assert_close(done(edit, h), expected, atol=1e-5, rtol=1e-5)
        assert not edit.parts[0].identity
    for edit in (neuron_set(step), neuron_zero(step)):
        torch.testing.assert_close(done(edit, done(edit, h)), done(edit, h))


# ------------------------------------------------------------------------------------------ latents


def test_a_clamp_sets_latents_and_leaves_what_they_do_not_explain() -> None:
    step = of("clamp")
    found = step.extra
    before, decoder, level = latents(found, h), found["decoder"][0], found["level"][0]
    assert 0.1 < float((before > 0).float().mean()) < 0.9, "some are on and some off"
    for edit, expected in (
        (clamp(step, level=1.5), h + (1.5 * level - before) @ decoder),
        (clamp(step, level=0.0), h - before @ decoder),
        (clamp(step, level=2.0, fraction=0.25), h + 0.25 * (2 * level - before) @ decoder),
    ):
        torch.testing.assert_close(done(edit, h), expected, atol=1e-4, rtol=1e-4)
    outside = torch.linalg.svd(decoder)[2][3:]
    torch.testing.assert_close(
        done(clamp(step), h) @ outside.T, h @ outside.T, atol=1e-5, rtol=1e-4
    )


def test_a_code_is_added_to_latents_and_the_rest_stays() -> None:
    """Up, and down to 0 and no further; what the dictionary does not explain is as it was."""
    step = of("add_code")
    found = step.extra
    z, decoder, code = latents(found, h), found["decoder"][0], found["code"][0]
    for strength in (1.5, -1.5):
        expected = h + ((z + strength * code).clamp(min=0) - z) @ decoder
        got = done(add_code(step, strength=strength), h)
        torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(got, h - 1.5 * code @ decoder, atol=1e-2), "down it stops at 0"
    outside = torch.linalg.svd(decoder)[2][3:]
    torch.testing.assert_close(got @ outside.T, h @ outside.T, atol=1e-5, rtol=1e-4)


def test_a_clamp_of_a_tied_orthonormal_dictionary_is_exact() -> None:
    """There what is written is what is read: the latents become their levels, and doing it twice
    is doing it once."""
    rows = torch.linalg.qr(randn(WIDTH, 3))[0].T[None].contiguous()
    step = of("clamp")
    step = replace(
        step, extra={**step.extra, "encoder": rows, "decoder": rows, "bias": torch.zeros(1, 3)}
    )
    once = done(clamp(step, level=2.0), h)
    on = latents(step.extra, h) > 0
    reached = (once @ rows[0].T)[on]
    torch.testing.assert_close(
        reached, (2 * step.extra["level"][0]).expand_as(on)[on], atol=1e-4, rtol=1e-4
    )
    positive = h @ rows[0].T > 0
    torch.testing.assert_close(
        done(clamp(step, level=2.0), once)[on.all(-1)], once[on.all(-1)], atol=1e-4, rtol=1e-4
    )
    assert (positive & ~on).any(), "the threshold matters: what is below it counts as 0"


def test_a_gate_opens_only_where_the_source_is() -> None:
    step = of("gate")
    moved = (done(gate(step, strength=0.8), h) - h).norm(dim=-1)
    is_open = (latents(step.source_extra, h) > 0).any(-1)
    assert 0.2 < float(is_open.float().mean()) < 0.95
    assert torch.equal(moved > 0, is_open)
    torch.testing.assert_close(moved[is_open], (0.8 * step.gap).expand_as(moved)[is_open])
    wide_open = {**step.source_extra, "bias": step.source_extra["bias"] + 1e4}
    always = done(gate(replace(step, source_extra=wide_open)), h)
    torch.testing.assert_close(
        always, h + step.gap * step.unit[0], msg="an open gate is plain addition"
    )


def test_a_push_alone_is_a_constant_shift() -> None:
    step = of("signed_shift")
    shift = 1.7 * step.extra["push"][0] @ step.extra["decoder"][0]
    moved = done(signed_shift(step, push=1.7), h) - h
    torch.testing.assert_close(moved, shift.expand_as(h), atol=1e-5, rtol=1e-4)


def test_a_pull_takes_the_prototype_out_of_the_latents() -> None:
    step = of("signed_shift")
    found = step.extra
    z, p, m, decoder = latents(found, h), found["push"][0], found["pull"][0], found["decoder"][0]
    for push, pull in ((0.0, 1.0), (2.0, 0.5)):
        after = z + push * p - pull * (z @ m)[..., None] / (m @ m) * m
        expected = h + (after - z) @ decoder
        torch.testing.assert_close(
            done(signed_shift(step, push=push, pull=pull), h), expected, atol=1e-4, rtol=1e-4
        )
    after = z - (z @ m)[..., None] / (m @ m) * m
    assert float((after @ m).abs().max()) < 1e-4, "pull 1 leaves nothing along the prototype"


def test_a_signed_shift_keeps_to_the_window() -> None:
    step = of("signed_shift", layers=(0, 1, 2, 3))
    window = torch.tensor([0.0, 1, 1, 0])
    windowed = replace(step, extra={**step.extra, "window": window})
    assert [part.layer for part in signed_shift(windowed, pull=0.5).parts] == [1, 2]
    with pytest.raises(
        SteerlabError, match="none of the layers 0, 3 is in the window of 'de'; take all layers"
    ):
        signed_shift(windowed.at(0, 3))


# --------------------------------------------------------------------------------------------- laws


@pytest.mark.parametrize("name", UNITS)
def test_a_stack_of_many_ranks_is_each_row_alone(name: str) -> None:
    """Rows of 1 to 6 units: what fills a smaller set up is never on and writes nothing."""
    ranks = [1, 6, 2, 1, 5]
    each = [
        OPERATORS[name].make(of(name, seed, rank=rank), **{OPERATORS[name].knob: 0.3 + seed})
        for seed, rank in enumerate(ranks)
    ]
    rows = randn(len(ranks), 30, WIDTH, seed=3)
    together = done(stack(each), rows)
    for row, edit in enumerate(each):
        torch.testing.assert_close(
            together[row], done(edit, rows[row : row + 1])[0], atol=1e-5, rtol=1e-5
        )
        assert not torch.equal(together[row], rows[row])
    [part] = stack(each).parts
    joined = {key: tuple(tensor.shape) for key, tensor in part.tensors.items()}
    if OPERATORS[name].units == "latents":
        assert joined["encoder"] == (5, 6, WIDTH)
        assert joined["threshold"] == (5, 6, 1)


def test_units_of_zeros_are_never_on_and_write_nothing() -> None:
    for name in ("clamp", "gate", "signed_shift", "add_code"):
        step = of(name, rank=2)
        pad = lambda units: {  # noqa: E731
            key: torch.nn.functional.pad(value, (0, 0, 0, 3) if value.ndim == 3 else (0, 3))
            if key in ("encoder", "decoder", "bias", "threshold", "level", "push", "pull", "code")
            else value
            for key, value in units.items()
        }
        padded = replace(step, extra=pad(step.extra), source_extra=pad(step.source_extra))
        knob = {OPERATORS[name].knob: 1.3} | ({"pull": 0.5} if name == "signed_shift" else {})
        one, other = (done(OPERATORS[name].make(given, **knob), h) for given in (step, padded))
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", UNITS)
def test_each_is_nothing_at_its_zero_and_only_there(name: str) -> None:
    told = OPERATORS[name]
    step = of(name)
    zero = told.make(step, **({told.knob: told.grid[0]} | dict(told.identity)))
    assert all(part.identity for part in zero.parts) == bool(told.identity), (
        "one that always acts has no zero"
    )
    for value in told.grid:
        edit = told.make(step, **{told.knob: value})
        assert not any(part.identity for part in edit.parts)
        assert not torch.equal(done(edit, h), h)
    if name == "signed_shift":
        assert not signed_shift(step, push=0.0, pull=0.5).parts[0].identity


def test_steer_takes_the_window_of_the_target() -> None:
    """Where another layer has nothing of the target, which `between` would refuse."""
    langs, layers = ("en", "de"), (0, 1, 2)
    vectors = randn(2, 3, WIDTH)
    vectors[:, 0] = 0
    steps = [with_units(direction(seed, layers=layers), seed) for seed in (1, 2)]
    extra = {name: torch.stack([step.extra[name] for step in steps]) for name in steps[0].extra}
    extra["window"] = torch.tensor([[0.0, 0, 0], [0, 1, 1]])
    made = Directions(
        vectors, vectors[:, :, None], randn(2, 3, WIDTH, seed=9), langs, layers, "resid_post", "en"
    )
    made = replace(made, extra=extra)
    with pytest.raises(SteerlabError, match=r"the direction to 'de' is zero at layers \[0\]"):
        made.between("en", "de")
    edit = steer("signed_shift", made, 2.0, source="en", target="de", layer=0)
    assert [part.layer for part in edit.parts] == [1, 2]
    expected = extra["push"][1, 1] @ extra["decoder"][1, 1] * 2
    torch.testing.assert_close(edit.parts[0].tensors["shift"][0], expected)
    with pytest.raises(SteerlabError, match="no direction for 'fr'"):
        steer("signed_shift", made, 2.0, source="en", target="fr")


# ----------------------------------------------------------------------------------- on real models


def wide(model: Model, name: str, *, layers: tuple[int, ...], seed: int = 0) -> Direction:
    """With units of the width that a model has where an operator acts."""
    site = SITE_OF[OPERATORS[name].units]
    start, step = (
        randn(len(layers), model.width_of(site), seed=seed + number) for number in range(2)
    )
    gap = step.norm(dim=-1)
    return with_units(
        Direction("de", "en", layers, site, step / gap[:, None], gap, start, step[:, None]), seed
    )


@torch.inference_mode()
def logits(model: Model, edit: Edit, rows: list[int]) -> Tensor:
    ids, mask = pad(
        encode(model.tokenizer, [PROMPTS[row] for row in rows]),
        model.tokenizer.pad_token_id,
        model.device,
    )
    with edit.on(model):
        return model.forward(ids, mask, last=1)[0][:, 0]


@pytest.mark.parametrize("shape", ["llama", "gpt2"])
def test_an_mlp_of_zeroed_neurons_writes_nothing_but_its_bias(
    shape: str, shaped: Callable[[str], Model]
) -> None:
    model, seen = shaped(shape), []
    step = wide(model, "neuron_zero", layers=(1,))
    step = replace(step, extra={**step.extra, "mask": torch.ones_like(step.extra["mask"])})
    mlp: Any = model.blocks[1].mlp
    handle = mlp.register_forward_hook(lambda *found: seen.append(found[2]))
    for edit in (neuron_zero(step), neuron_zero(step, fraction=0.0)):
        logits(model, edit, [0])
    handle.remove()
    silent, plain = seen
    bias = mlp.c_proj.bias.detach() if shape == "gpt2" else torch.zeros(model.width)
    torch.testing.assert_close(silent[0, 1:], bias.expand_as(silent[0, 1:]), atol=1e-6, rtol=1e-6)
    assert float((plain[0, 1:] - bias).norm(dim=-1).min()) > 0.1
    assert torch.equal(silent[0, 0], plain[0, 0]), "BOS is left alone"


def test_rows_of_every_operator_go_together_through_a_model(shaped: Callable[[str], Model]) -> None:
    """Each at its site and rank, some at the same place; and at their zeros not one bit moves."""
    model = shaped("llama")
    # Those of experts need a model of experts (test_experts.py).
    base = [name for name in UNITS if name in edits.__all__ and OPERATORS[name].units != "experts"]
    for names in (base[:4], base[2:6], base[-4:]):
        each = [
            OPERATORS[name].make(wide(model, name, layers=(1, 2), seed=row))
            for row, name in enumerate(names)
        ]
        together, plain = (
            logits(model, stack(each), [0, 1, 2, 3]),
            logits(model, Edit(()), [0, 1, 2, 3]),
        )
        for row, edit in enumerate(each):
            alone = logits(model, edit, [row])[0]
            torch.testing.assert_close(together[row], alone, atol=1e-3, rtol=1e-3)
            assert not torch.allclose(alone, plain[row], atol=1e-2)
        zeros = [
            OPERATORS[name].make(wide(model, name, layers=(1,)), **OPERATORS[name].identity)
            for name in names
        ]
        assert torch.equal(logits(model, stack(zeros), [0, 1, 2, 3]), plain)


# ---------------------------------------------------------------------------------- what is refused


def without(step: Direction, *names: str, source: bool = False) -> Direction:
    kept = lambda given: {name: value for name, value in given.items() if name not in names}  # noqa: E731
    return (
        replace(step, source_extra=kept(step.source_extra))
        if source
        else replace(step, extra=kept(step.extra))
    )


def emptied(step: Direction, name: str, *, source: bool = False) -> Direction:
    """The units of the first layer taken away."""
    given = step.source_extra if source else step.extra
    value = given[name].clone()
    value[0] = 0
    changed = {**given, name: value}
    return replace(step, source_extra=changed) if source else replace(step, extra=changed)


def refusals() -> list[tuple[Callable[[], Edit], str]]:
    neurons, units = of("neuron_add", layers=(1, 2)), of("clamp", layers=(1, 2))
    nan, residual = float("nan"), direction()
    still = replace(units, gap=units.gap * 0)
    return [
        (
            lambda: neuron_add(residual),
            "neuron_add edits neurons, at mlp_post, and this direction to 'de' is of resid_p",
        ),
        (
            lambda: neuron_set(without(neurons, "values")),
            "neuron_set needs the values that masked fits, .*fit with mas",
        ),
        (
            lambda: neuron_add(without(neurons, "rest"), against="rest"),
            "neuron_add needs the rest that masked fits",
        ),
        (
            lambda: neuron_add(neurons, against="all"),
            "as they are .against=None. or less the 'rest', not 'all'",
        ),
        (
            lambda: neuron_zero(emptied(neurons.at(1), "mask")),
            "neuron_zero: 'de' has no neuron at layers 1, so that",
        ),
        (
            lambda: neuron_add(emptied(neurons.at(1), "mask", source=True), silence=True),
            "'en' has no neuron at layers 1",
        ),
        (
            lambda: neuron_set(replace(neurons, source=None), silence=True),
            "asks what is the source's own, .*between",
        ),
        (lambda: neuron_add(neurons, strength=nan), "strength is nan; give a finite number"),
        (lambda: neuron_set(neurons, scale=nan), "scale is nan; give a finite number"),
        (lambda: neuron_zero(neurons, fraction=nan), "fraction is nan; give a finite number"),
        (
            lambda: clamp(without(units, "encoder", "level")),
            "clamp needs the encoder, level that decoded fits",
        ),
        (
            lambda: clamp(emptied(units, "decoder")),
            "clamp: 'de' has no unit at layers 1, .* leave these layers out",
        ),
        (lambda: clamp(units, level=nan), "level is nan; give a finite number"),
        (
            lambda: gate(replace(units, source=None)),
            "gate asks what is the source's own, .*take directions.between",
        ),
        (
            lambda: gate(without(units, "bias", source=True)),
            "gate needs the bias that gated fits, .* none of 'en'",
        ),
        (
            lambda: gate(emptied(units, "encoder", source=True)),
            "gate: 'en' has no unit at layers 1",
        ),
        (lambda: gate(still), "the direction to 'de' is zero at some layer; leave that layer out"),
        (
            lambda: signed_shift(without(units, "window")),
            "signed_shift needs the window that signed fits",
        ),
        (
            lambda: signed_shift(without(units, "push")),
            "signed_shift needs the push that signed fits",
        ),
        (
            lambda: signed_shift(emptied(units, "decoder")),
            "signed_shift: 'de' has no unit at layers 1",
        ),
        (lambda: signed_shift(units, pull=nan), "pull is nan; give a finite number"),
    ]


@pytest.mark.parametrize("number", range(len(refusals())))
def test_what_a_direction_lacks_is_said(number: int) -> None:
    make, told = refusals()[number]
    with pytest.raises(SteerlabError, match=told):
        make()


def test_layers_without_neurons_are_left_alone_and_the_source_is_silenced_at_all_of_its_own() -> (
    None
):
    step = of("neuron_add", layers=(1, 2))
    step = replace(
        step, source_extra={**step.source_extra, "mask": torch.ones_like(step.extra["mask"])}
    )
    some = emptied(step, "mask")  # at layer 1 the target has none
    assert [part.layer for part in neuron_add(some).parts] == [2]
    assert [part.layer for part in neuron_zero(some).parts] == [2]
    first, second = neuron_add(some, silence=True).parts
    assert (first.layer, second.layer) == (1, 2)
    assert torch.equal(first.tensors["weight"][0], torch.ones(WIDTH))
    assert not first.tensors["shift"].any()
    assert torch.equal(second.tensors["weight"], 1 - some.extra["mask"][1:])
    still = replace(some, extra={**some.extra, "values": 0 * some.extra["values"]})
    with pytest.raises(
        SteerlabError,
        match="neuron_add: the neurons of 'de' have values of 0, so that nothing would",
    ):
        neuron_add(still)


def test_a_pull_of_nothing_is_no_division_by_zero() -> None:
    step = of("signed_shift")
    same = replace(step, extra={**step.extra, "pull": 0 * step.extra["pull"]})
    torch.testing.assert_close(done(signed_shift(same, pull=3.0), h), done(signed_shift(same), h))


def test_every_operator_of_units_says_so_and_no_other() -> None:
    assert {name for name in edits.__all__ if name in UNITS} == {
        *("neuron_add", "neuron_set", "neuron_zero", "scale_units"),
        *("clamp", "gate", "signed_shift", "add_code"),
        "route",
    }
    for name in UNITS:
        edit = OPERATORS[name].make(of(name), **{OPERATORS[name].knob: 1.0})
        assert {part.site for part in edit.parts} == {SITE_OF[OPERATORS[name].units]}


def test_a_layer_where_the_source_has_no_neuron_still_gets_the_targets() -> None:
    step = emptied(of("neuron_add", layers=(1, 2)), "mask", source=True)
    quiet, plain = neuron_add(step, silence=True), neuron_add(step)
    for place, same in ((0, True), (1, False)):
        weights = [edit.parts[place].tensors["weight"] for edit in (quiet, plain)]
        assert torch.equal(*weights) == same
