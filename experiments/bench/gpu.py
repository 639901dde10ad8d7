"""The sweep and the cost of steering on a GPU: random weights in the shapes of Llama-3.2-1B and
Llama-3.1-8B, bf16.

`python experiments/bench/gpu.py [--out FOLDER]` on a machine with CUDA puts a section into
benchmarks.json and writes benchmarks.md anew; `make bench ARGS="--only gpu"` does the same. Speed
does not depend on the weights, so none are fetched; prompts are polyglot's, within its vocabulary.
Contenders are steerlab and the loop over cells with Hugging Face's `generate` and a plain hook, on
the same weights in one process, in turns.

A decoding step cannot take less than the time to read the weights and the cache once, or than the
arithmetic of its rows, whichever is longer: the roofline. Both rates are measured on the device
first, by a copy and a matrix product.
"""

import argparse
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import machine
import report
import torch
from decoding import compare
from environments import ROOT
from measures import ratio, seconds, spread
from sections import SECTIONS
from shared import NEW_TOKENS, PROMPTS, STRENGTHS, TARGETS

import steerlab as sl
from steerlab.core.directions import Direction
from steerlab.engine.prompts import encode, pad
from steerlab.models.huggingface import HuggingFaceModel
from steerlab.models.loading import PACKAGED
from steerlab.models.model import Model

SHAPES: dict[str, dict[str, Any]] = {
    "Llama-3.2-1B": {
        "vocab_size": 128256,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "tie_word_embeddings": True,
    },
    "Llama-3.1-8B": {
        "vocab_size": 128256,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "tie_word_embeddings": False,
    },
}
AIMS = {"Llama-3.2-1B": "30", "Llama-3.1-8B": "20"}
LAYERS = 8
TOGETHER = 512  # rows of a decoding step that a sweep's roofline is stated for


@dataclass(frozen=True)
class Scale:
    """How much is run: rounds, cells of (a) a round, batches of the comparison, size of the rate
    measurement."""

    rounds: int = 3
    cells: int = 8
    targets: int = len(TARGETS)
    batches: tuple[int, ...] = (1, 16, 64)
    side: int = 8192
    budget: float = 10.0


def measure(*, quick: bool) -> dict[str, Any]:
    if not torch.cuda.is_available():
        raise RuntimeError("there is no GPU here; run this section on a machine with CUDA")
    scale = Scale(rounds=2, cells=2, targets=3, budget=3.0) if quick else Scale()
    found = measured(SHAPES, device="cuda", dtype=torch.bfloat16, scale=scale)
    return found | {"machine": {"device": torch.cuda.get_device_name()}}


def measured(
    shapes: dict[str, dict[str, Any]], *, device: str, dtype: torch.dtype, scale: Scale
) -> dict[str, Any]:
    """Both tables for some shapes, on any device."""
    bandwidth, arithmetic = rates(device, dtype, scale.side)
    sweeps, steps = [], []
    for name, shape in shapes.items():
        model = random_model(shape, device=device, dtype=dtype)
        sweeps.append(_sweep(name, model, scale, bandwidth, arithmetic))
        for batch in scale.batches:
            row = compare(model, batch, label=name, rounds=scale.rounds, budget=scale.budget)
            limit = step_seconds(model, batch, 32, bandwidth, arithmetic)
            share = row["steered, tokens/s"]["median"] * limit / batch
            steps.append(row | {"share of the roofline": share})
        del model
        if device == "cuda":
            torch.cuda.empty_cache()
    notes = [
        " ".join((__doc__ or "").split("\n\n", 1)[1].split()),
        f"Rates: {bandwidth / 1e9:.0f} GB/s, {arithmetic / 1e12:.1f} TFLOP/s in "
        f"{str(dtype).removeprefix('torch.')}.",
        f"A sweep: {LAYERS} layers x {scale.targets} targets x {len(STRENGTHS)} strengths x "
        f"{PROMPTS} prompts, "
        f"{NEW_TOKENS} new tokens each, greedy, no row ends early; (a) on {scale.cells} random "
        "cells a round.",
    ]
    sweep = {"title": "A sweep", "rows": sweeps}
    return {"tables": [sweep, {"title": "New tokens per second", "rows": steps}], "notes": notes}


def random_model(shape: dict[str, Any], *, device: str, dtype: torch.dtype) -> Model:
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(PACKAGED, padding_side="left")
    tokens = {
        "bos_token_id": tokenizer.bos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": None,
    }
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            hf: Any = LlamaForCausalLM(LlamaConfig(**shape, **tokens, max_position_embeddings=4096))
    finally:
        torch.set_default_dtype(before)
    tokenizer.eos_token = None  # no row ends early
    return HuggingFaceModel(hf, tokenizer, name="random")


def rates(device: str, dtype: torch.dtype, side: int) -> tuple[float, float]:
    """(bytes per second of a copy, FLOP per second of a matrix product), the best of a few."""
    a = torch.randn(side, side, device=device).to(dtype)
    b = torch.empty_like(a)

    def best(action: Any) -> float:
        def done() -> None:
            action()
            if device == "cuda":
                torch.cuda.synchronize()

        done()
        return min(seconds(done) for _ in range(5))

    return 2 * a.nbytes / best(lambda: b.copy_(a)), 2 * side**3 / best(
        lambda: torch.mm(a, a, out=b)
    )


def step_seconds(
    model: Model, rows: int, length: int, bandwidth: float, arithmetic: float
) -> float:
    """The least time of one decoding step of `rows` rows that have `length` tokens behind them."""
    weights = (
        sum(p.numel() for p in model.blocks.parameters()) + model.width * model.config.vocab_size
    )
    size = torch.finfo(model.dtype).bits // 8
    heads = model.config.num_key_value_heads * (model.width // model.config.num_attention_heads)
    cache = 2 * model.n_layers * heads * length * rows
    return max((weights + cache) * size / bandwidth, 2 * weights * rows / arithmetic)


def _sweep(
    name: str, model: Model, scale: Scale, bandwidth: float, arithmetic: float
) -> dict[str, Any]:
    """Tokens per second of both contenders, in turns: ours the whole grid in one call, (a) some
    random cells."""
    prompts = [f"{line}\n" for line in sl.corpus().split("dev").take(PROMPTS)["en"]]
    cells, draw = grid(model, scale.targets), random.Random(0)
    texts, some = ours(model, prompts, cells[:1]), {0: hooks(model, prompts, *cells[0])}
    taken: dict[str, list[float]] = {"ours": [], "hooks": []}
    few: list[int] = []

    def whole() -> None:
        texts[:] = ours(model, prompts, cells)

    def loop() -> None:
        some.update({i: hooks(model, prompts, *cells[i]) for i in few})

    for _ in range(scale.rounds):
        few = draw.sample(range(len(cells)), min(scale.cells, len(cells)))
        taken["ours"].append(seconds(whole) / len(cells))
        taken["hooks"].append(seconds(loop) / len(few))
    same = sum(
        a == b
        for i, found in some.items()
        for a, b in zip(texts[i * PROMPTS :], found, strict=False)
    )
    length = sum(map(len, encode(model.tokenizer, prompts))) // PROMPTS + NEW_TOKENS // 2
    least = (
        step_seconds(model, TOGETHER, length, bandwidth, arithmetic)
        * NEW_TOKENS
        * PROMPTS
        / TOGETHER
    )
    speed = {
        key: spread([PROMPTS * NEW_TOKENS / spent for spent in times])
        for key, times in taken.items()
    }
    return {
        "shape": name,
        "cells": len(cells),
        "steerlab, tokens/s": speed["ours"],
        "(a) Hugging Face, tokens/s": speed["hooks"],
        "times faster": ratio(taken["hooks"], taken["ours"]),
        "aim": AIMS.get(name, ""),
        f"share of the roofline of {TOGETHER} rows": least / spread(taken["ours"])["median"],
        "same rows": f"{same} of {PROMPTS * len(some)}",
    }


Cell = tuple[int, torch.Tensor, float]  # layer, unit vector, strength


def grid(model: Model, targets: int) -> list[Cell]:
    """Cells at evenly spread layers, with random directions."""
    step = max(1, model.n_layers // LAYERS)
    units = torch.randn(targets, model.width, generator=torch.Generator().manual_seed(0))
    units = units / units.norm(dim=-1, keepdim=True)
    return [
        (layer, unit, by)
        for layer in range(step - 1, model.n_layers, step)
        for unit in units
        for by in STRENGTHS
    ]


def ours(
    model: Model, prompts: list[str], cells: list[Cell], *, batch: int | None = None
) -> list[str]:
    """All cells in one call."""
    edits = []
    for layer, unit, strength in cells:
        start, basis = torch.zeros(1, model.width), unit[None, None]
        step = Direction("x", None, (layer,), "resid_post", unit[None], torch.ones(1), start, basis)
        edits += [sl.add(step, strength=strength)] * len(prompts)
    options: dict[str, Any] = {"max_new_tokens": NEW_TOKENS, "one_line": False, "batch": batch}
    return sl.generate(model, prompts * len(cells), edit=sl.stack(edits), **options)


@torch.inference_mode()
def hooks(
    model: Model, prompts: list[str], layer: int, unit: torch.Tensor, strength: float
) -> list[str]:
    """One cell by `generate` under a plain hook."""
    ids, mask = pad(encode(model.tokenizer, prompts), model.tokenizer.pad_token_id, model.device)
    kept = (mask & (ids != model.tokenizer.bos_token_id))[:, :, None].to(model.dtype)
    vector = (strength * unit).to(model.device, model.dtype)
    handle = model.blocks[layer].register_forward_hook(
        lambda _, __, h: h + (vector * kept if h.shape[1] == kept.shape[1] else vector)
    )
    given = {
        "input_ids": ids,
        "attention_mask": mask.long(),
        "pad_token_id": model.tokenizer.pad_token_id,
    }
    made = model.hf.generate(**given, max_new_tokens=NEW_TOKENS, do_sample=False)
    handle.remove()
    return list(
        model.tokenizer.batch_decode(made[:, ids.shape[1] :].cpu(), skip_special_tokens=True)
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=ROOT / "docs")
    options = parser.parse_args()
    found = measure(quick=options.quick)
    on = machine.about(torch.get_num_threads()) | found.pop("machine")
    section = {"title": SECTIONS["gpu"].title, "quick": options.quick, "machine": on} | found
    print(report.write(options.out, report.read(options.out) | {"gpu": section}).read_text("utf-8"))


if __name__ == "__main__":
    main()
