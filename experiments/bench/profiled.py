"""Where the time of our sweep goes, and how far it is from what the arithmetic alone would take."""

from functools import partial
from typing import Any

import torch
from gpu import LAYERS, grid, ours, rates
from machine import threads
from measures import interleaved, seconds, spread
from shared import NEW_TOKENS, PROMPTS, STRENGTHS
from torch.profiler import ProfilerActivity, profile

import steerlab as sl

TARGETS = 4
ROWS = (128, 256, 512, 1024)  # of a batch; steerlab.engine.batching.ROWS is what is taken
KINDS = {
    "matrix products": ("mm", "linear", "matmul"),
    "attention": ("attention",),
    "copies, gathers, concatenation": (
        "copy",
        "cat",
        "index",
        "gather",
        "clone",
        "fill",
        "zero",
        "scatter",
        "to",
    ),
}
REST, OUTSIDE = "elementwise, norms and other tensor work", "Python between the operations"


def measure(*, quick: bool) -> dict[str, Any]:
    model = sl.load(dtype="float32")
    prompts = [f"{line}\n" for line in sl.corpus().split("dev").take(PROMPTS)["en"]]
    model.tokenizer.eos_token = None  # no row ends early
    cells = grid(model, 1 if quick else TARGETS)
    ours(model, prompts, cells)
    plain = seconds(lambda: ours(model, prompts, cells))
    with profile(activities=[ProfilerActivity.CPU], acc_events=True) as told:
        watched = seconds(lambda: ours(model, prompts, cells))
    spent = by_kind({event.key: event.self_cpu_time_total / 1e6 for event in told.key_averages()})
    spent[OUTSIDE] = max(0.0, watched - sum(spent.values()))
    rows = [{"what": kind, "s": value, "share": value / watched} for kind, value in spent.items()]
    rows.append({"what": "in all, watched", "s": watched, "share": 1.0})
    weights = (
        sum(p.numel() for p in model.blocks.parameters()) + model.width * model.config.vocab_size
    )
    _, rate = rates("cpu", torch.float32, 512 if quick else 2048)
    least = 2 * weights * len(cells) * PROMPTS * NEW_TOKENS / rate
    rows += [
        {"what": "in all, not watched", "s": plain},
        {"what": "the arithmetic alone", "s": least},
    ]
    notes = [
        f"Polyglot, {LAYERS} layers x {len(cells) // (LAYERS * len(STRENGTHS))} directions x "
        f"{len(STRENGTHS)} "
        f"strengths x {PROMPTS} prompts in one call, equal work. Shares are of the thread that "
        "calls, under "
        "torch.profiler, which slows the Python part down.",
        "The arithmetic alone: two FLOPs for each weight and new token, at the rate of one large "
        "matrix product here "
        f"({rate / 1e9:.0f} GFLOP/s, {threads()} threads).",
    ]
    taken = interleaved(
        {str(size): partial(ours, model, prompts, cells, batch=size) for size in ROWS},
        rounds=1 if quick else 3,
    )
    sizes = [{"rows of a batch": int(size), "s": spread(times)} for size, times in taken.items()]
    tables = [
        {"title": "A sweep's seconds", "rows": rows},
        {"title": "By the rows of a batch", "rows": sizes},
    ]
    return {"tables": tables, "notes": notes}


def by_kind(times: dict[str, float]) -> dict[str, float]:
    """Seconds of torch's operations by what they do."""
    found = dict.fromkeys([*KINDS, REST], 0.0)
    for name, spent in times.items():
        words = name.removeprefix("aten::").strip("_").replace("_", " ").split()
        kind = next(
            (kind for kind, stems in KINDS.items() if any(word.endswith(stems) for word in words)),
            REST,
        )
        found[kind] += spent
    return found
