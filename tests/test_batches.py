"""Plans depend on sizes alone; where memory runs out batches are halved, and what failed leaves
no trace."""

import os
import subprocess
import sys
from collections.abc import Sequence
from types import SimpleNamespace

import pytest
import torch

from steerlab.core.errors import SteerlabError
from steerlab.edits import EditStats
from steerlab.engine.batching import (
    LOGITS,
    ROWS,
    TOKENS,
    Plan,
    advise,
    memory,
    plan,
    row_bytes,
    run,
)
from steerlab.engine.decoding import decode
from steerlab.engine.forward import rows_on
from steerlab.models.loading import load


def sized(**sizes: int) -> SimpleNamespace:
    """A model of which only the sizes are known."""
    config = SimpleNamespace(
        **{"num_attention_heads": 32, "intermediate_size": 14336, "vocab_size": 128256} | sizes
    )
    shape = {
        "n_layers": 32,
        "width": 4096,
        "dtype": torch.bfloat16,
        "device": torch.device("cpu"),
        "name": "sized",
    }
    return SimpleNamespace(config=config, bytes=0, **shape)


def test_a_plan_holds_every_row_once_and_keeps_prompts_together(polyglot):
    ids = [[1, 5, 6], [1, 7], [1, 5, 6], [1, 8], [1, 7], [1, 5, 6]]
    made = plan(polyglot, ids, [3, 0, 1, 0, 2, 2], new=8, batch=2)
    assert made.batches == ((1, 4), (3, 2), (5, 0))  # by length, prompt, depth
    assert made == plan(polyglot, ids, [3, 0, 1, 0, 2, 2], new=8, batch=2)
    assert plan(polyglot, [], []).batches == ()


def test_keys_and_values_are_counted_as_they_are():
    """Llama-3.1-8B keeps 128 KiB a token: 32 layers, 8 heads of 128, keys and values, 2 bytes."""
    model = sized(num_key_value_heads=8, head_dim=128)
    grown = row_bytes(model, 100, new=100) - row_bytes(model, 100, new=50)
    assert grown == 2 * 50 * 128 * 1024  # twice: rows that leave copy the cache
    assert row_bytes(model, 100, every=True) - row_bytes(model, 100) == 99 * 128256 * 10
    # Greedy decoding compares logits as they are: none is copied to float32 and computed with.
    assert row_bytes(model, 100) - row_bytes(model, 100, greedy=True) == 128256 * 8


def test_logits_are_planned_for_as_they_come(polyglot):
    """The last position's alone, in the model's dtype."""
    model = load(dtype="bfloat16")
    with torch.inference_mode(), rows_on(model, [[1, 5, 6], [1, 7]], new=4) as rows:
        logits, _ = rows.forward([0, 1], room=4)
    assert logits.shape == (2, 1, model.vocabulary)
    assert logits.dtype == torch.bfloat16
    assert row_bytes(model, 3, new=4) - row_bytes(model, 3, new=4, greedy=True) == (
        8 * logits[0].numel()
    )
    assert row_bytes(polyglot, 3) - row_bytes(model, 3) > 2 * logits[0].numel()


def test_as_many_rows_as_pay_and_as_fit(polyglot, monkeypatch):
    assert advise(polyglot, 64, new=32) == ROWS
    assert advise(polyglot, 64, every=True) == TOKENS // 64
    large = sized(vocab_size=262144, num_key_value_heads=1)
    rows = advise(large, 64, every=True)
    assert rows == LOGITS // 262144 // 64
    assert rows * 64 * 262144 * 10 <= 1.4e9  # bytes of all logits, and what is computed from them
    need = row_bytes(polyglot, 64, new=32)
    monkeypatch.setattr(
        "steerlab.engine.batching.memory", lambda device: polyglot.bytes + 20 * need
    )
    assert advise(polyglot, 64, new=32) == 10
    monkeypatch.setattr("steerlab.engine.batching.memory", lambda device: polyglot.bytes + need)
    told = (
        r"a row of \d+ tokens and 32 new ones needs about .* GiB beside the weights of polyglot, "
        r".*shorten the prompt"
    )
    with pytest.raises(SteerlabError, match=told):
        advise(polyglot, 64, new=32)
    with pytest.raises(SteerlabError, match=told):
        decode(polyglot, ["The weather " * 31], max_new_tokens=32)


def test_of_a_large_model_fewer_rows_pay_on_a_processor(monkeypatch):
    """So that memory does not grow where speed does not; a GPU takes as many as it holds."""
    monkeypatch.setattr("steerlab.engine.batching.memory", lambda device: 10**14)
    model = sized(num_key_value_heads=1)
    for weights, rows in ((10**7, ROWS), (268 * 10**6, 256), (8 * 10**9, 128)):
        model.bytes = weights * torch.empty(0, dtype=model.dtype).element_size()
        assert advise(model, 64, new=32) == rows
        on_gpu = SimpleNamespace(**vars(model) | {"device": torch.device("cuda")})
        assert advise(on_gpu, 64, new=32) == ROWS


def test_weights_that_fill_most_of_a_device_leave_room_for_rows(monkeypatch):
    """A model of 27 billion parameters in bfloat16 runs on a GPU of 80 GB, though the weights
    take two thirds of it."""
    model = sized(num_key_value_heads=16, head_dim=128)
    model.bytes = 54 * 10**9
    monkeypatch.setattr("steerlab.engine.batching.memory", lambda device: 80 * 10**9)
    assert 16 <= advise(model, 64, new=32) <= ROWS


def test_a_batch_of_no_rows(polyglot):
    with pytest.raises(SteerlabError, match="a batch of 0 rows is none; give 1 or more"):
        decode(polyglot, ["No.\n"], batch=0)


def test_half_the_rows_where_memory_runs_out(capsys):
    done, counted = [], EditStats()

    def work(rows: Sequence[int]) -> None:
        counted.passes += 1
        if len(rows) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        done.append(tuple(rows))

    kept = run(Plan((tuple(range(8)), tuple(range(8, 16))), 8, 0), work, counted.mark, counted.undo)
    assert [row for batch in done for row in batch] == list(range(16))
    assert kept == Plan(tuple(done), 2, 0)
    assert max(map(len, done)) == 2
    assert counted.passes == len(done)  # what failed is not counted
    assert "memory ran out at 8 rows; going on with batches of 4" in capsys.readouterr().err


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_not_even_one_row(error):
    def work(rows: Sequence[int]) -> None:
        raise error

    with pytest.raises(
        SteerlabError, match="memory ran out at a batch of one row: shorten the prompt"
    ):
        run(Plan(((0, 1),), 2, 0), work, lambda: None, lambda mark: None)


def test_other_errors_are_not_hidden():
    def work(rows: Sequence[int]) -> None:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes do not match"):
        run(Plan(((0, 1),), 2, 0), work, lambda: None, lambda mark: None)


STARVED = """
import resource, sys, torch
torch.set_num_threads(1)
from steerlab import add, collect, corpus, diffmean, load, stack
from steerlab.engine.decoding import decode
from steerlab.engine.forward import rows_on
from steerlab.models.loading import load
model = load()
lines = corpus().split("dev")
some = corpus().select(["en", "de", "es"]).split("estimate").take(8)
directions = diffmean(collect(model, some, also=[]))
step = directions.between("en", "es")
prompts = [f"{line}\\n" for line in lines["en"][:16]] * 32
edit = stack([add(step.at(row % 8), strength=1 + row % 3) for row in range(len(prompts))])
decode(model, prompts[:2], edit=stack([add(step.at(1))] * 2), max_new_tokens=2)
free = decode(model, prompts, edit=edit, max_new_tokens=8, one_line=False)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 60 * 2**20, used + 60 * 2**20))
starved = decode(model, prompts, edit=edit, max_new_tokens=8, one_line=False)
assert starved.plan.rows < free.plan.rows, starved.plan.rows
assert starved.texts == free.texts
assert starved.touched.prefill == free.touched.prefill
assert starved.touched.decode == free.touched.decode
print(free.plan.rows, starved.plan.rows)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits a process' memory as Linux does")
def test_a_process_that_really_runs_out_of_memory_says_the_same():
    # What is freed goes back to the system at once: else the second run may fit into what the first
    # has left behind, and nothing runs out.
    env = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "1000000"}
    done = subprocess.run([sys.executable, "-c", STARVED], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    assert "memory ran out at 512 rows; going on with batches of 256" in done.stderr


def test_memory_is_that_of_the_device():
    assert memory(torch.device("cpu")) > 2**30
