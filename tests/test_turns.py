"""What is on a model acts on all that it runs: sweeps refuse it, and threads take turns."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

import steerlab as sl
from steerlab.core.errors import SteerlabError
from steerlab.edits import add
from steerlab.engine.collect import collect
from steerlab.engine.decoding import generate
from steerlab.models.loading import load

PROMPTS = ["The weather is nice today.\n", "No.\n"]


@pytest.fixture
def edits(directions: Any) -> list[Any]:
    return [
        add(directions.between("en", target).at(4), strength=2.0) for target in ("de", "es", "ru")
    ]


def in_a_thread(work: Callable[[], Any]) -> Any:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result(timeout=60)


@pytest.mark.parametrize("out", [None, "folder"])
def test_a_sweep_inside_an_edit_is_refused(polyglot, edits, tmp_path, out):
    folder = None if out is None else tmp_path / out
    grid: Any = {"layers": [3], "limit": 1, "targets": ["de"], "langs": ["en", "de"]}
    told = "an edit is on polyglot already, and a sweep takes the model as it is; leave"
    with edits[0].on(polyglot), pytest.raises(SteerlabError, match=told):
        sl.sweep(polyglot, out=folder, **grid)
    assert folder is None or not folder.exists()
    # An edit that only looks is one too, and so is somebody else's hook.
    with (
        polyglot.attached([("resid_post", 1, lambda h, where: None)]),
        pytest.raises(SteerlabError, match=told),
    ):
        sl.sweep(polyglot, out=folder, **grid)
    handle = polyglot.blocks[2].register_forward_hook(lambda _, __, out: out)
    try:
        with pytest.raises(SteerlabError, match=r"has a forward hook on model.layers.2, which may"):
            sl.sweep(polyglot, out=folder, **grid)
    finally:
        handle.remove()
    assert len(sl.sweep(polyglot, out=folder, strengths=[1.0], **grid))


def test_a_sweep_under_another_precision_is_refused(polyglot, tmp_path):
    """Its rows would be stored as those of the model's own precision."""
    keys: Any = {"layers": [1], "limit": 1, "strengths": [1.0], "targets": ["de"]}
    with (
        torch.autocast("cpu", torch.bfloat16),
        pytest.raises(SteerlabError, match=r"torch\.autocast is on, .* load it with dtype="),
    ):
        sl.sweep(polyglot, sl.corpus(langs=["en", "de"]), out=tmp_path / "a", **keys)
    assert not (tmp_path / "a").exists()


def test_a_model_in_training_is_not_read(lively):
    """Dropout would change its numbers at random."""
    model = sl.load(lively("gpt2"))
    wanted = sl.generate(model, ["No.\n"], max_new_tokens=2)
    model.hf.train()
    lines = sl.corpus(langs=["en", "de"]).take(1)
    for call in (
        lambda: sl.generate(model, ["No.\n"]),
        lambda: sl.cross_entropy(model, ["No.\n"], sl.Edit(())),
        lambda: sl.collect(model, lines),
    ):
        with pytest.raises(SteerlabError, match=r"is in training mode, .* call model\.hf\.eval"):
            call()
    model.hf.eval()
    assert sl.generate(model, ["No.\n"], max_new_tokens=2) == wanted


def test_hooks_that_transformers_leaves_are_no_edit(polyglot):
    """Once hidden states were asked for, it keeps hooks that only look on every block."""
    model = load()
    model.hf(**model.tokenizer("Yes.", return_tensors="pt"), output_hidden_states=True)
    assert any(block._forward_hooks for block in model.blocks)
    model.need_unedited("this test")


def test_a_bridge_that_has_run_is_as_it_was(tiny: Callable[[str], Path]) -> None:
    """Its first pass leaves hooks of TransformerLens' own, which nobody could remove; what a user
    puts on a hook point is refused still."""
    bridge = load(tiny("llama")).tl
    ids = torch.tensor([[1, 5, 6]])
    bridge.run_with_cache(ids)
    view = load(bridge)
    view.need_unedited("a sweep")
    bridge.add_hook("blocks.0.hook_resid_post", lambda value, hook: value + 1)
    with pytest.raises(SteerlabError, match="a forward hook on"):
        view.need_unedited("a sweep")


def test_a_run_inside_an_edit_is_refused_too(polyglot, edits, tmp_path):
    with edits[0].on(polyglot), pytest.raises(SteerlabError, match="and a run takes the model as"):
        sl.run(model=polyglot, out=tmp_path / "run")
    assert not (tmp_path / "run" / "manifest.json").exists()


def test_an_edit_on_another_view_of_the_network_is_seen(hooked, edits):
    view = load(hooked)
    nameless = type(edits[0])(edits[0].parts)
    with nameless.on(load(hooked)):
        assert view.attachments == 1
        with pytest.raises(SteerlabError, match="an edit is on"):
            view.need_unedited("a sweep")


def test_threads_take_turns(polyglot, edits):
    """Each thread's outputs are those of its own edit, however they interleave."""
    alone = [generate(polyglot, PROMPTS, edit=edit, max_new_tokens=8) for edit in edits]
    plain = generate(polyglot, PROMPTS, max_new_tokens=8)
    assert plain not in alone
    jobs = [*edits, None] * 3
    with ThreadPoolExecutor(4) as pool:
        work = [
            pool.submit(generate, polyglot, PROMPTS, edit=edit, max_new_tokens=8) for edit in jobs
        ]
        assert [each.result(timeout=120) for each in work] == [*alone, plain] * 3


def test_a_thread_beside_an_open_edit_is_told(polyglot, edits):
    ids = polyglot.tokenizer("Hello", return_tensors="pt").input_ids
    told = "another thread has an edit on this model, .* leave its `with` first"
    calls = [
        lambda: generate(polyglot, PROMPTS, max_new_tokens=2),
        lambda: polyglot.hf(ids),
        lambda: collect(polyglot, sl.corpus(langs=["en", "de"]).take(1)),
        lambda: polyglot.need_unedited("a sweep"),
    ]
    before = generate(polyglot, PROMPTS, max_new_tokens=2)
    with edits[0].on(polyglot):
        for call in calls:
            with pytest.raises(SteerlabError, match=told):
                in_a_thread(call)
        generate(polyglot, PROMPTS, max_new_tokens=2)  # this thread goes on
    assert in_a_thread(lambda: generate(polyglot, PROMPTS, max_new_tokens=2)) == before


def test_a_thread_waits_for_work_and_is_not_refused(polyglot, edits):
    """A reading that takes its time holds the model, and the other thread's call comes after."""
    begun = threading.Event()

    def slow() -> None:
        with polyglot.turns.taken():
            begun.set()
            begun_other.wait(10)
            with edits[0].on(polyglot):
                generate(polyglot, PROMPTS, max_new_tokens=8)

    begun_other = threading.Event()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(slow)
        assert begun.wait(10)
        second = pool.submit(generate, polyglot, PROMPTS, max_new_tokens=2)
        begun_other.set()
        first.result(timeout=60)
        second.result(timeout=60)


def test_what_is_collected_under_an_edit_says_so(polyglot, edits):
    part = sl.corpus(langs=["en", "de"]).take(1)
    assert "edited" not in collect(polyglot, part, layers=[4]).provenance
    with edits[0].on(polyglot):
        assert collect(polyglot, part, layers=[4]).provenance["edited"] is True
