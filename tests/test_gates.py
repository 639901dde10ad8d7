"""Gates: open, shut, cached, padded, stacked; and what is no gate."""

import pickle
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from by_hand import SITE_OF, with_units
from conftest import PROMPTS
from edits_by_hand import WIDTH, Fake, direction, randn, same_bits, steer, where
from torch import Tensor

from steerlab.core.errors import SteerlabError
from steerlab.edits import OPERATORS, Edit, add, gate, gates, slerp, stack
from steerlab.edits.edit import edit as edit_of
from steerlab.edits.twins import Twin, twin_of
from steerlab.engine.cross_entropy import cross_entropy
from steerlab.engine.decoding import decode
from steerlab.engine.prompts import encode, pad

STEP = direction()
EDIT = add(STEP)
NEW = 6


def always(h: Tensor) -> Tensor:
    return torch.ones(h.shape[:2])


def never(h: Tensor) -> Tensor:
    return torch.zeros(len(h), 1)


def every_second(h: Tensor, positions: Any) -> Tensor:
    return (torch.arange(h.shape[1]) % 2).expand(h.shape[:2])


def plain(h: Tensor, places: Any = None) -> Tensor:
    return steer(Edit(()), h, places)


@pytest.mark.parametrize("make", [add, slerp])
def test_always_open_is_the_edit_to_the_last_bit(make: Any) -> None:
    h, edit = 3 * randn(4, 6, WIDTH), make(STEP)
    for decode_step in (False, True):
        places = where(4, 6, decode=decode_step)
        counted = []
        for each in (edit, edit.when(always)):
            with each.on(fake := Fake()) as stats:
                new = fake(h, places)
            counted.append((stats.prefill, stats.decode, stats.doses(4).tolist()))
            assert same_bits(new, steer(edit, h, places))
        assert counted[0] == counted[1]


def test_always_shut_raises() -> None:
    fake = Fake()
    shut = EDIT.when(never)
    with (
        pytest.raises(SteerlabError, match=r"touched no position \(positions: all; gates: never\)"),
        shut.on(fake),
    ):
        assert same_bits(fake(randn(2, 5, WIDTH), where(2, 5)), plain(randn(2, 5, WIDTH)))


def test_where_a_gate_is_shut_no_bit_changes_and_nothing_is_counted() -> None:
    h, places = 3 * randn(4, 6, WIDTH), where(4, 6)
    edit = EDIT.when(every_second)
    with edit.on(fake := Fake()) as stats:
        new = fake(h, places)
    open_ = places.text & (torch.arange(6) % 2 == 1)
    assert same_bits(new[~open_], plain(h, places)[~open_])
    assert same_bits(new[open_], steer(EDIT, h, places)[open_])
    assert stats.prefill == {2: int(open_.sum())}


def test_factors_scale_what_is_added() -> None:
    h, places = 3 * randn(2, 5, WIDTH), where(2, 5)
    half = steer(EDIT.when(lambda h: torch.full(h.shape[:2], 0.5)), h, places)
    torch.testing.assert_close(half, steer(add(STEP, strength=0.5), h, places))


def test_positive_opens_where_h_leans_to_the_direction() -> None:
    h, places = 3 * randn(4, 6, WIDTH), where(4, 6)
    seen: list[Tensor] = []
    fake = Fake()
    with fake.attached([("resid_post", 2, lambda x, _: seen.append(x))]):
        fake(h, places)
    along = seen[0] @ STEP.unit[0]
    half_way = float(STEP.unit[0] @ STEP.start[0] + 0.5 * STEP.gap[0])
    for made, level in (
        (gates.positive(STEP), 0.0),
        (gates.positive(STEP, level=0.5), half_way),
    ):
        new = steer(EDIT.when(made), h, places)
        open_ = places.text & (along > level)
        assert same_bits(new[~open_], plain(h, places)[~open_])
        assert same_bits(new[open_], steer(EDIT, h, places)[open_])
    assert 0 < int((along > 0).sum()) < along.numel()


def test_latents_is_what_the_operator_gate_does() -> None:
    h, places = 3 * randn(4, 6, WIDTH), where(4, 6)
    step = with_units(direction(rank=2))
    with gate(step).on(one := Fake()) as wanted:
        both = one(h, places)
    moved = steer(add(step).when(gates.latents(step)), h, places)
    torch.testing.assert_close(moved, both)
    assert not torch.allclose(both, plain(h, places))
    assert wanted.passes == 1


def test_sic_is_flexacs_intensity() -> None:
    h, places = 3 * randn(4, 6, WIDTH), where(4, 6)
    seen: list[Tensor] = []
    fake = Fake()
    with fake.attached([("resid_post", 2, lambda x, _: seen.append(x))]):
        fake(h, places)
    cosine = torch.nn.functional.cosine_similarity(seen[0], STEP.unit[0].expand(4, 6, -1), dim=-1)
    factor = torch.sigmoid((-cosine).clamp(min=0))
    assert float(factor.min()) == 0.5
    assert 0.5 < float(factor.max()) < 0.7311
    wanted = seen[0] + factor[..., None] * (STEP.gap[0] * STEP.unit[0])
    with EDIT.when(gates.sic(STEP)).on(fake), fake.attached(fake.changes):
        pass
    seen_after: list[Tensor] = []
    looking = Fake()
    edit = EDIT.when(gates.sic(STEP))
    with edit.on(looking):
        looking.changes = [
            *looking.changes,
            ("resid_post", 2, lambda x, _: seen_after.append(x)),
        ]
        looking(h, places)
    torch.testing.assert_close(seen_after[0][places.text], wanted[places.text])


# ------------------------------------------------------------------------------ on a real model


@pytest.fixture(scope="module")
def step(directions: Any) -> Any:
    return directions.between("en", "de").at(4)


def _look(seen: list[Tensor], h: Tensor, _: Any) -> None:
    seen.append(h)


def outputs(model: Any, edit: Edit | None, prompts: Any = PROMPTS) -> list[str]:
    return decode(model, prompts, edit=edit, max_new_tokens=NEW, one_line=False).texts


def test_the_verdict_on_the_prompt_holds_in_what_is_generated(polyglot: Any, step: Any) -> None:
    """Through cached decoding, in a padded batch, alone and in a stack: a row is as under the edit,
    or as without it, from its first token to its last."""
    prompts = [*PROMPTS, "Das Wetter ist heute schön.\n", "Wir essen Brot mit Butter.\n"]
    edit = add(step, strength=1.5)
    under, without = outputs(polyglot, edit, prompts), outputs(polyglot, None, prompts)
    cosines = []
    for row in encode(polyglot.tokenizer, prompts):
        seen: list[Tensor] = []
        look = partial(_look, seen)
        with polyglot.attached([("resid_post", 4, look)]), torch.no_grad():
            tokens, mask = pad([row], polyglot.padding, polyglot.device)
            polyglot.body(tokens, mask)
        mean, unit = seen[0][0, 1:].mean(0), step.unit[0]
        goal = torch.tanh((mean @ unit) * unit)
        cosines.append(float(torch.nn.functional.cosine_similarity(mean, goal, dim=0)))
    threshold = sorted(cosines)[len(cosines) // 2] - 1e-4
    opens = [cosine > threshold for cosine in cosines]
    assert 0 < sum(opens) < len(opens)
    wanted = [a if is_open else b for a, b, is_open in zip(under, without, opens, strict=True)]
    gated = edit.when(gates.like(step, threshold))
    assert outputs(polyglot, gated, prompts) == wanted
    other_way = edit.when(gates.like(step, threshold, above=False))
    swapped = [b if is_open else a for a, b, is_open in zip(under, without, opens, strict=True)]
    assert outputs(polyglot, other_way, prompts) == swapped
    mixed = [gated if number % 2 else edit for number in range(len(prompts))]
    found = outputs(polyglot, stack(mixed), prompts)
    assert found == [
        wanted[number] if number % 2 else under[number] for number in range(len(prompts))
    ]
    ids, mask = pad(encode(polyglot.tokenizer, prompts), 0, polyglot.device)
    for way in ({}, {"use_cache": False}):
        with gated.on(polyglot):
            out = polyglot.hf.generate(
                ids, attention_mask=mask.long(), max_new_tokens=NEW, do_sample=False, **way
            )
        said = polyglot.tokenizer.batch_decode(out[:, ids.shape[1] :], skip_special_tokens=True)
        assert said == wanted


def test_after_counts_generated_tokens(polyglot: Any, step: Any) -> None:
    """Of each row by itself, with a cache and without, where rows end at different steps."""
    edit, ours = add(step, strength=2.0), polyglot.tokenizer
    without = outputs(polyglot, None)
    ids, mask = pad(encode(ours, PROMPTS), 0, polyglot.device)
    options: Any = {"attention_mask": mask.long(), "max_new_tokens": NEW, "do_sample": False}
    unsteered = polyglot.hf.generate(ids, **options)[:, ids.shape[1] :]
    for n in (0, 2, 4):
        gated = edit.when(gates.after(n))
        with gated.on(polyglot) as stats:
            out = polyglot.hf.generate(ids, **options)[:, ids.shape[1] :]
        assert torch.equal(out[:, : n + 1], unsteered[:, : n + 1]), "the first n + 1 are its own"
        assert stats.prefill == {4: 0}
        assert stats.decode == {4: len(PROMPTS) * (NEW - 1 - n)}
        with gated.on(polyglot):
            again = polyglot.hf.generate(ids, use_cache=False, **options)[:, ids.shape[1] :]
        assert torch.equal(again, out)
        assert outputs(polyglot, gated) == ours.batch_decode(out, skip_special_tokens=True)
    first = outputs(polyglot, edit.when(gates.after(0)))
    assert first == outputs(polyglot, add(step, strength=2.0, positions="generated"))
    assert first != without
    with pytest.raises(SteerlabError, match="touched no position .*gates: after"):
        outputs(polyglot, edit.when(gates.after(NEW)))


def test_an_open_gate_changes_no_output_and_no_cross_entropy(polyglot: Any, step: Any) -> None:
    edit = add(step)
    assert outputs(polyglot, edit.when(always)) == outputs(polyglot, edit)
    wanted = cross_entropy(polyglot, PROMPTS, [edit, Edit(())])
    found = cross_entropy(polyglot, PROMPTS, [edit.when(always), edit.when(gates.sic(step))])
    assert torch.equal(found[0], wanted[0])
    assert not torch.equal(found[1], wanted[0])
    assert not torch.equal(found[1], wanted[1])


# ---------------------------------------------------------------------------------- as values


def test_gates_are_part_of_what_an_edit_is() -> None:
    made = [
        EDIT,
        EDIT.when(gates.positive(STEP)),
        EDIT.when(gates.positive(STEP, level=0.5)),
        EDIT.when(gates.sic(STEP)),
        EDIT.when(gates.after(1)),
        EDIT.when(gates.after(2)),
        EDIT.when(always),
        EDIT.when(never),
    ]
    assert len({each.digest for each in made}) == len(made)
    assert EDIT.when(gates.after(1)) == EDIT.when(gates.after(1)) != EDIT.when(gates.after(2))
    for each in made:
        back = pickle.loads(pickle.dumps(each))
        assert (back.digest, back == each) == (each.digest, True)


def test_rows_of_a_stack_have_their_own_gates() -> None:
    h, places = 3 * randn(6, 6, WIDTH), where(6, 6)
    edits = [
        EDIT.when(gates.positive(STEP)),
        EDIT,
        EDIT.when(gates.positive(STEP, level=0.5)),
        slerp(STEP).when(gates.sic(STEP)),
        EDIT.when(every_second),
        Edit(()),
    ]
    new = steer(stack(edits), h, places)
    for row, edit in enumerate(edits):
        if edit.parts:
            assert same_bits(new[row], steer(edit, h, places)[row])
    assert same_bits(new[5], plain(h, places)[5])


def test_a_twin_stands_behind_the_same_gate() -> None:
    gated = EDIT.when(gates.positive(STEP))
    for kind in ("operator", "shift"):
        made = twin_of(gated, Twin(1, kind=kind), widths={"resid_post": WIDTH})
        [part], [own] = made.parts, gated.parts
        assert part.gate is own.gate
        assert torch.equal(part.tensors["gate unit"], own.tensors["gate unit"])
        assert not torch.equal(part.tensors["shift"], own.tensors["shift"])


def test_plain_hooks_have_gates_that_need_no_positions() -> None:
    h = 3 * randn(2, 5, WIDTH)
    [(_, hook)] = EDIT.when(gates.positive(STEP)).hooks(bos=False)
    open_ = h @ STEP.unit[0] > 0
    new = hook(h)
    assert torch.equal(new[~open_], h[~open_])
    torch.testing.assert_close(new[open_], (h + STEP.gap[0] * STEP.unit[0])[open_])
    for made in (gates.after(1), gates.like(STEP, 0.1), every_second):
        [(_, blind)] = EDIT.when(made).hooks(bos=False)
        with pytest.raises(SteerlabError, match="has no positions to give to the gate"):
            blind(h)


def test_a_users_own_function_of_h_may_have_a_gate() -> None:
    h, places = 3 * randn(2, 5, WIDTH), where(2, 5)

    def louder(h: Tensor, tensors: Any) -> Tensor:
        assert set(tensors) == {"share"}, "the gate's tensors are its own"
        return tensors["share"] * h

    own = edit_of(louder, layer=2, tensors={"share": 0.5})
    new = steer(own.when(gates.positive(STEP)), h, places)
    open_ = (new != plain(h, places)).any(-1)
    assert 0 < int(open_.sum()) < int(places.text.sum())
    assert same_bits(new[open_], steer(own, h, places)[open_])


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: EDIT.when(3), "a gate is needed, not a int; give one of sl.edits.gates"),
        (lambda: EDIT.when(STEP), "a gate is needed, not a Direction"),
        (lambda: EDIT.when(lambda a, b, c: a), r"takes \(h\) or \(h, positions\), not 3 values"),
        (lambda: Edit(()).when(always), "the edit has no parts"),
        (lambda: stack([EDIT]).when(always), "a stack has no gate; give each of its edits one"),
        (lambda: EDIT.when(always).when(never), "has the gate always already"),
        (lambda: EDIT.when(gates.positive(direction(layers=(3,)))), "is of the layers 3, and the"),
        (
            lambda: EDIT.when(gates.positive(direction(site="resid_pre"))),
            "reads resid_pre, and the edit acts at resid_post",
        ),
        (lambda: gates.after(-1), r"after\(-1\): give a number of generated tokens"),
        (lambda: gates.after(True), r"after\(True\)"),
        (lambda: gates.like(STEP, float("nan")), "threshold is nan"),
        (lambda: gates.latents(STEP), "needs the .* that gated fits"),
        (lambda: run(lambda h: h), r"gave \[2, 5, 16\], and there are \[2, 5\] positions"),
        (lambda: run(lambda h: torch.ones(5)), r"gave \[5\], and there are \[2, 5\]"),
        (lambda: run(lambda h: 1.0), "gave float, and there are"),
        (lambda: run(lambda h: torch.full(h.shape[:2], torch.nan)), "gave NaN or infinity"),
        (lambda: run(gates.like(STEP, 0.0), decode=True), "has seen none of a row"),
    ],
)
def test_what_is_no_gate_is_told(make: Any, told: str) -> None:
    with pytest.raises(SteerlabError, match=told):
        make()


def run(made: Any, *, decode: bool = False) -> None:
    """Run an edit behind a gate."""
    steer(EDIT.when(made), randn(2, 5, WIDTH), where(2, 5, decode=decode))


def test_what_padding_holds_does_not_matter() -> None:
    h, places = 3 * randn(2, 6, WIDTH), where(2, 6)
    broken = h.clone()
    broken[~places.text] = torch.nan
    for made in (
        gates.positive(STEP),
        gates.sic(STEP),
        gates.like(STEP, -0.9),
        gates.latents(with_units(direction(rank=2))),
    ):
        new, kept = (steer(EDIT.when(made), x, places) for x in (broken, h))
        assert same_bits(new[places.text], kept[places.text])


def test_every_operator_takes_a_gate() -> None:
    h, places = 3 * randn(2, 5, WIDTH), where(2, 5)
    for name, record in OPERATORS.items():
        if record.units == "neurons":
            continue
        step = with_units(direction(layers=(0, 1, 2, 3), rank=2, site=SITE_OF[record.units]))
        edit = record.make(step, **{record.knob: record.grid[0]})
        assert same_bits(steer(edit.when(always), h, places), steer(edit, h, places)), name
        assert replace(edit.when(always).parts[0], gate=None) == edit.parts[0]
