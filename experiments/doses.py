"""Doses of known edits against what torch finds by hand: `python experiments/doses.py` writes
docs/doses.md."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import steerlab as sl
from steerlab.core.directions import Direction
from steerlab.edits import Edit, ablate, add, affine, neuron_set, rotate
from steerlab.engine.decoding import decode

PAGE = Path(__file__).parents[1] / "docs" / "doses.md"
LAYER, SEVERAL = 5, tuple(range(8))
LINES, NEW = 4, 8
DEGREES = 30.0


@dataclass(frozen=True)
class ByHand:
    """A change of the output of a block, or of its MLP's neurons, that is written down here once
    more: from h to what is added to it."""

    layer: int
    change: Callable[[Tensor], Tensor]
    neurons: bool = False
    prompt: bool = True
    generated: bool = True


@dataclass(frozen=True)
class Truth:
    """What is found by hand: the dose, the mean over parts that earlier versions called so, and the
    displacement."""

    dose: float
    before: float
    displacement: float


@dataclass(frozen=True)
class Known:
    """An edit, and what it does by hand."""

    name: str
    edit: Edit
    changes: Sequence[ByHand]


def known(direction: Direction, neurons: Direction) -> list[Known]:
    """Edits whose doses can be written down."""
    one = direction.at(LAYER)
    units = {layer: direction.at(layer).unit[0] for layer in direction.layers}
    gaps = {layer: float(direction.at(layer).gap) for layer in direction.layers}
    unit = units[LAYER]

    def step(layer: int, strength: float, **halves: bool) -> ByHand:
        return ByHand(
            layer, lambda h: (strength * gaps[layer] * units[layer]).expand_as(h), **halves
        )

    first = one.start[0] / one.start[0].norm()
    second = unit - (unit @ first) * first
    second = second / second.norm()
    angle = math.radians(DEGREES)

    def turned(h: Tensor) -> Tensor:
        a, b = h @ first, h @ second
        new_a = math.cos(angle) * a - math.sin(angle) * b
        new_b = math.sin(angle) * a + math.cos(angle) * b
        return (new_a - a)[..., None] * first + (new_b - b)[..., None] * second

    axis = one.basis[0, 0]
    # The target's mean is a gap from the source's, along the unit vector of a mean difference.
    level = float(unit @ one.start[0]) + gaps[LAYER]
    [layer] = neurons.layers
    mask, values = neurons.extra["mask"][0], neurons.extra["values"][0]
    return [
        Known("add, one gap", add(one), [step(LAYER, 1.0)]),
        Known(
            "add, half a gap, twice at one layer",
            add(one, strength=0.5) | add(one, strength=0.5),
            [step(LAYER, 0.5), step(LAYER, 0.5)],
        ),
        Known(
            "add, one gap forth and one back",
            add(one) | add(one, strength=-1.0),
            [step(LAYER, 1.0), step(LAYER, -1.0)],
        ),
        Known(
            "add, half a gap at two layers",
            add(direction.at(2, LAYER), strength=0.5),
            [step(2, 0.5), step(LAYER, 0.5)],
        ),
        Known(
            "add, a quarter of a gap at eight layers",
            add(direction.at(*SEVERAL), strength=0.25),
            [step(layer, 0.25) for layer in SEVERAL],
        ),
        Known(f"rotate by {DEGREES:g}°", rotate(one, degrees=DEGREES), [ByHand(LAYER, turned)]),
        Known("ablate", ablate(one), [ByHand(LAYER, lambda h: -(h @ axis)[..., None] * axis)]),
        Known(
            "affine, to the target's mean",
            affine(one),
            [ByHand(LAYER, lambda h: (level - h @ unit)[..., None] * unit)],
        ),
        Known(
            "neuron_set, 32 neurons",
            neuron_set(neurons),
            [ByHand(layer, lambda z: mask * (values - z), neurons=True)],
        ),
        Known(
            "add, one gap, on the prompt alone",
            add(one, positions="prompt"),
            [step(LAYER, 1.0, generated=False)],
        ),
        Known(
            "add, one gap, on what is generated",
            add(one, positions="generated"),
            [step(LAYER, 1.0, prompt=False)],
        ),
        Known(
            "add of no gap, rotate by 0°",
            add(one, strength=0.0) | rotate(one, degrees=0.0),
            [ByHand(LAYER, torch.zeros_like)],
        ),
    ]


# ------------------------------------------------------------------------------------------ by hand


@contextmanager
def changed(
    model: Any, changes: Sequence[ByHand], prompt: int, found: dict[str, Any]
) -> Iterator[None]:
    """The blocks of a Hugging Face model with the changes, by plain hooks; `found` gets the
    lengths at each position and the last stream."""
    blocks = model.hf.base_model.layers
    waiting: dict[int, Tensor] = {}
    handles = []

    def masked(change: ByHand, h: Tensor) -> tuple[Tensor, Tensor]:
        position = torch.arange(h.shape[1])
        mask = (position > 0) & torch.where(position < prompt, change.prompt, change.generated)
        return change.change(h) * mask[:, None], mask

    def at_neurons(change: ByHand) -> Callable[..., Any]:
        def hook(module: Any, given: tuple) -> tuple:
            delta, mask = masked(change, given[0])
            waiting[change.layer] = delta @ module.weight.T
            found["parts"].append((delta.norm(dim=-1) / given[0].norm(dim=-1))[0][mask])
            found["touched"] |= mask
            return (given[0] + delta,)

        return hook

    def after(layer: int, here: list[ByHand]) -> Callable[..., Any]:
        def hook(_: Any, __: tuple, out: Any) -> Any:
            h = out[0] if isinstance(out, tuple) else out
            total = torch.zeros_like(h)
            start = h
            if layer in waiting:
                total = total + waiting[layer]
                start = h - waiting.pop(layer)
            for change in here:
                delta, mask = masked(change, h)
                found["parts"].append((delta.norm(dim=-1) / h.norm(dim=-1))[0][mask])
                found["touched"] |= mask
                total, h = total + delta, h + delta
            found["doses"] += (total.norm(dim=-1) / start.norm(dim=-1))[0]
            if layer == len(blocks) - 1:
                found["last"] = h[0]
            return (h, *out[1:]) if isinstance(out, tuple) else h

        return hook

    for change in changes:
        if change.neurons:
            hook = at_neurons(change)
            handles.append(blocks[change.layer].mlp.down_proj.register_forward_pre_hook(hook))
    for layer, block in enumerate(blocks):
        here = [each for each in changes if each.layer == layer and not each.neurons]
        handles.append(block.register_forward_hook(after(layer, here)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def by_hand(model: Any, text: str, changes: Sequence[ByHand], *, new: int = NEW) -> Truth:
    """A prompt's doses and those of its greedy continuation, read in whole passes without a
    cache."""

    def run(ids: Tensor, some: Sequence[ByHand]) -> tuple[Tensor, dict[str, Any]]:
        length = ids.shape[1]
        found: dict[str, Any] = {"parts": [], "doses": torch.zeros(length)}
        found["touched"] = torch.zeros(length, dtype=torch.bool)
        with changed(model, some, prompt, found):
            return model.hf(ids).logits[0, -1], found

    ids = torch.tensor([[1, *model.tokenizer(text, add_special_tokens=False).input_ids]])
    prompt = ids.shape[1]
    logits, found = run(ids, changes)
    plain = run(ids, [])[1]["last"]
    moved = (found["last"] - plain).norm(dim=-1) / plain.norm(dim=-1)
    touches = any(change.prompt for change in changes)
    for _ in range(new - 1):
        ids = torch.cat([ids, logits.argmax()[None, None]], 1)
        logits, found = run(ids, changes)
    parts, touched = torch.cat(found["parts"]), found["touched"]
    return Truth(
        float(found["doses"][touched].mean()) if touched.any() else 0.0,
        float(parts.mean()) if len(parts) else 0.0,
        float(moved[1:].mean()) if touches else math.nan,
    )


# --------------------------------------------------------------------------------------- the page


def material(model: Any, corpus: Any) -> tuple[Direction, Direction, list[str]]:
    """A direction of polyglot at all layers, 32 neurons of a layer with values, and prompts."""
    texts = corpus.select(["en", "de", "es", "fr", "ru"])
    direction = sl.diffmean(sl.collect(model, texts.split("estimate").take(48))).between("en", "de")
    neurons = model.config.intermediate_size
    random = torch.Generator().manual_seed(0)
    mask = (torch.rand(neurons, generator=random).argsort() < 32).float()[None]
    values = torch.rand(1, neurons, generator=random)
    zeros = torch.zeros(1, neurons)
    units = replace(
        direction.at(LAYER),
        site="mlp_post",
        unit=zeros,
        start=zeros,
        end=None,
        basis=zeros[:, None],
        extra={"mask": mask, "values": values},
    )
    prompts = [f"{line}\n" for line in texts.split("dev")["en"][:LINES]]
    return direction, units, prompts


def measured(model: Any, prompts: list[str], edit: Edit) -> tuple[list[float], list[float]]:
    """What steerlab counts on the same prompts and as many new tokens."""
    decoded = decode(
        model, prompts, edit=edit, max_new_tokens=NEW, one_line=False, displacement=True
    )
    return decoded.dose, decoded.displacement


def table() -> list[str]:
    model = sl.load()
    direction, units, prompts = material(model, sl.corpus())
    lines = [
        "| edit | before | dose | by hand | displacement | by hand |",
        "|---" * 6 + "|",
    ]
    for each in known(direction, units):
        dose, displacement = (mean(values) for values in measured(model, prompts, each.edit))
        truths = [by_hand(model, text, each.changes) for text in prompts]
        numbers = [
            mean([truth.before for truth in truths]),
            dose,
            mean([truth.dose for truth in truths]),
            displacement,
            mean([truth.displacement for truth in truths]),
        ]
        lines.append(f"| {each.name} | " + " | ".join(map(shown, numbers)) + " |")
    return lines


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def shown(value: float) -> str:
    return "not defined" if math.isnan(value) else f"{value:.4f}"


HEAD = """# Doses of known edits

`python experiments/doses.py` writes this page: the dose and the displacement that steerlab counts for edits of the packaged
model, beside what plain torch hooks find in whole passes without a cache. The direction is DiffMean's from English to
German; the means are over {lines} prompts, {new} new tokens each.

- **Dose**: what the edit moves in the residual stream at a position, over the stream's length there, Σ ‖Δh‖ / ‖h‖ over its
  layers; Δh is the sum over all parts at a place. It is the length of the way. Steps that go forth and back at one layer
  are none, at two layers they are two.
- **Displacement**: how far the last of the stream is from what it is without the edit, over its length, at the prompt.
  It is what the way comes to; an edit of what is generated has none.
- **Before**: what earlier versions called the dose, the mean of ‖Δh‖ / ‖h‖ over parts and positions. Half a gap twice
  counted as half a gap, eight layers as one of them, and neurons as a share of the neurons.

"""


def main() -> None:
    head = HEAD.format(lines=LINES, new=NEW)
    PAGE.write_text(head + "\n".join(table()) + "\n", "utf-8")


if __name__ == "__main__":
    main()
