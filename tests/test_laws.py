"""Laws of edits on a real model: how they compose, nest, stack and come to nothing, and that
nothing stays behind."""

import contextlib
import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from by_hand import EVERY, Row, Step, differing, edit_of, equipped
from conftest import ALL_SHAPES, PROMPTS, RESIDUAL, random_directions
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from steerlab.core.directions import Direction
from steerlab.core.errors import SteerlabError
from steerlab.core.sites import SITES
from steerlab.edits import POSITIONS, Edit, ablate, add, detour, rotate, stack
from steerlab.engine.cross_entropy import cross_entropy
from steerlab.engine.decoding import decode, generate
from steerlab.engine.prompts import encode, pad
from steerlab.models.loading import load
from steerlab.models.model import Model

Shaped = Callable[[str], Model]
law = settings(deadline=None, max_examples=8)
slow_law = settings(
    deadline=None, max_examples=4, phases=[Phase.explicit, Phase.reuse, Phase.generate]
)  # no shrinking
ROWS, NEW = len(PROMPTS), 6


@pytest.fixture(scope="module")
def model(shaped: Shaped) -> Model:
    return shaped("llama")


@functools.cache
def direction_of(model: Model, seed: int, site: str) -> Direction:
    return equipped(random_directions(model, site=site, seed=seed).between("en", "es"), seed)


# An edit in words; a test makes it of its model's directions.
words = st.fixed_dictionaries(
    {
        "operator": st.sampled_from(EVERY),
        "size": st.sampled_from([0.3, 0.7, 1.0]),
        "positions": st.sampled_from(POSITIONS[:2]),
        "site": st.sampled_from(SITES),
        "layers": st.sampled_from([(0,), (1,), (2,), (0, 2), (2, 1)]),
        "seed": st.integers(0, 3),
    }
)
Words = dict[str, Any]
each_row = st.lists(words, min_size=ROWS, max_size=ROWS)


def step_in(model: Model, word: Words, **other: Any) -> Step:
    told = word | other
    direction = direction_of(model, told["seed"], told["site"]).at(*told["layers"])
    return Step(told["operator"], direction, told["size"], told["positions"])


def made(model: Model, word: Words, **other: Any) -> Edit:
    return step_in(model, word, **other).edit


@functools.cache
def batch(model: Model) -> tuple[torch.Tensor, torch.Tensor]:
    return pad(encode(model.tokenizer, PROMPTS), model.tokenizer.pad_token_id, model.device)


@torch.inference_mode()
def logits(model: Model, *edits: Edit, rows: Sequence[int] = range(ROWS)) -> torch.Tensor:
    """Each 16th of the text of some of PROMPTS under edits, one nested in the other; 0 where
    there is padding."""
    ids, mask = (x[list(rows)] for x in batch(model))
    with contextlib.ExitStack() as nest:
        for edit in edits:
            nest.enter_context(edit.on(model))
        return model.forward(ids, mask)[0][..., ::16] * mask[..., None]


def close(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.allclose(a, b, atol=1e-4, rtol=1e-4)


# ---------------------------------------------------------------------------------------- composing


@law
@given(a=words, b=words, c=words)
def test_composing_is_associative_and_is_nesting(
    model: Model, a: Words, b: Words, c: Words
) -> None:
    one, two, three = (made(model, word) for word in (a, b, c))
    whole = logits(model, one | two | three)
    assert torch.equal(logits(model, one | (two | three)), whole)
    assert torch.equal(logits(model, one, two, three), whole)
    assert torch.equal(logits(model, one | two, three), whole)
    assert not close(logits(model), whole)


@law
@given(a=words, b=words, site=st.sampled_from(SITES))
def test_edits_at_different_layers_or_sites_commute(
    model: Model, a: Words, b: Words, site: str
) -> None:
    """And at one place they need not."""
    one = made(model, a, layers=(1,), site=site)
    for place in (
        {"layers": (2, 0), "site": site},
        {"layers": (1,), "site": next(s for s in SITES if s != site)},
    ):
        other = made(model, b, **place)
        assert torch.equal(logits(model, one | other), logits(model, other | one))


@pytest.mark.parametrize("site", SITES)
def test_the_order_at_one_place_is_the_order_of_composing(model: Model, site: str) -> None:
    step = direction_of(model, 0, site).at(1)
    shift, turn = add(step, strength=0.7), rotate(direction_of(model, 1, site).at(1), share=0.7)
    one, other = logits(model, shift | turn), logits(model, turn | shift)
    assert not close(one, other)
    for edit, expected in ((shift | turn, one), (turn | shift, other)):
        assert close(logits(model, stack([edit] * ROWS)), expected)
    assert torch.equal(logits(model, shift, turn), one)
    assert torch.equal(logits(model, turn, shift), other)
    assert torch.equal(
        logits(model, stack([shift] * ROWS), stack([turn] * ROWS)),
        logits(model, stack([shift | turn] * ROWS)),
    )


@law
@given(a=words, zero=words)
def test_what_is_nothing_does_nothing_to_any_bit(model: Model, a: Words, zero: Words) -> None:
    """The empty edit, and every operator at its zero: alone, before and after another, nested,
    as a row."""
    edit, plain = made(model, a), logits(model)
    steered = logits(model, edit)
    for nothing in (Edit(()), made(model, zero, size=0.0)):
        assert torch.equal(logits(model, nothing), plain)
        assert torch.equal(logits(model, nothing | edit), steered)
        assert torch.equal(logits(model, edit | nothing), steered)
        assert torch.equal(logits(model, nothing, edit), steered)
        mixed = logits(model, stack([edit, nothing, edit | nothing, nothing | nothing]))
        assert torch.equal(mixed[[1, 3]], plain[[1, 3]])
        assert torch.equal(mixed, logits(model, stack([edit, Edit(()), edit, Edit(())])))
    assert not torch.equal(steered, plain)


def test_nothing_says_what_was_said_without_it(model: Model) -> None:
    plain = decode(model, PROMPTS, max_new_tokens=8, one_line=False)
    step = direction_of(model, 0, "resid_post")
    zeros = [add(step, strength=0), ablate(step, fraction=0), rotate(step, degrees=0), Edit(())]
    for edit in (
        *zeros,
        stack(zeros),
        zeros[0] | zeros[1] | zeros[2],
        detour(step, remove=0, restore=0, depth=3),
    ):
        same = decode(model, PROMPTS, edit=edit, max_new_tokens=8, one_line=False)
        assert (same.texts, same.tokens, same.dose) == (plain.texts, plain.tokens, [0.0] * ROWS)
    assert generate(model, PROMPTS, edit=add(step), max_new_tokens=8, one_line=False) != plain.texts


# ----------------------------------------------------------------------------------------- stacking


@law
@given(firsts=each_row, seconds=each_row)
def test_a_stack_of_compositions_is_a_composition_of_stacks(
    model: Model, firsts: Any, seconds: Any
) -> None:
    ones, others = ([made(model, word) for word in row] for row in (firsts, seconds))
    together = logits(model, stack([one | other for one, other in zip(ones, others, strict=True)]))
    assert close(logits(model, stack(ones) | stack(others)), together)
    assert close(logits(model, stack(ones), stack(others)), together)
    shared = others[0]
    assert close(
        logits(model, stack(ones) | shared), logits(model, stack([one | shared for one in ones]))
    )
    assert not close(logits(model, stack(ones)), together)


@law
@given(row_words=each_row, order=st.permutations(range(ROWS)))
def test_rows_may_come_in_any_order(model: Model, row_words: Any, order: list[int]) -> None:
    edits = [made(model, word) for word in row_words]
    straight = logits(model, stack(edits))
    assert close(logits(model, stack([edits[row] for row in order]), rows=order), straight[order])


@law
@given(word=words, left=st.integers(1, ROWS))
def test_a_stack_of_one_edit_is_that_edit(model: Model, word: Words, left: int) -> None:
    edit, rows = made(model, word), list(range(left))
    assert close(logits(model, stack([edit] * left), rows=rows), logits(model, edit, rows=rows))


@law
@given(row_words=each_row, row=st.integers(0, ROWS - 1))
def test_a_row_does_not_know_the_others(model: Model, row_words: Any, row: int) -> None:
    """And of rows without an edit not one bit does."""
    edits = [made(model, word) for word in row_words]
    lonely = [edit if number == row else Edit(()) for number, edit in enumerate(edits)]
    assert close(logits(model, stack(edits))[row], logits(model, stack(lonely))[row])
    others = [number for number in range(ROWS) if number != row]
    assert torch.equal(logits(model, stack(lonely))[others], logits(model)[others])


@slow_law
@given(row_words=each_row, order=st.permutations(range(ROWS)))
def test_decoded_rows_may_come_in_any_order(model: Model, row_words: Any, order: list[int]) -> None:
    """And of two rows of one prompt each says what it says where it is the only one."""
    rows = [[step_in(model, word)] for word in row_words]
    turned, turned_rows = [PROMPTS[row] for row in order], [rows[row] for row in order]
    texts = say_all(model, PROMPTS, stack([edit_of(row) for row in rows]))
    again = say_all(model, turned, stack([edit_of(row) for row in turned_rows]))
    same(model, turned, turned_rows, again, [texts[row] for row in order])
    prompts, twice = [*PROMPTS, *turned], [*rows, *turned_rows]
    same(
        model,
        prompts,
        twice,
        say_all(model, prompts, stack([edit_of(row) for row in twice])),
        [*texts, *again],
    )


@pytest.mark.parametrize("positions", POSITIONS)
@slow_law
@given(row_words=each_row, word=words)
def test_decoded_rows_share_an_edit(
    model: Model, positions: str, row_words: Any, word: Words
) -> None:
    """Of one prompt: inside an edit, composed with it as a stack, and row by row."""
    shared, prompts = (
        step_in(model, word, layers=(0,), positions=positions, size=1.0),
        [PROMPTS[0]] * ROWS,
    )
    rows = [[step_in(model, word)] for word in row_words]
    whole = [[shared, *row] for row in rows]
    by_row = stack([edit_of(row) for row in rows])
    together = say_all(model, prompts, stack([edit_of(row) for row in whole]))
    with shared.edit.on(model):
        same(model, prompts, whole, say_all(model, prompts, by_row), together)
        alone = [say_all(model, prompts[:1], edit_of(row))[0] for row in rows]
    same(model, prompts, whole, alone, together)
    assert say_all(model, prompts, by_row) != together
    same(model, prompts, whole, say_all(model, prompts, shared.edit | by_row), together)


@pytest.mark.parametrize("stacked", [False, True])
def test_cross_entropy_inside_an_edit_is_that_of_both(model: Model, *, stacked: bool) -> None:
    step = direction_of(model, 0, "resid_post")
    outer, edits = (
        add(step.at(1), strength=0.5),
        [Edit(()), *(rotate(step.at(layer), share=0.7) for layer in range(3))],
    )
    expected = cross_entropy(model, PROMPTS, [outer | edit for edit in edits])
    assert not close(cross_entropy(model, PROMPTS, edits), expected)
    with (stack([outer] * len(edits)) if stacked else outer).on(model):
        assert close(cross_entropy(model, PROMPTS, edits), expected)


def say_all(model: Model, prompts: Sequence[str], edit: Edit) -> list[str]:
    return generate(model, prompts, edit=edit, max_new_tokens=NEW, one_line=False)


def same(
    model: Model,
    prompts: Sequence[str],
    rows: Sequence[Row],
    ours: Sequence[str],
    theirs: Sequence[str],
) -> None:
    """Texts are the same but for near-ties, of which there can hardly be two."""
    assert len(differing(model, prompts, rows, ours, theirs, NEW)) <= 1


# ------------------------------------------------------------------------------ nothing left behind


def hooks_in(module: Any) -> int:
    """Everything that is attached to any module below, hook points included."""
    found = 0
    for part in module.modules():
        found += len(part._forward_hooks) + len(part._forward_pre_hooks)
        found += len(getattr(part, "fwd_hooks", ()))
    return found


@pytest.fixture(params=["hugging face", "bridge", "hooked"])
def viewed(request: pytest.FixtureRequest, model: Model, lens: Callable[[str, str], Any]) -> Model:
    """The tiny Llama in each view, as steerlab runs it."""
    return model if request.param == "hugging face" else load(lens("llama", request.param))


class Stop(BaseException):
    """As a Ctrl-C: no `except Exception` sees it."""


def stop(*_: Any) -> None:
    raise Stop


@pytest.mark.parametrize("site", SITES)
def test_nothing_is_left_after_a_pass_that_was_stopped(viewed: Model, site: str) -> None:
    """While rows of one prompt join the batch at their layers, inside another edit, by something
    that is no Exception.

    First by a hook of somebody else's, then by what is attached.
    """
    prompts = [PROMPTS[0], PROMPTS[0], *PROMPTS[:2]]
    plain = generate(viewed, prompts, max_new_tokens=4)
    before, step = (
        hooks_in(viewed.hf),
        direction_of(viewed, 0, site),
    )  # a bridge makes hooks of its own in its first pass
    edit = stack([add(step.at(row % 3)) for row in range(ROWS)])
    steered = generate(viewed, prompts, edit=edit, max_new_tokens=4)
    for depth in range(3):
        foreign = _block(viewed, depth).register_forward_hook(stop)
        with pytest.raises(Stop):
            generate(viewed, prompts, edit=edit, max_new_tokens=4)
        foreign.remove()
        with (
            pytest.raises(Stop),
            add(step.at(1)).on(viewed),
            viewed.attached([(site, depth, stop)]),
        ):
            generate(viewed, prompts, edit=edit, max_new_tokens=4)
        assert hooks_in(viewed.hf) == before
        assert generate(viewed, prompts, max_new_tokens=4) == plain
    assert generate(viewed, prompts, edit=edit, max_new_tokens=4) == steered != plain
    with edit.on(viewed):
        assert hooks_in(viewed.hf) > before


def _block(model: Model, depth: int) -> torch.nn.Module:
    return model.blocks[depth]


def test_a_failed_attach_inside_an_edit_leaves_the_edit_and_then_nothing(viewed: Model) -> None:
    plain = generate(viewed, PROMPTS, max_new_tokens=4)
    before = hooks_in(viewed.hf)
    step, foreign = (
        direction_of(viewed, 0, "resid_post"),
        {"name": "other", "fingerprint": "0" * 16},
    )
    deeper = stack([add(step.at(0)), add(replace(step.at(1), layers=(7,))), Edit(()), Edit(())])
    wrong = [(deeper, "layers 0 to 2; layer 7 was asked for")]
    if viewed.fingerprint:
        wrong.append(
            (Edit(add(step.at(0)).parts, foreign), "was made with other .*collect and fit again")
        )
    with add(step.at(1)).on(viewed):
        steered, attached = generate(viewed, PROMPTS, max_new_tokens=4), hooks_in(viewed.hf)
        for edit, told in wrong:
            with pytest.raises(SteerlabError, match=told), edit.on(viewed):
                raise AssertionError("attached")
            with pytest.raises(SteerlabError, match=told):
                generate(viewed, PROMPTS, edit=edit)
            assert hooks_in(viewed.hf) == attached
            assert generate(viewed, PROMPTS, max_new_tokens=4) == steered
    assert hooks_in(viewed.hf) == before
    assert generate(viewed, PROMPTS, max_new_tokens=4) == plain != steered


@pytest.mark.parametrize("shape", ALL_SHAPES)
def test_nothing_is_left_in_any_shape(shape: str, shaped: Shaped) -> None:
    model = shaped(shape)
    before, plain = hooks_in(model.hf), logits(model)
    for site in RESIDUAL if "moe" in shape or shape == "mixtral" else SITES:
        step = direction_of(model, 0, site)
        with contextlib.suppress(ZeroDivisionError), (add(step) | ablate(step)).on(model):
            assert not close(logits(model), plain)
            _ = 1 / 0
        with pytest.raises(Stop), add(step).on(model), model.attached([(site, 2, stop)]):
            logits(model)
    assert hooks_in(model.hf) == before
    assert torch.equal(logits(model), plain)


# --------------------------------------------------------------------------------------- bad stacks


def refused(told: str) -> Any:
    return pytest.raises(SteerlabError, match=told)


def test_a_stack_of_widths_that_do_not_go_together(model: Model, polyglot: Model) -> None:
    """At one place the stack itself sees it; at different layers or operators the model does."""
    narrow, wide = (direction_of(one, 0, "resid_post") for one in (model, polyglot))
    with refused(r"the edits of a stack have different widths: \[32, 256\]"):
        stack([add(narrow.at(1)), add(wide.at(1))])
    for edit in (
        stack([add(narrow.at(1)), add(wide.at(2))]),
        stack([add(narrow.at(1)), ablate(wide.at(1))]),
    ):
        with refused(r"(add: shift|ablate: basis) has width 256, .* has 32"):
            generate(model, PROMPTS[:2], edit=edit)
        with refused(r"add: shift has width 32, polyglot has 256"):
            generate(polyglot, PROMPTS[:2], edit=edit)


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_directions_that_are_not_finite(model: Model, broken: float) -> None:
    step = direction_of(model, 0, "resid_post")
    parts: dict[str, list[tuple[Callable[[Direction], Edit], str]]] = {
        "unit": [(add, "add: shift"), (lambda d: rotate(d, share=1.0), "rotate: (second|angle)")],
        "gap": [
            (add, "add: shift"),
            (lambda d: rotate(replace(d, end=None), share=1.0), "rotate: angle"),
        ],
        "end": [(lambda d: rotate(d, share=1.0), "rotate: angle")],
        "start": [(lambda d: rotate(d, degrees=30), "rotate: (first|second)")],
        "basis": [(ablate, "ablate: basis")],
    }
    for name, makers in parts.items():
        value = getattr(step, name).clone()
        value[1] = broken
        for make, told in makers:
            with refused(f"{told} holds NaN or infinity"):
                make(replace(step, **{name: value}))
            make(replace(step, **{name: value}).at(0, 2))  # the other layers are whole


def test_directions_of_no_length(model: Model) -> None:
    step = direction_of(model, 0, "resid_post")
    nowhere = replace(step, unit=torch.zeros_like(step.unit))
    with refused("the direction to 'es' is parallel to the source's mean: no plane to turn in"):
        rotate(nowhere, degrees=30)
    with refused("the direction to 'es' is parallel to the source's mean: no plane to turn in"):
        rotate(replace(step, start=torch.zeros_like(step.start)), degrees=30)
    with refused("there is no subspace of 'es' to remove"):
        ablate(replace(step, basis=torch.zeros_like(step.basis)))


@pytest.mark.parametrize("name", ["unit", "gap"])
def test_an_addition_of_no_length(name: str, model: Model) -> None:
    step = direction_of(model, 0, "resid_post")
    value = getattr(step, name).clone()
    value[1] = 0
    add(replace(step, **{name: value}), strength=0)
    with refused("the direction to 'es' is zero at layers 1: "):
        add(replace(step, **{name: value}))


def test_one_prompt_of_a_stack_that_is_too_long(model: Model) -> None:
    step, before = direction_of(model, 0, "resid_post"), hooks_in(model.hf)
    edit = stack([add(step.at(row % 3)) for row in range(ROWS)])
    with refused(
        r"a prompt of \d+ tokens and 8 new ones make \d+; .* was made for 128: shorten the prompt "
        r"or max_new"
    ):
        generate(model, [*PROMPTS[:-1], "word " * 130], edit=edit, max_new_tokens=8)
    assert hooks_in(model.hf) == before
    assert len(generate(model, PROMPTS, edit=edit, max_new_tokens=8)) == ROWS


@pytest.mark.parametrize("prompts", [2, 4])
def test_other_rows_than_the_stack_has_edits(viewed: Model, prompts: int) -> None:
    """Told to decoding, or found by the pass of a longer batch."""
    generate(viewed, PROMPTS[:3], max_new_tokens=1)
    step, before = direction_of(viewed, 0, "resid_post"), hooks_in(viewed.hf)
    edit, given = stack([add(step.at(row)) for row in range(3)]), [PROMPTS[0]] * prompts
    with refused(f"there are {prompts} prompts and the stack has 3 edits; give each prompt one"):
        generate(viewed, given, edit=edit, max_new_tokens=3)
    if prompts > 3:
        with (
            refused("the batch has 4 rows or more and the stack 3 edits; give each row one"),
            edit.on(viewed),
        ):
            generate(viewed, given, max_new_tokens=3)
    assert hooks_in(viewed.hf) == before
