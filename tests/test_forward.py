"""One pass of many rows: in the order they were asked for, each as it is alone, refused before
anything runs, and run again in halves where memory runs out."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
import torch
from conftest import PROMPTS, random_directions
from torch import Tensor

from steerlab.core.corpus import Corpus
from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.core.firing import Firing
from steerlab.edits import Edit, ablate, add, stack
from steerlab.engine.batching import InOrder, plan, plan_in_order, row_bytes
from steerlab.engine.collect import collect
from steerlab.engine.collect_gradients import collect_gradients
from steerlab.engine.collect_units import collect_units
from steerlab.engine.forward import read, rows_on
from steerlab.engine.prompts import encode, pad
from steerlab.models.loading import load
from steerlab.models.model import Model
from steerlab.models.positions import Positions, positions_of, step_positions

Shaped = Callable[[str], Model]

ROWS = 12


def edits_of(model: Model) -> list[Edit]:
    """Edits that join their prompts at every depth, none among them; later rows join earlier."""
    directions = random_directions(model)
    step = directions.between("en", "es")
    depths = range(model.n_layers)
    made = [add(step.at(depths[-1 - row % len(depths)]), strength=row + 1) for row in range(8)]
    return [Edit(()), *made, ablate(directions["es"].at(1)), Edit(()), made[0] | made[3]]


def ids_of(model: Model) -> list[list[int]]:
    """Prompts of three lengths, each of several rows, none beside its like."""
    return encode(model.tokenizer, [PROMPTS[row % 3] for row in range(ROWS)])


@torch.inference_mode()
def alone(model: Model, ids: Sequence[int], edit: Edit) -> Tensor:
    """[pos vocab]: the logits of one row by itself, by Hugging Face's own forward, without a
    cache."""
    with edit.on(model):
        logits: Tensor = model.hf(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
    return logits


def hooks_of(model: Model) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.hf.modules())


# ----------------------------------------------------------------------------------- what rows give


@pytest.fixture(params=["polyglot", "gpt2", "gemma3"])
def model(request: pytest.FixtureRequest, shaped: Shaped) -> Model:
    return shaped(request.param)


@pytest.mark.parametrize("order", [range(ROWS), range(ROWS - 1, -1, -1), [7, 0, 3, 10, 1]])
@torch.inference_mode()
def test_rows_are_what_they_are_alone_in_the_order_asked_for(
    order: Sequence[int], model: Model
) -> None:
    """The prompts' logits at every position, then a step, then two tokens at once of which some are
    padding."""
    edits, ids = edits_of(model), ids_of(model)
    with rows_on(model, ids, stack(edits)) as rows:
        logits, done = rows.forward(order, keep="all", room=4)
        stepped = done.step(torch.full((len(order),), 700))
        real = torch.tensor([[True, row % 2 == 0] for row in order])
        more = done.follow(torch.tensor([[800, 900]] * len(order)), real)
    close = partial(torch.testing.assert_close, atol=2e-4, rtol=1e-3)
    whole = [alone(model, [*ids[row], 700, 800, 900], edits[row]) for row in order]
    for index, row in enumerate(order):
        length = len(ids[row])
        assert done.tokens[index, -length:].tolist() == ids[row]
        assert done.carries[index] == row
        close(logits[index, -length:], whole[index][:length])
        close(stepped[index], whole[index][length])
        seen = whole[index][length + 1 : length + 2 + int(real[index, 1])]
        close(more[index, : len(seen)], seen)
    # The negative control: in the order in which rows join they would be other rows' logits.
    joined = sorted(range(len(order)), key=lambda index: rows.depth[order[index]])
    wanted = torch.stack([whole[index][len(ids[row])] for index, row in enumerate(order)])
    assert not torch.allclose(stepped[joined], wanted, atol=1e-2)


@torch.inference_mode()
def test_the_last_position_is_that_of_all(model: Model) -> None:
    edits, ids = edits_of(model), ids_of(model)
    with rows_on(model, ids, stack(edits)) as rows:
        order = [5, 2, 11, 0]
        whole, _ = rows.forward(order, keep="all")
        last, done = rows.forward(order)
    assert last.shape == (4, 1, model.vocabulary)
    assert done.cache is None
    torch.testing.assert_close(last[:, 0], whole[:, -1], atol=1e-4, rtol=1e-4)


def test_a_batch_is_run_in_the_order_that_needs_no_copy(polyglot: Model) -> None:
    """By depth where rows share a prompt; as they are where none does."""
    edits, ids = edits_of(polyglot), ids_of(polyglot)
    given: list[list[int]] = []
    with rows_on(polyglot, ids, stack(edits)) as rows:
        rows.run(given.append, plan(polyglot, ids, rows.depth, batch=5))
        assert rows.as_they_run([3, 2, 1]) == [3, 2, 1]  # of three prompts
        for batch in given:
            depths = [rows.depth[row] for row in batch]
            shared = len({tuple(ids[row]) for row in batch}) < len(batch)
            assert shared
            assert depths == sorted(depths)
    assert sorted(row for batch in given for row in batch) == list(range(ROWS))
    assert any(batch != sorted(batch) for batch in given)


@torch.inference_mode()
def test_rows_that_leave_and_rows_that_have_ended(polyglot: Model) -> None:
    """What goes on is what was taken, in its order; what is not live is neither changed nor
    counted."""
    edits = [add(random_directions(polyglot).between("en", "es").at(layer)) for layer in (1, 4, 6)]
    ids = encode(polyglot.tokenizer, [PROMPTS[0]] * 3)
    chosen = torch.tensor([2, 0])
    with rows_on(polyglot, ids, stack(edits), new=3) as rows:
        _, done = rows.forward(range(3), room=3)
        before = dict(rows.touched.decode)
        done.take(chosen)
        first = done.step(torch.tensor([700, 701]))
        assert _gain(before, rows.touched.decode) == {1: 1, 6: 1}
        before = dict(rows.touched.decode)
        second = done.step(torch.tensor([800, 801]), torch.tensor([False, True]))
        assert _gain(before, rows.touched.decode) == {1: 1}
    for index, row in enumerate(chosen.tolist()):
        whole = alone(polyglot, [*ids[row], 700 + index, 800 + index], edits[row])
        torch.testing.assert_close(first[index], whole[-2], atol=1e-4, rtol=1e-3)
        assert torch.allclose(second[index], whole[-1], atol=1e-4, rtol=1e-3) == (index == 1)


def _gain(before: dict[int, int], after: dict[int, int]) -> dict[int, int]:
    gained = {layer: count - before.get(layer, 0) for layer, count in after.items()}
    return {layer: count for layer, count in gained.items() if count}


@torch.inference_mode()
def test_rows_of_an_edit_that_is_no_stack_share_their_prompts(polyglot: Model) -> None:
    edit = add(random_directions(polyglot).between("en", "es").at(5), strength=2.0)
    ids = ids_of(polyglot)
    for given in (edit, None):
        with rows_on(polyglot, ids, given) as rows, _sizes(polyglot) as sizes:
            logits, _ = rows.forward(range(ROWS))
        assert sizes[0] == 3
        assert sizes[-1] == (ROWS if given else 3)  # without an edit rows leave after the last
        for row in range(ROWS):
            wanted = alone(polyglot, ids[row], given or Edit(()))[-1]
            torch.testing.assert_close(logits[row, 0], wanted, atol=1e-4, rtol=1e-3)


@torch.inference_mode()
def test_inside_another_edit_every_row_runs_by_itself(polyglot: Model) -> None:
    step = random_directions(polyglot).between("en", "es")
    outer, edits, ids = add(step.at(0)), edits_of(polyglot), ids_of(polyglot)
    with (
        outer.on(polyglot),
        rows_on(polyglot, ids, stack(edits)) as rows,
        _sizes(polyglot) as sizes,
    ):
        logits, _ = rows.forward(range(ROWS))
    assert set(sizes) == {ROWS}
    for row in range(ROWS):
        wanted = alone(polyglot, ids[row], outer | edits[row])[-1]
        torch.testing.assert_close(logits[row, 0], wanted, atol=1e-4, rtol=1e-3)
    with rows_on(polyglot, ids, stack(edits)) as rows, _sizes(polyglot) as sizes:
        rows.forward(range(ROWS))
    assert sizes[0] < ROWS, "without an edit around prompts are shared"


@contextmanager
def _sizes(model: Model) -> Iterator[list[int]]:
    """How many members the batch has in each block."""
    sizes: list[int] = []
    handles = [
        block.register_forward_pre_hook(
            lambda _, args, kwargs: sizes.append(len(args[0] if args else kwargs["hidden_states"])),
            with_kwargs=True,
        )
        for block in model.blocks
    ]
    try:
        yield sizes
    finally:
        for handle in handles:
            handle.remove()


# ---------------------------------------------------------------------------------- what is refused


def test_what_cannot_be_is_refused_before_anything_runs(polyglot: Model) -> None:
    step, ids = random_directions(polyglot).between("en", "es"), ids_of(polyglot)[:2]
    edit, late = add(step.at(5)), add(step.at(5), positions="generated")
    long = [[1, *[700] * (polyglot.context - 1)]]
    some = stack([edit, edit])
    refused: list[tuple[str, Any]] = [
        (r"a text has 513 tokens; polyglot was made for 512: cut it", ([[*long[0], 5]],)),
        (r"nothing is generated when texts are read; give edits of .* 'all'", (ids, edit | late)),
        (r"there are 1 prompts and the stack has 2 edits; give each prompt one", (ids[:1], some)),
    ]
    before = hooks_of(polyglot)
    with _sizes(polyglot) as sizes:
        for message, given in refused:
            with pytest.raises(SteerlabError, match=message), rows_on(polyglot, *given):
                pass
        told = r"a prompt of 512 tokens and 1 new ones make 513; polyglot was made for 512"
        with pytest.raises(SteerlabError, match=told), rows_on(polyglot, long, new=1):
            pass
        for carries, told in {
            (0, 2): "rows carry the edits 0 to 2 of a stack of 2; their numbers are 0 to 1",
            (-1, 0): "rows carry the edits -1 to 0 of a stack of 2",
            (0,): "there are 2 rows and 1 numbers of what each carries; give each row one",
        }.items():
            with (
                pytest.raises(SteerlabError, match=told),
                rows_on(polyglot, ids, some, carries=carries),
            ):
                pass
        told = "an edit is on the model already, so that it cannot be read as it is; leave the"
        with (
            edit.on(polyglot),
            pytest.raises(SteerlabError, match=told),
            rows_on(polyglot, ids, unsteered=True),
        ):
            pass
    assert not sizes
    assert hooks_of(polyglot) == before
    # The negative controls: each of them is allowed where it makes sense.
    with rows_on(polyglot, long) as rows:
        assert rows.forward([0])[0].shape[:2] == (1, 1)
    with rows_on(polyglot, ids, edit | late, new=1) as rows:
        rows.forward([0])
    with rows_on(polyglot, ids, some, carries=[1, 1]) as rows:
        assert rows.forward([0, 1])[1].carries.tolist() == [1, 1]
    with edit.on(polyglot), rows_on(polyglot, ids) as rows:
        rows.forward([0])


# ------------------------------------------------------------------------ positions are an argument


@torch.inference_mode()
def test_positions_say_which_row_is_which(polyglot: Model) -> None:
    step = random_directions(polyglot).between("en", "es")
    edits = [add(step.at(layer), strength=3.0) for layer in (2, 4, 6)]
    ids, mask = pad(ids_of(polyglot)[:2], polyglot.tokenizer.pad_token_id, polyglot.device)
    bos = polyglot.tokenizer.bos_token_id
    named = positions_of(ids, mask, past=0, bos=bos, rows=torch.tensor([2, 0]))
    with stack(edits).on(polyglot):
        swapped = polyglot.forward(ids, mask, last=1, positions=named)[0][:, 0]
        in_order = polyglot.forward(ids, mask, last=1)[0][:, 0]
    for index, row in enumerate((2, 0)):
        wanted = alone(polyglot, ids[index][mask[index]].tolist(), edits[row])[-1]
        torch.testing.assert_close(swapped[index], wanted, atol=1e-4, rtol=1e-3)
        assert not torch.allclose(in_order[index], wanted, atol=1e-2)


def test_a_step_is_all_text_but_for_rows_that_have_ended() -> None:
    rows = torch.tensor([4, 1, 9])
    whole = step_positions(rows)
    assert whole.step
    assert whole.rows is rows  # the same object: an edit looks its rows up once
    assert whole.text.all()
    assert whole.generated.all()
    part = step_positions(rows, torch.tensor([True, False, True]))
    assert not part.step
    assert part.text.tolist() == [[True], [False], [True]]
    assert part.generated.all()


def test_a_model_remembers_no_pass(polyglot: Model) -> None:
    """Neither one of ours, nor one of Hugging Face's, nor one that failed: a block by itself is
    refused."""
    edit = add(random_directions(polyglot).between("en", "es").at(5))
    ids = torch.tensor(ids_of(polyglot)[:1])
    h = torch.zeros(1, ids.shape[1], polyglot.width)
    before = dict(vars(polyglot))

    rotary = polyglot.hf.base_model.rotary_emb(h, torch.arange(h.shape[1])[None])

    def lonely() -> None:
        with pytest.raises(SteerlabError, match="a block of polyglot ran by itself"):
            polyglot.blocks[5](h, position_embeddings=rotary)

    with torch.inference_mode(), edit.on(polyglot) as touched:
        polyglot.forward(ids, torch.ones_like(ids, dtype=torch.bool))
        lonely()
        polyglot.hf(input_ids=ids)
        lonely()
        handle = polyglot.blocks[2].register_forward_hook(_fail)
        with pytest.raises(ZeroDivisionError):
            polyglot.hf(input_ids=ids)
        handle.remove()
        lonely()
        polyglot.hf.generate(ids, max_new_tokens=3, min_new_tokens=3, do_sample=False)
        assert touched.decode == {5: 2}
    assert {key: value for key, value in vars(polyglot).items() if key in before} == before
    assert polyglot._where is None
    assert not {"rows", "live"} & set(dir(polyglot))


def _fail(*_: Any) -> None:
    raise ZeroDivisionError


# --------------------------------------------------------------------------- where memory is short


@torch.inference_mode()
def test_a_batch_that_runs_out_of_memory_leaves_no_trace(
    polyglot: Model, capsys: pytest.CaptureFixture[str]
) -> None:
    edits, ids = edits_of(polyglot), ids_of(polyglot)
    found: dict[int, dict[int, Tensor]] = {}
    doses, passes = {}, {}
    for most in (ROWS, 3):
        last: dict[int, Tensor] = {}
        with rows_on(polyglot, ids, stack(edits)) as rows:

            def work(chosen: Sequence[int], most: int = most, last: Any = last) -> None:
                logits, _ = rows.forward(chosen)
                if len(chosen) > most:
                    raise torch.OutOfMemoryError("CUDA out of memory")
                last |= dict(zip(chosen, logits[:, 0], strict=True))

            kept = rows.run(work, plan(polyglot, ids, rows.depth, batch=ROWS))
        assert max(map(len, kept.batches)) <= most
        found[most], doses[most] = last, rows.touched.doses(ROWS)
        passes[most] = rows.touched.prefill
    assert "memory ran out at 12 rows; going on with batches of 6" in capsys.readouterr().err
    assert sorted(found[3]) == list(range(ROWS))
    for row in range(ROWS):
        torch.testing.assert_close(found[3][row], found[ROWS][row], atol=1e-4, rtol=1e-3)
    assert passes[3] == passes[ROWS]
    torch.testing.assert_close(doses[3], doses[ROWS])


def test_in_the_given_order_at_most_so_many_rows(
    polyglot: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [[1] * length for length in (9, 3, 7, 3, 5)]
    assert plan_in_order(polyglot, ids, batch=2).batches == ((0, 1), (2, 3), (4,))
    assert plan(polyglot, ids, [0] * 5, batch=2).batches != ((0, 1), (2, 3), (4,))
    assert plan_in_order(polyglot, ids, batch=64).batches == ((0, 1, 2, 3, 4),)
    assert plan_in_order(polyglot, [], batch=1).batches == ()
    need = row_bytes(polyglot, 9)
    monkeypatch.setattr("steerlab.engine.batching.memory", lambda _: polyglot.bytes + 6 * need)
    assert plan_in_order(polyglot, ids, batch=64).batches == ((0, 1, 2), (3, 4))
    message = "a row of 9 tokens and 0 new ones needs about .* GiB beside the weights of polyglot"
    with pytest.raises(SteerlabError, match=message):
        plan_in_order(polyglot, ids, batch=64, backward=True)
    with pytest.raises(SteerlabError, match="a batch of 0 rows is none; give 1 or more"):
        plan_in_order(polyglot, ids, batch=0)


def test_once_memory_has_run_out_later_batches_are_small_too(
    polyglot: Model, capsys: pytest.CaptureFixture[str]
) -> None:
    ids, tried = [[1, 5]] * 8, []

    def work(rows: Sequence[int]) -> list[int]:
        tried.append(len(rows))
        if len(rows) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return list(rows)

    reader = InOrder(polyglot)
    assert reader.run(ids[:3], work) == [[0, 1, 2]]
    assert reader.run(ids, work) == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert reader.run(ids, work) == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert tried == [3, 8, 4, *[2] * 8]
    assert reader.run([], work) == []
    assert capsys.readouterr().err.count("memory ran out") == 2


class Starved:
    """A pass of a model that runs, and then finds no memory, where it has more than `most` rows."""

    def __init__(self, run: Callable[..., Any], most: int):
        self.run, self.most, self.failed = run, most, 0

    def __call__(self, ids: Tensor, *rest: Any, **named: Any) -> Any:
        result = self.run(ids, *rest, **named)
        if len(ids) > self.most:
            self.failed += 1
            raise torch.OutOfMemoryError("CUDA out of memory")
        return result


@pytest.mark.parametrize("units", [False, True])
def test_what_is_added_up_is_the_same_where_memory_runs_out(
    units: bool, polyglot: Model, lines: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failed pass has looked at every layer before it fails: nothing of it may be counted."""
    texts = lines.select(["en", "de"]).split("estimate").take(12)

    def gather() -> dict[str, Tensor]:
        if units:
            firing = collect_units(polyglot, texts, layers=[1, 6], keep=9, batch=8)
            counts = ("tokens", "texts", "on", "texts_on", "total", "square", "sums", "seen")
            return {name: getattr(firing, name) for name in counts}
        moments = collect(polyglot, texts, layers=[1, 6], also=["scatter", "pairs"], batch=8)
        assert moments.pairs is not None
        names = ("count", "rows", "mean", "pooled", "last", "within")
        kept = {name: getattr(moments, name) for name in names}
        return kept | {"pairs": moments.pairs.count, "square": moments.pairs.square}

    whole = gather()
    starved = Starved(polyglot.body, 3)
    monkeypatch.setattr(polyglot, "body", starved)
    halved = gather()
    assert starved.failed == 2  # eight rows, then four; later batches have two
    assert whole.keys() == halved.keys()
    for name, value in whole.items():
        if name in ("on", "texts_on", "seen"):
            # A unit that is at 0 up to rounding may be on in one batch and not in the other.
            assert float((halved[name] != value).float().mean()) < 1e-3, name
        else:
            close = 1e-4 * float(value.abs().max())
            torch.testing.assert_close(halved[name], value, atol=close, rtol=0)


def test_gradients_are_the_same_where_memory_runs_out(
    polyglot: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = {"en": [(f"{prompt}The", "cat sat") for prompt in PROMPTS] * 2}
    whole = collect_gradients(polyglot, items, layers=[2, 5]).score
    starved = Starved(polyglot.forward, 3)
    monkeypatch.setattr(polyglot, "forward", starved)
    halved = collect_gradients(polyglot, items, layers=[2, 5]).score
    assert starved.failed == 2
    largest = float(whole.abs().max())
    assert largest > 0
    torch.testing.assert_close(halved, whole, atol=1e-4 * largest, rtol=0)


def test_sums_of_a_batch_count_only_when_they_are_added(polyglot: Model) -> None:
    """The negative control of the above: what is summed and thrown away is not there; what is added
    twice is."""
    firing = Firing(("en",), (0,), 3, 2, site="mlp_post")
    text = torch.ones(2, 4, dtype=torch.bool)
    value = torch.rand(2, 4, 3, generator=torch.Generator().manual_seed(0)) - 0.5
    given: dict[str, Tensor] = {"value": value, "states": torch.ones(2, 4, 2), "mask": text}
    sums = firing.summed("en", 0, on=value > 0, **given)
    assert firing.on.sum() == 0
    firing.add("en", 0, sums)
    once = firing.on.clone()
    assert torch.equal(once[0, 0], (value > 0).sum((0, 1)).double())
    firing.update("en", 0, on=value > 0, **given)
    assert torch.equal(firing.on, 2 * once)


# ------------------------------------------------------------------------------ texts that are read


@torch.inference_mode()
def test_texts_are_read_and_nothing_else(polyglot: Model) -> None:
    ids = ids_of(polyglot)[:3]
    seen: list[tuple[Tensor, Positions]] = []
    text = read(polyglot, ids, [("resid_post", 3, lambda h, where: seen.append((h, where)))])
    assert text.sum(1).tolist() == [len(row) - 1 for row in ids]  # less BOS
    assert torch.equal(text, seen[0][1].text)
    for row in range(3):
        out = polyglot.hf(input_ids=torch.tensor(ids[row : row + 1]), output_hidden_states=True)
        torch.testing.assert_close(
            seen[0][0][row, text[row]], out.hidden_states[4][0, 1:], atol=1e-4, rtol=1e-3
        )


@torch.inference_mode()
def test_a_view_of_transformer_lens_gives_the_same_rows(
    polyglot: Model, lens: Callable[[str, str], Any], directions: Directions
) -> None:
    """It cannot let rows branch off: each runs its own prompt."""
    viewed = load(lens("polyglot", "hooked"))
    step = directions.between("en", "es")
    edits = [add(step.at(layer)) for layer in (5, 2, 0, 7)]
    ids = encode(polyglot.tokenizer, [PROMPTS[0], PROMPTS[1]] * 2)
    given = []
    for model in (polyglot, viewed):
        with rows_on(model, ids, stack(edits)) as rows:
            logits, done = rows.forward([3, 0, 1], room=1)
            given.append(torch.stack([logits[:, -1], done.step(torch.tensor([700, 701, 702]))]))
    torch.testing.assert_close(
        given[0].log_softmax(-1), given[1].log_softmax(-1), atol=1e-3, rtol=1e-3
    )
    assert not torch.allclose(given[0][:, 0], given[0][:, 1], atol=0.1)


# ------------------------------------------------------------------- no more than what is looked at


def views(shaped: Shaped, lens: Callable[[str, str], Any], name: str) -> Model:
    """A model as transformers runs it, or as one of TransformerLens' two does."""
    shape, _, kind = name.partition(" ")
    return load(lens(shape, kind)) if kind else shaped(shape)


@pytest.mark.parametrize(
    "name", ["gpt2", "gemma3", "mixtral", "polyglot", "llama hooked", "gemma3 bridge"]
)
@torch.inference_mode()
def test_the_last_logits_are_the_end_of_all(
    shaped: Shaped, lens: Callable[[str, str], Any], name: str
) -> None:
    model = views(shaped, lens, name)
    ids, mask = pad(ids_of(model)[:3], model.padding, model.device)
    every = model.forward(ids, mask)[0]
    for count in (1, 4):
        some = model.forward(ids, mask, last=count)[0]
        assert some.shape[1] == count
        torch.testing.assert_close(some, every[:, -count:], atol=1e-4, rtol=1e-4)
    assert every.shape[1] == ids.shape[1]


@pytest.mark.parametrize("name", ["gpt2", "gemma3", "polyglot", "llama hooked", "gemma3 bridge"])
@torch.inference_mode()
def test_a_look_ends_the_pass_behind_its_layer(
    shaped: Shaped, lens: Callable[[str, str], Any], name: str
) -> None:
    model = views(shaped, lens, name)
    ids = ids_of(model)[:3]
    tokens, mask = pad(ids, model.padding, model.device)
    entered: list[int] = []
    seen: list[Tensor] = []
    look = ("resid_post", 0, lambda h, _: seen.append(h.clone()))
    with model.turns.taken(), model.attached([look]):
        model.forward(tokens, mask)
    handles = [
        block.register_forward_pre_hook(lambda *_, number=number: entered.append(number))
        for number, block in enumerate(model.blocks)
    ]
    before = hooks_of(model)
    try:
        read(model, ids, [look, ("resid_pre", 0, lambda h, _: None)])
    finally:
        assert hooks_of(model) == before
        for handle in handles:
            handle.remove()
    whole, cut = seen
    torch.testing.assert_close(cut[mask], whole[mask], atol=0, rtol=0)
    assert entered == [0, 1]  # that of 1 was asked, and went no further
    assert model.forward(tokens, mask)[0].shape[1] == tokens.shape[1]
