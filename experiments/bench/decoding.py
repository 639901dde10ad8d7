"""What steering costs: tokens per second with an edit, without one, and of Hugging Face's own
`generate`."""

from typing import Any

import torch
from environments import BUILD
from measures import interleaved, ratio, spread
from shared import NEW_TOKENS, SHAPE, random_llama

import steerlab as sl
from steerlab.core.directions import Direction
from steerlab.engine.prompts import encode, pad
from steerlab.models.model import Model

BATCHES = (1, 16, 64)
STEERED, UNSTEERED, PLAIN = "steered", "unsteered", "Hugging Face"


def measure(*, quick: bool) -> dict[str, Any]:
    models = {"polyglot": sl.load(dtype="float32")}
    if not quick:
        models["random150"] = sl.load(str(random_llama(BUILD / "random150")), dtype="float32")
    rows = [
        compare(model, batch, label=name, rounds=3, budget=4 if quick else 12)
        for name, model in models.items()
        for batch in BATCHES
    ]
    notes = [
        f"Prompts are different English lines, {NEW_TOKENS} new tokens each, greedy, no row ends "
        "early; the edit adds "
        "one vector at a middle layer, float32. All three take texts and give texts. Hugging Face: "
        "`generate` without "
        "any hook.",
        "random150 is a random Llama: "
        f"{', '.join(f'{key} {value}' for key, value in SHAPE.items())}.",
    ]
    return {"tables": [{"title": "New tokens per second", "rows": rows}], "notes": notes}


def compare(model: Model, batch: int, *, label: str, rounds: int, budget: float) -> dict[str, Any]:
    """One row of the table: three ways to continue the same prompts, in turns."""
    prompts = [f"{line}\n" for line in sl.corpus()["en"][:batch]]
    model.tokenizer.eos_token = None  # no row ends early
    model.hf.generation_config.eos_token_id = None
    edit = sl.add(_direction(model))
    options: dict[str, Any] = {"max_new_tokens": NEW_TOKENS, "one_line": False}

    @torch.inference_mode()
    def plain() -> list[str]:
        ids, mask = pad(
            encode(model.tokenizer, prompts), model.tokenizer.pad_token_id, model.device
        )
        given = {
            "input_ids": ids,
            "attention_mask": mask.long(),
            "pad_token_id": model.tokenizer.pad_token_id,
        }
        made = model.hf.generate(**given, max_new_tokens=NEW_TOKENS, do_sample=False)
        return list(
            model.tokenizer.batch_decode(made[:, ids.shape[1] :].cpu(), skip_special_tokens=True)
        )

    actions = {
        STEERED: lambda: sl.generate(model, prompts, edit=edit, **options),
        UNSTEERED: lambda: sl.generate(model, prompts, **options),
        PLAIN: plain,
    }
    same = sum(a == b for a, b in zip(actions[UNSTEERED](), plain(), strict=True))
    taken = interleaved(actions, rounds=rounds, budget=budget)
    tokens = batch * NEW_TOKENS
    speed = {
        f"{name}, tokens/s": spread([tokens / spent for spent in times])
        for name, times in taken.items()
    }
    return {
        "model": label,
        "batch": batch,
        "rounds": len(taken[PLAIN]),
        **speed,
        "steered / unsteered": ratio(taken[UNSTEERED], taken[STEERED]),
        "aim ": "0.98",
        "steered / Hugging Face": ratio(taken[PLAIN], taken[STEERED]),
        "aim": "1.00",
        "same rows unsteered": f"{same} of {batch}",
    }


def _direction(model: Model) -> Direction:
    """A random unit direction at the middle layer: what it costs does not depend on where it
    points."""
    unit = torch.randn(1, model.width, generator=torch.Generator().manual_seed(0))
    unit = unit / unit.norm()
    layer = model.n_layers // 2
    return Direction(
        "x",
        None,
        (layer,),
        "resid_post",
        unit,
        torch.ones(1),
        torch.zeros_like(unit),
        unit[:, None],
    )
