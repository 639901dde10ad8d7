"""Which positions an edit acts on: words, numbers, masks; on prefill and on decoding, counted."""

from typing import Any

import pytest
import torch
from conftest import PROMPTS
from edits_by_hand import WIDTH, Fake, direction, randn, same_bits, steer
from torch import Tensor

from steerlab.core.errors import SteerlabError
from steerlab.edits import Edit, add, gates, stack, window
from steerlab.engine.cross_entropy import cross_entropy
from steerlab.engine.decoding import decode
from steerlab.engine.prompts import encode, pad
from steerlab.models.positions import Positions, step_positions

STEP = direction()
NEW = 5


def own(h: Tensor) -> Tensor:
    return (h[..., 0] > 0).float()


def passes() -> tuple[Positions, list[Positions]]:
    """Two prompts, BOS and 5 tokens, and padding, BOS and 3; then three steps."""
    real = torch.ones(2, 6, dtype=torch.bool)
    real[1, :2] = False
    begins = torch.zeros_like(real)
    begins[0, 0] = begins[1, 2] = True
    rows = torch.arange(2)
    prompt = Positions(real & ~begins, torch.zeros_like(real), rows, begins=begins)
    lengths = torch.tensor([6, 4])
    return prompt, [step_positions(rows, before=lengths + step) for step in range(3)]


BOS, P, S = torch.tensor([6, 4]), torch.arange(6), torch.arange(3)
ROW_0 = [1, 2, 3, 4, 5]  # columns of its prompt that count, and
ROW_1 = [3, 4, 5]  # those of the other
EVERY = [0, 1, 2]  # steps

# (positions, columns of the prompt in both rows, steps in both rows)
WHAT: list[tuple[Any, tuple[list[int], list[int]], tuple[list[int], list[int]]]] = [
    ("all", (ROW_0, ROW_1), (EVERY, EVERY)),
    ("prompt", (ROW_0, ROW_1), ([], [])),
    ("generated", ([], []), (EVERY, EVERY)),
    ("everywhere", ([0, *ROW_0], [2, *ROW_1]), (EVERY, EVERY)),
    ("last", ([5], [5]), ([], [])),
    ("first:2", ([1, 2], [3, 4]), ([], [])),
    ("first:4", ([1, 2, 3, 4], ROW_1), ([], [])),
    ("last generated", ([5], [5]), (EVERY, EVERY)),
    (["first:1", "last"], ([1, 5], [3, 5]), ([], [])),
    ([0], ([0], [2]), ([], [])),
    ([-1], ([5], [5]), ([], [])),
    ([1, -2, 5], ([1, 4, 5], [3, 4]), ([], [1])),
    ([6, 7], ([], []), ([0, 1], [2])),
    ([True, False, True], ([0, 2], [2, 4]), ([], [])),
    (torch.tensor([False, True]), ([1], [3]), ([], [])),
    (
        torch.tensor([[0, 1, 0, 0, 0, 0, 1], [0, 0, 1, 0, 1, 1, 0]]).bool(),
        ([1], [4]),
        ([0], [0, 1]),
    ),
]


@pytest.mark.parametrize(("positions", "prompt", "steps"), WHAT)
def test_just_what_was_asked_for_is_changed_and_counted(
    positions: Any, prompt: Any, steps: Any
) -> None:
    edit, fake = add(STEP, positions=positions), Fake()
    place, later = passes()
    h, new = 3 * randn(2, 6, WIDTH), [3 * randn(2, 1, WIDTH, seed=n) for n in range(1, 4)]
    with edit.on(fake) as stats:
        changed = [
            (fake(x, each) != Fake()(x, each)).any(-1)
            for x, each in [(h, place), *zip(new, later, strict=True)]
        ]
    asked = torch.zeros(2, 6, dtype=torch.bool)
    for row in range(2):
        asked[row, prompt[row]] = True
        assert [step for step in EVERY if changed[1 + step][row, 0]] == steps[row]
    assert torch.equal(changed[0], asked)
    assert stats.prefill == {2: int(asked.sum())}
    assert stats.decode.get(2, 0) == sum(map(len, steps))
    again = add(STEP, positions=edit.parts[0].positions)  # its name says the same
    assert (again == edit, again.digest) == (True, edit.digest)


def test_rows_of_a_stack_have_their_own_windows() -> None:
    place, later = passes()
    edits = [add(STEP, positions="first:1"), add(STEP, positions="last generated")]
    h, new = 3 * randn(2, 6, WIDTH), 3 * randn(2, 1, WIDTH, seed=1)
    fake = Fake()
    with stack(edits).on(fake):
        together = [fake(h, place), fake(new, later[0])]
    for row, edit in enumerate(edits):
        with edit.on(fake):
            alone = [fake(h, place), fake(new, later[0])]
        for ours, theirs in zip(together, alone, strict=True):
            assert same_bits(ours[row], theirs[row])


def test_what_padding_holds_does_not_matter() -> None:
    place, _ = passes()
    h = 3 * randn(2, 6, WIDTH)
    broken = h.clone()
    broken[~place.real] = torch.nan
    for positions in ("everywhere", "last", "first:2", [0, -1]):
        edit = add(STEP, positions=positions)
        new, kept = steer(edit, broken, place), steer(edit, h, place)
        assert same_bits(new[place.real], kept[place.real])
        assert new[~place.real].isnan().all()


def test_a_dose_is_the_mean_over_positions_that_are_touched_anywhere() -> None:
    """Two layers with other positions: a position that both touch is one, and one that only the
    second touches is one too."""
    place, _ = passes()
    step, h = direction(layers=(1, 2)), 3 * randn(2, 6, WIDTH)
    first, second = add(step.at(1), positions="last"), add(step.at(2))
    doses = []
    for edit in (first, second, first | second):
        with edit.on(fake := Fake()) as stats:
            fake(h, place)
        doses.append(stats.doses(2))
    seen: list[Tensor] = []
    fake = Fake()
    with first.on(fake):
        fake.changes = [*fake.changes, ("resid_post", 2, lambda x, _: seen.append(x))]
        fake(h, place)
    length = torch.linalg.vector_norm(seen[0], dim=-1)
    at_second = torch.where(place.text, step.gap[1] / length, 0).sum(1) / place.text.sum(1)
    torch.testing.assert_close(doses[2], doses[0] / place.text.sum(1) + at_second)
    shut_first = add(step).when(
        lambda h: (torch.arange(h.shape[1]) > 3).float().expand(h.shape[:2])
    )
    with shut_first.on(fake := Fake()) as stats:
        fake(h, place)
    assert stats.prefill == {1: 4, 2: 4}
    assert bool((stats.doses(2) < 3 * doses[1]).all()), "each open position counts once"


@pytest.mark.parametrize(
    ("positions", "told"),
    [
        (
            "lats",
            "there are no positions 'lats'; use all, prompt, generated, last, everywhere, ima",
        ),
        ("first:0", "there are no positions 'first:0'"),
        ("first:-1", "there are no positions"),
        ("", "there are no positions ''"),
        ([], "there are no positions"),
        ([1.5], "there are no positions"),
        ([True, 3], "there are no positions"),
        ("rows:1,x", "there are no positions 'rows:1,x'"),
        ([False, False], "the mask of positions is false everywhere"),
        (torch.zeros(2, 3).bool(), "the mask of positions is false everywhere"),
        (torch.ones(4), r"a mask of positions is of true and false .* not torch.float32"),
        (torch.ones(4).long(), "numbers of positions come in a list"),
        (torch.ones(1, 2, 3).bool(), r"of the shape \[1, 2, 3\]"),
    ],
)
def test_what_is_no_window_is_told(positions: Any, told: str) -> None:
    with pytest.raises(SteerlabError, match=told):
        add(STEP, positions=positions)


def test_a_mask_has_a_row_for_each_row() -> None:
    mask = torch.ones(1, 3, dtype=torch.bool)
    with pytest.raises(SteerlabError, match="has 1 rows, and the batch has a row 1"):
        steer(add(STEP, positions=mask), randn(2, 6, WIDTH), passes()[0])


def test_a_window_that_holds_nothing_raises() -> None:
    with pytest.raises(SteerlabError, match=r"touched no position \(positions: 99\)"):
        steer(add(STEP, positions=[99]), randn(2, 6, WIDTH), passes()[0])


def test_plain_hooks_take_everywhere() -> None:
    h = 3 * randn(2, 5, WIDTH)
    for positions, spared in (("all", 1), ("everywhere", 0)):
        [(_, hook)] = add(STEP, positions=positions).hooks(bos=True)
        assert [int((hook(h) == h).all(-1).sum()) // 2] == [spared]
    with pytest.raises(SteerlabError, match="a plain hook cannot know the positions 'last'"):
        add(STEP, positions="last").hooks(bos=True)


# ------------------------------------------------------------------------------ on a real model


@pytest.fixture(scope="module")
def step(directions: Any) -> Any:
    return directions.between("en", "de").at(3)


def outputs(model: Any, edit: Edit) -> list[str]:
    return decode(model, PROMPTS, edit=edit, max_new_tokens=NEW, one_line=False).texts


@pytest.mark.parametrize(
    "positions", ["last", "first:2", "everywhere", "last generated", [0, 2, -2, 14], "first:1 last"]
)
def test_every_way_of_decoding_touches_the_same(polyglot: Any, step: Any, positions: Any) -> None:
    """Ours, in a stack beside other edits, and Hugging Face's with a cache, without one, and with
    prompts that are read in pieces."""
    edit = add(step, strength=2.0, positions=positions)
    wanted = outputs(polyglot, edit)
    assert wanted != outputs(polyglot, Edit(()))
    mixed = [edit if number % 2 else add(step) for number in range(len(PROMPTS))]
    assert outputs(polyglot, stack(mixed))[1::2] == wanted[1::2]
    ids, mask = pad(encode(polyglot.tokenizer, PROMPTS), 0, polyglot.device)
    touched = []
    for way in (
        {},
        {"cache_implementation": "static"},
        {"prefill_chunk_size": 3},
        {"use_cache": False},
    ):
        with edit.on(polyglot) as stats:
            out = polyglot.hf.generate(
                ids, attention_mask=mask.long(), max_new_tokens=NEW, do_sample=False, **way
            )
        said = polyglot.tokenizer.batch_decode(out[:, ids.shape[1] :], skip_special_tokens=True)
        assert said == wanted, way
        touched.append((stats.prefill, stats.decode))
    assert touched[0] == touched[1] == touched[2]
    with edit.on(polyglot) as stats:
        decode(polyglot, PROMPTS, edit=Edit(()), max_new_tokens=NEW, one_line=False)
    assert (stats.prefill, stats.decode) == touched[0]


def test_everywhere_is_what_a_plain_hook_on_every_position_does(polyglot: Any, step: Any) -> None:
    """As exported control vectors are applied: BOS too, in the prompt and in each step."""
    ids, mask = pad(encode(polyglot.tokenizer, PROMPTS[:1]), 0, polyglot.device)
    options: Any = {"attention_mask": mask.long(), "max_new_tokens": NEW, "do_sample": False}
    block = polyglot.blocks[3]
    with block.register_forward_hook(
        lambda _, __, out: (
            (out[0] + 2 * step.gap * step.unit, *out[1:])
            if isinstance(out, tuple)
            else out + 2 * step.gap * step.unit
        )
    ):
        by_hook = polyglot.hf.generate(ids, **options)
    edit = add(step, strength=2.0, positions="everywhere")
    with edit.on(polyglot) as stats:
        ours = polyglot.hf.generate(ids, **options)
    assert torch.equal(ours, by_hook)
    assert stats.prefill == {3: ids.shape[1]}
    assert stats.decode == {3: NEW - 1}
    every = cross_entropy(polyglot, PROMPTS, [edit, add(step, strength=2.0)])
    assert not torch.equal(every[0], every[1]), "BOS matters"


def test_halves_and_enough_of_a_prompt_are_the_whole(polyglot: Any, step: Any) -> None:
    edit = add(step, strength=1.5)
    for positions, same in (
        (["prompt", "generated"], edit),
        ("first:99", add(step, strength=1.5, positions="prompt")),
        ([-1], add(step, strength=1.5, positions="last")),
    ):
        found = add(step, strength=1.5, positions=positions)
        assert outputs(polyglot, found) == outputs(polyglot, same)
        few = cross_entropy(polyglot, PROMPTS, [found, same])
        assert torch.equal(few[0], few[1])


def test_long_beginnings_are_not_shared_by_windows_that_count(polyglot: Any, step: Any) -> None:
    """Prompts with a long common beginning run it once for edits of halves; `last` is the last of
    each whole prompt."""
    start = "The weather is nice today. We eat bread with butter in the morning. "
    prompts = [start * 2 + each for each in PROMPTS]
    for positions in ("last", "first:3", "everywhere"):
        edit = add(step, strength=2.0, positions=positions)
        together = decode(polyglot, prompts, edit=edit, max_new_tokens=NEW, one_line=False).texts
        alone = [
            decode(polyglot, [prompt], edit=edit, max_new_tokens=NEW, one_line=False).texts[0]
            for prompt in prompts
        ]
        assert together == alone


def test_windows_and_gates_are_saved(tmp_path: Any) -> None:
    mask = torch.tensor([[True, False], [False, True]])
    made = add(STEP, positions=mask) | add(STEP, positions=["last", 3]).when(gates.positive(STEP))
    back = Edit.load(made.save(tmp_path / "edit.safetensors"))
    assert (back == made, back.digest) == (True, made.digest)
    h, place = 3 * randn(2, 6, WIDTH), passes()[0]
    assert same_bits(steer(back, h, place), steer(made, h, place))
    with pytest.raises(SteerlabError, match="has a gate of your own, own, and a file holds no"):
        add(STEP).when(own).save(tmp_path / "other.safetensors")


def test_a_window_has_one_name() -> None:
    assert window(["last", "last", 2]) == window("last 2") == "last 2"
    assert window([False, True, True]) == window([1, 2]) == "1 2"
    assert window(torch.tensor([[True], [False]])) == "rows:0/"
