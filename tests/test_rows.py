"""Rows: each row of a stack says what its edit says alone, by hand, without padding and without
a cache."""

import functools
from collections.abc import Callable
from random import Random

import pytest
import torch
from by_hand import OPERATORS, TIE, Row, differing, edit_of, nats, rows_of, say
from conftest import ALL_SHAPES, PROMPTS, RESIDUAL, random_directions

from steerlab.core.corpus import Corpus
from steerlab.core.directions import Directions
from steerlab.edits import POSITIONS, Edit, add, stack
from steerlab.engine.cross_entropy import cross_entropy
from steerlab.engine.decoding import Decoded, decode
from steerlab.engine.prompts import encode, pad
from steerlab.models.model import Model

ROWS, NEW = 200, 12


# --------------------------------------------------------------------------- polyglot, in many rows


@pytest.fixture(scope="module")
def rows(directions: Directions) -> list[Row]:
    return rows_of(directions, ROWS, targets=["de", "es", "fr", "ru"])


@pytest.fixture(scope="module")
def prompts(lines: Corpus) -> list[str]:
    """Nine sentences of unlike length, dealt to the rows at random, so that many rows share
    each."""
    given, random = [f"{text}\n" for text in lines.split("dev")["en"][:8]] + ["No.\n"], Random(1)
    return [random.choice(given) for _ in range(ROWS)]


@pytest.fixture(scope="module")
def together(polyglot: Model, rows: list[Row], prompts: list[str]) -> Decoded:
    return decode(
        polyglot,
        prompts,
        edit=stack([edit_of(row) for row in rows]),
        max_new_tokens=NEW,
        one_line=False,
    )


@pytest.fixture(scope="module")
def alone(polyglot: Model, rows: list[Row], prompts: list[str]) -> list[Decoded]:
    return [
        decode(polyglot, [prompt], edit=edit_of(row), max_new_tokens=NEW, one_line=False)
        for prompt, row in zip(prompts, rows, strict=True)
    ]


def test_the_rows_are_of_every_kind(rows: list[Row]) -> None:
    steps = [step for row in rows for step in row]
    kinds = {
        (step.operator, step.positions, step.direction.site) for row in rows for step in row[:1]
    }
    assert len(kinds) == len(OPERATORS) * len(POSITIONS) * len(RESIDUAL)
    assert {layer for step in steps for layer in step.direction.layers} == set(range(8))
    assert {step.direction.target for step in steps} == {"de", "es", "fr", "ru"}
    assert {len(row) for row in rows} == {0, 1, 2}


def test_a_row_of_a_mixed_stack_says_what_its_edit_says_alone(
    polyglot: Model, rows: list[Row], prompts: list[str], together: Decoded, alone: list[Decoded]
) -> None:
    texts = [one.texts[0] for one in alone]
    found = differing(polyglot, prompts, rows, together.texts, texts, NEW)
    assert len(found) <= 0.005 * ROWS, f"these rows differ: {found}"
    same = [row for row in range(ROWS) if row not in found]
    assert [together.tokens[row] for row in same] == [alone[row].tokens[0] for row in same]
    ours, theirs = (
        [dose[row] for row in same] for dose in (together.dose, [one.dose[0] for one in alone])
    )
    assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-6)


def test_the_rows_of_a_mixed_stack_do_differ(
    polyglot: Model, rows: list[Row], prompts: list[str], together: Decoded
) -> None:
    """The negative control: with the edits of other rows, or none, most rows say something else."""
    some = slice(40, 80)
    others = stack([edit_of(row) for row in rows[some.start + 5 : some.stop + 5]])
    for edit in (others, None):
        texts = decode(polyglot, prompts[some], edit=edit, max_new_tokens=NEW, one_line=False).texts
        assert sum(a != b for a, b in zip(texts, together.texts[some], strict=True)) > 25
    assert len(set(together.texts)) > 0.6 * ROWS


def test_what_a_mixed_stack_touches_is_what_its_rows_touch(
    together: Decoded, alone: list[Decoded]
) -> None:
    for layer in range(8):
        counts = [one.touched.prefill.get(layer, 0) for one in alone]
        assert together.touched.prefill[layer] == sum(counts) > 0
    if together.tokens == [one.tokens[0] for one in alone]:
        for layer in range(8):
            counts = [one.touched.decode.get(layer, 0) for one in alone]
            assert together.touched.decode[layer] == sum(counts) > 0


def test_a_plan_gives_the_same_bytes_twice(
    polyglot: Model, rows: list[Row], prompts: list[str], together: Decoded
) -> None:
    again = decode(
        polyglot,
        prompts,
        edit=stack([edit_of(row) for row in rows]),
        max_new_tokens=NEW,
        one_line=False,
    )
    assert again.plan == together.plan
    assert (again.texts, again.tokens, again.dose) == (
        together.texts,
        together.tokens,
        together.dose,
    )
    assert (again.touched.prefill, again.touched.decode) == (
        together.touched.prefill,
        together.touched.decode,
    )


def test_another_plan_or_order_changes_ties_at_most(
    polyglot: Model, rows: list[Row], prompts: list[str], together: Decoded
) -> None:
    order = Random(2).sample(range(ROWS), ROWS)
    edit = stack([edit_of(rows[row]) for row in order])
    texts = decode(
        polyglot,
        [prompts[row] for row in order],
        edit=edit,
        max_new_tokens=NEW,
        one_line=False,
        batch=37,
    ).texts
    back = [texts[order.index(row)] for row in range(ROWS)]
    assert len(differing(polyglot, prompts, rows, together.texts, back, NEW)) <= 0.005 * ROWS


def test_lines_that_end_leave_the_other_rows_alone(
    polyglot: Model, rows: list[Row], prompts: list[str], together: Decoded
) -> None:
    """With `one_line` rows end at different times; what is said until then is what was said
    without it."""
    some = slice(0, 60)
    edit = stack([edit_of(row) for row in rows[some]])
    ended = decode(polyglot, prompts[some], edit=edit, max_new_tokens=NEW)
    cut = [
        whole[: len(text)] for whole, text in zip(together.texts[some], ended.texts, strict=True)
    ]
    assert sum(a != b for a, b in zip(cut, ended.texts, strict=True)) <= 1, "a near-tie, at most"
    early = sum(a < b for a, b in zip(ended.tokens, together.tokens[some], strict=True))
    assert 3 < early < 57, "some rows end early, and some do not"


# -------------------------------------------------------------------------------------- every shape


@pytest.mark.parametrize("shape", ALL_SHAPES)
def test_rows_are_what_they_are_by_hand(shape: str, shaped: Callable[[str], Model]) -> None:
    """Stacked and cached against one row, without padding, without a cache, the formulas written
    out.

    In one padded batch, and in batches of rows of one prompt, of which the shortest outgrows a
    sliding window.
    """
    model, count = shaped(shape), 20
    rows = rows_of(random_directions(model), count, targets=["es"])
    prompts = [PROMPTS[row * 7 % 4] for row in range(count)]
    say_all = functools.partial(decode, model, prompts, max_new_tokens=8, one_line=False)
    edit = stack([edit_of(row) for row in rows])
    by_hand = [say(model, prompt, row, 8).text for prompt, row in zip(prompts, rows, strict=True)]
    for batch in (count, count // 4):
        texts = say_all(edit=edit, batch=batch).texts
        assert len(differing(model, prompts, rows, texts, by_hand, 8)) <= 1, "a near-tie, at most"
    assert sum(a != b for a, b in zip(by_hand, say_all().texts, strict=True)) > 11, (
        "the edits are felt"
    )
    assert len(set(by_hand)) > 14


@pytest.mark.parametrize("shape", ALL_SHAPES)
def test_texts_are_read_as_they_are_by_hand(shape: str, shaped: Callable[[str], Model]) -> None:
    """Layer replay of all texts under all edits, in batches of several rows of several texts."""
    model = shaped(shape)
    rows = [row for row in rows_of(random_directions(model), 20, targets=["es"]) if _read(row)]
    expected = torch.tensor([[nats(model, text, row) for text in PROMPTS] for row in rows])
    edits = [edit_of(row) for row in rows]
    for batch in (None, 7):
        found = cross_entropy(model, PROMPTS, edits, batch=batch)
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert ((expected[1:] - expected[0]).abs().amax(1) > 0.01).all(), "the edits are felt"


@pytest.mark.parametrize("site", RESIDUAL)
@pytest.mark.parametrize("shape", ["polyglot", *ALL_SHAPES])
@torch.inference_mode()
def test_left_padding_changes_nothing_whatever_it_holds(
    shape: str, site: str, shaped: Callable[[str], Model], directions: Directions
) -> None:
    """Logits at every position of a padded batch under a stack, and of two cached steps, as of
    each row alone."""
    model = shaped(shape)
    rows = [
        row
        for row in rows_of(_at(model, directions), 60, targets=["es"])
        if row and _only(row, site)
    ][:4]
    assert len(rows) == 4
    ids, mask = _padded(model)
    edits = [edit_of(row) for row in rows]
    with stack(edits).on(model):
        together = _logits(model, ids, mask)
    with stack(edits).on(model):
        other = _logits(model, ids.where(mask | (mask.cumsum(1) > 0), 4321), mask)
    plain = _logits(model, ids, mask)
    for row, edit in enumerate(edits):
        text = mask[row]
        own = ids[row : row + 1, text]
        with edit.on(model):
            alone = _logits(model, own, torch.ones_like(own, dtype=torch.bool))[0]
        for batch in (together, other):
            torch.testing.assert_close(batch[row, -len(alone) :], alone, atol=1e-4, rtol=1e-4)
        assert not torch.allclose(plain[row, -len(alone) :], alone, atol=0.05), "the edit is felt"


@pytest.mark.parametrize("site", RESIDUAL)
@pytest.mark.parametrize("shape", ALL_SHAPES)
@torch.inference_mode()
def test_bos_and_padding_are_not_touched(
    shape: str, site: str, shaped: Callable[[str], Model]
) -> None:
    """At every layer, in a padded batch: only the text of the rows that have a part there is
    another."""
    model = shaped(shape)
    ids, mask = _padded(model)
    first = mask & (mask.cumsum(1) == 1)
    rows = [
        [],
        *(
            [step]
            for row in rows_of(random_directions(model), 40, targets=["es"])
            for step in row[:1]
        ),
    ]
    rows = [row for row in rows if not row or (_only(row, site) and row[0].positions == "all")][:4]
    for row in rows[1:]:
        [layer, *_] = row[0].direction.layers
        seen: list[torch.Tensor] = []
        look = (site, layer, lambda h, where, seen=seen: seen.append(h.clone()))
        with (
            stack([Edit(()), edit_of(row), Edit(()), edit_of(row)]).on(model),
            model.attached([look]),
        ):
            model.body(ids, mask)
        with model.attached([look]):
            model.body(ids, mask)
        moved = (seen[0] != seen[1]).any(-1)
        expected = mask & ~first
        expected[[0, 2]] = False
        assert torch.equal(moved, expected)


def test_a_prompt_that_does_not_begin_with_bos_is_touched_from_its_first_token(
    shaped: Callable[[str], Model],
) -> None:
    model = shaped("llama")
    ids = torch.tensor([[40, 50, 60], [1, 50, 60]])
    edit = add(random_directions(model).between("en", "es").at(0))
    seen: list[torch.Tensor] = []
    look = ("resid_post", 0, lambda h, where: seen.append(h.clone()))
    with torch.inference_mode(), edit.on(model) as touched, model.attached([look]):
        model.hf(input_ids=ids)
    with torch.inference_mode(), model.attached([look]):
        model.hf(input_ids=ids)
    assert (seen[0] != seen[1]).any(-1).tolist() == [[True] * 3, [False, True, True]]
    assert touched.prefill == {0: 5}


def _read(row: Row) -> bool:
    """Whether all of a row acts on what is read, and not only on what is generated."""
    return all(step.positions != "generated" for step in row)


def _only(row: Row, site: str) -> bool:
    """Whether a row acts at this site alone, and on the prompt."""
    return _read(row) and all(step.direction.site == site for step in row)


def _at(model: Model, directions: Directions) -> Directions:
    return directions if model.name == "polyglot" else random_directions(model)


def _padded(model: Model) -> tuple[torch.Tensor, torch.Tensor]:
    """PROMPTS with three more columns of padding than they need."""
    ids, mask = pad(encode(model.tokenizer, PROMPTS), model.tokenizer.pad_token_id, model.device)
    more = torch.zeros(len(ids), 3, dtype=torch.bool)
    return torch.cat([more.long(), ids], 1), torch.cat([more, mask], 1)


def _logits(model: Model, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Logits of a prompt's pass and of two cached steps after it, by Hugging Face's own forward."""
    found, past = [], None
    for feed in (ids, torch.full_like(ids[:, :1], 700), torch.full_like(ids[:, :1], 800)):
        mask = mask if past is None else torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
        positions = (mask.long().cumsum(1) - 1).clamp(min=0)[:, -feed.shape[1] :]
        out = model.hf(
            feed,
            attention_mask=mask.long(),
            position_ids=positions,
            past_key_values=past,
            use_cache=True,
        )
        past = out.past_key_values
        found.append(out.logits)
    return torch.cat(found, 1)


# ----------------------------------------------------------------------------- the tests' own tools


def test_a_near_tie_is_told_from_a_difference(shaped: Callable[[str], Model]) -> None:
    model = shaped("llama")
    said = say(model, PROMPTS[0], [], NEW)
    assert said.gap_to(said.text) == 0
    for step in (0, 4, NEW - 1):
        values, tokens = said.logits[step].topk(2)
        other = model.tokenizer.decode(
            [*said.tokens[:step], int(tokens[1])], skip_special_tokens=True
        )
        assert said.gap_to(other + " and so on") == pytest.approx(
            float(values[0] - values[1]), abs=1e-6
        )
    assert said.gap_to("something else") > TIE
    assert said.gap_to("") > TIE


def test_windows_slide_and_weights_are_lively(shaped: Callable[[str], Model]) -> None:
    """The tiny models test what they are for: a window that is shorter than a prompt, texts that
    are not one word."""
    for shape in ALL_SHAPES:
        model = shaped(shape)
        text = decode(model, PROMPTS, max_new_tokens=NEW, one_line=False).texts
        assert len(set(text)) == len(PROMPTS)
        assert len(set(say(model, PROMPTS[0], [], NEW).tokens)) >= NEW / 2, shape
        if shape.startswith("gemma"):
            assert model.config.sliding_window < max(map(len, encode(model.tokenizer, PROMPTS)))
            assert {"sliding_attention", "full_attention"} == set(model.config.layer_types)


def test_rows_that_have_ended_are_not_touched(
    polyglot: Model, rows: list[Row], prompts: list[str]
) -> None:
    """Some stay in the batch for a while after their end; with one row to a batch none does."""
    edit = stack([edit_of(row) for row in rows[20:40]])
    many, single = (
        decode(polyglot, prompts[20:40], edit=edit, max_new_tokens=NEW, batch=size)
        for size in (20, 1)
    )
    assert many.texts == single.texts
    assert len(set(many.tokens)) > 3
    assert (many.touched.prefill, many.touched.decode) == (
        single.touched.prefill,
        single.touched.decode,
    )
    assert many.dose == pytest.approx(single.dose, rel=1e-3, abs=1e-6)
