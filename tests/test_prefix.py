"""Rows that begin alike run their beginning once for each edit, and say and count what they do
when each runs whole."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import random_directions

from steerlab.core.corpus import corpus
from steerlab.edits import Edit, ablate, add, rotate, stack
from steerlab.edits.edit import edit as edit_of
from steerlab.engine import prefix
from steerlab.engine.decoding import Decoded, decode
from steerlab.engine.forward import Rows, rows_on
from steerlab.engine.prefix import alike, can_go_on, common, pays
from steerlab.engine.prompts import encode, prompt
from steerlab.engine.shots import shots
from steerlab.models.model import Model

SENTENCES, NEW = 3, 6


def prompts(model: Model) -> list[str]:
    """Sentences of different lengths behind the same examples."""
    texts = corpus(langs=["en", "de"])
    given = shots(texts, "echo:3", "en", "de")
    lines = sorted(texts.split("dev")["en"], key=len)[:: 40 // SENTENCES][:SENTENCES]
    return [prompt(model.tokenizer, "echo:3", line, shots=given) for line in lines]


def edits(model: Model) -> list[Edit]:
    """Of several layers, operators and positions, one of two places, and none."""
    between = random_directions(model).between("en", "es")
    last = model.n_layers - 1
    return [
        add(between.at(0), strength=8.0),
        add(between.at(last), strength=8.0),
        rotate(between.at(1), degrees=60),
        ablate(between.at(1), fraction=1.0) | add(between.at(last), strength=5.0),
        add(between.at(1), strength=6.0, positions="prompt"),
        add(between.at(1), strength=6.0, positions="generated"),
        Edit(()),
    ]


def decoded(model: Model, *, displacement: bool = True) -> Decoded:
    """Each sentence under each edit, in one batch."""
    texts, some = prompts(model), edits(model)
    return decode(
        model,
        [text for text in texts for _ in some],
        edit=stack(some * len(texts)),
        max_new_tokens=NEW,
        one_line=False,
        displacement=displacement,
    )


@pytest.fixture
def split(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tokens each beginning had that ran by itself."""
    seen: list[int] = []
    plain = Rows._from_a_beginning

    def watched(self: Rows, rows: Any, length: int, room: int) -> Any:
        seen.append(length)
        return plain(self, rows, length, room)

    monkeypatch.setattr(Rows, "_from_a_beginning", watched)
    return seen


def without(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each row runs whole."""
    monkeypatch.setattr(prefix, "pays", lambda *_: 0)


@pytest.mark.parametrize("displacement", [True, False])
@pytest.mark.parametrize("shape", ["polyglot", "qwen2", "gpt2", "qwen2 without BOS"])
def test_rows_say_and_count_the_same(
    shape: str,
    displacement: bool,
    shaped: Callable[[str], Model],
    split: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = shaped(shape)
    in_two = decoded(model, displacement=displacement)
    assert split == [common(encode(model.tokenizer, prompts(model)))]
    without(monkeypatch)
    whole = decoded(model, displacement=displacement)
    assert len(split) == 1
    assert in_two.texts == whole.texts
    assert len(set(whole.texts)) > SENTENCES  # the negative control: edits change what is said
    assert in_two.touched.prefill == whole.touched.prefill
    assert in_two.touched.decode == whole.touched.decode
    torch.testing.assert_close(in_two.dose, whole.dose, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(
        in_two.displacement, whole.displacement, rtol=1e-3, atol=1e-5, equal_nan=True
    )


def test_fewer_positions_run(polyglot: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """A third of them at most, block by block."""
    ran: list[int] = []
    handles = [
        block.register_forward_pre_hook(
            lambda _, args, kwargs: ran.append(
                (args or (kwargs["hidden_states"],))[0][..., 0].numel()
            ),
            with_kwargs=True,
        )
        for block in polyglot.blocks
    ]
    ids = [row for row in encode(polyglot.tokenizer, prompts(polyglot)) for _ in range(4)]
    between = random_directions(polyglot).between("en", "es")
    some = stack([add(between.at(1), strength=0.2 * (1 + i % 4)) for i in range(len(ids))])
    counted = []
    try:
        for whole in (False, True):
            if whole:
                without(monkeypatch)
            ran.clear()
            with rows_on(polyglot, ids, some, new=4) as rows, torch.inference_mode():
                rows.forward(range(len(ids)), room=4)
            counted.append(sum(ran))
    finally:
        for handle in handles:
            handle.remove()
    assert counted[0] * 2 < counted[1]


def test_asked_for_twice_or_in_another_order_rows_are_the_same(polyglot: Model) -> None:
    texts, some = prompts(polyglot), edits(polyglot)
    ids = encode(polyglot.tokenizer, [text for text in texts for _ in some])
    order = list(range(len(ids)))[::-1]
    with rows_on(polyglot, ids, stack(some * len(texts)), new=4, displacement=True) as rows:
        assert rows.kinds is not None
        assert rows.displaced is not None
        with torch.inference_mode():
            once, _ = rows.forward(range(len(ids)), room=4)
            moved = rows.displaced.values
            again, _ = rows.forward(order, room=4)
        torch.testing.assert_close(again[torch.tensor(order).argsort()], once, atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(
            rows.displaced.values, moved, rtol=1e-4, atol=1e-6, equal_nan=True
        )


def test_a_window_that_slides_and_too_few_tokens_go_without(shaped: Callable[[str], Model]) -> None:
    model = shaped("gemma2")  # its windows slide over fewer tokens than a prompt has
    row = encode(model.tokenizer, prompts(model))[0]
    assert not can_go_on(model, row, len(row) + NEW)
    assert can_go_on(shaped("qwen2"), row, len(row) + NEW)


def test_a_model_that_tells_positions_otherwise_goes_without(
    shaped: Callable[[str], Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It counts padding as positions."""
    model = shaped("llama")
    row = encode(model.tokenizer, prompts(model))[0]
    plain = type(model)._run

    def counting(self: Any, ids: Any, mask: Any, positions: Any, past: Any, **options: Any) -> Any:
        start = mask.shape[1] - ids.shape[1]
        by_index = torch.arange(start, mask.shape[1]).expand_as(ids)
        return plain(self, ids, mask, by_index, past, **options)

    model.goes_on = None
    monkeypatch.setattr(type(model), "_run", counting)
    assert not can_go_on(model, row, 100)
    monkeypatch.undo()
    model.goes_on = None
    assert can_go_on(model, row, 100)


def test_rows_of_equal_edits_are_told(polyglot: Model) -> None:
    between = random_directions(polyglot).between("en", "es")
    one, other = add(between.at(1), strength=0.5), add(between.at(1), strength=0.6)
    made = stack(
        [one, other, add(between.at(1), strength=0.5), Edit(()), rotate(between.at(1), degrees=9)]
    )
    assert alike(made, range(5)) == [0, 1, 0, 2, 3]
    assert alike(made, [2, 0, 1]) == [0, 0, 1]
    assert alike(one, range(3)) == alike(None, range(3)) == [0, 0, 0]
    # A user's function may look at all positions of a row.
    assert alike(stack([edit_of(lambda h: h.mean(1, keepdim=True), layer=1)]), [0]) is None


def test_a_beginning_leaves_each_row_a_token_of_its_own():
    assert common([[1, 2, 3, 4], [1, 2, 3, 5]]) == 3
    assert common([[1, 2, 3], [1, 2, 3]]) == 2
    assert common([[1, 2], [1, 2, 3]]) == 1
    assert common([[1], [2]]) == 0


def test_a_beginning_runs_by_itself_only_where_that_is_less_work():
    rows = [[*range(40), 50 + row] for row in range(8)]
    assert pays(rows, [4] * 8, [0] * 8, 12) == 40
    assert pays([row[30:] for row in rows], [4] * 8, [0] * 8, 12) == 0  # too short
    assert pays(rows, [4] * 8, list(range(8)), 12) == 40  # the prompts at least are run once
    # One prompt under many edits near the end: it is shared already.
    assert pays([rows[0]] * 8, [12] * 8, [0] * 8, 12) == 0
