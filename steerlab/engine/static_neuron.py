"""The static baseline of steering by clusters: one neuron, the same for every prompt, made
louder."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from steerlab.core.corpus import need_texts
from steerlab.core.errors import SteerlabError
from steerlab.edits.edit import Edit
from steerlab.edits.edit import edit as edit_of
from steerlab.edits.part import Tensors
from steerlab.engine.batching import InOrder
from steerlab.engine.forward import read
from steerlab.engine.inputs import chosen_layers, need_room
from steerlab.engine.prompts import encode
from steerlab.models.loading import load
from steerlab.models.positions import HookFn, Positions


@dataclass(frozen=True)
class StaticNeuron:
    """The neuron that writes most towards a word.

    Args:
        layer: where it is.
        neuron: its number.
        width: how many neurons the layer has.
        table: the first ones by score: layer, neuron, score, value.
    """

    layer: int
    neuron: int
    width: int
    table: pd.DataFrame

    def edit(self, *, factor: float = 4.0, positions: str = "all") -> Edit:
        """Multiply what it writes; a factor of 1 changes nothing."""
        mask = torch.zeros(self.width)
        mask[self.neuron] = factor - 1
        return edit_of(
            _louder,
            site="mlp_post",
            layer=self.layer,
            tensors={"more": mask},
            positions=positions,
            name="static neuron",
            identity=factor == 1,
        )


def _louder(h: Tensor, tensors: Tensors) -> Tensor:
    return tensors["more"] * h


def static_neuron(
    model: object, texts: Sequence[str], word: str, *, layers: Iterable[int] | None = None
) -> StaticNeuron:
    """Find the neuron that writes most towards a word's first token at the texts' last positions.

    s_j = mean a_j · (w_out,j · u), a_j its value, w_out,j what it writes and u the word's row of
    the unembedding. Source: the static baseline of G-ACT (arXiv 2506.18887), by our reading:
    neither code nor the strength is published; 2 to 10 times its value is tried.

    Args:
        model: what `load` takes.
        texts: prompts, at whose ends the word would be right.
        word: whose token it writes towards.
        layers: which layers; by default all.
    """
    model = load(model)
    chosen = chosen_layers(model, layers)
    ids = encode(model.tokenizer, need_texts(texts, "what reads texts"))
    need_room(model, ids)
    tokens = model.tokenizer(word, add_special_tokens=False).input_ids
    if not tokens:
        raise SteerlabError(f"the word {word!r} has no tokens")
    head = model.hf.get_output_embeddings().weight[tokens[0]].detach().float().cpu()
    values = {layer: torch.zeros(()) for layer in chosen}

    def work(rows: Sequence[int]) -> dict[int, Tensor]:
        seen: dict[int, Tensor] = {}
        looks = [("mlp_post", layer, _keep(seen, layer)) for layer in chosen]
        read(model, [ids[row] for row in rows], looks)
        return seen

    with torch.inference_mode():
        for seen in InOrder(model).run(ids, work):
            for layer, total in seen.items():
                values[layer] = values[layer] + total
    found = []
    for layer in chosen:
        value = values[layer] / len(ids)
        score = value * (head @ model.neuron_outputs(layer).detach().float().cpu())
        best = score.topk(min(5, len(score)))
        found += [
            (layer, int(number), float(size), float(value[number]))
            for size, number in zip(best.values, best.indices, strict=True)
        ]
    table = pd.DataFrame(found, columns=["layer", "neuron", "score", "value"])
    table = table.sort_values("score", ascending=False, ignore_index=True)
    first = table.iloc[0]
    layer, neuron = int(first["layer"]), int(first["neuron"])
    return StaticNeuron(layer, neuron, model.width_of("mlp_post"), table)


def _keep(seen: dict[int, Tensor], layer: int) -> HookFn:
    def look(h: Tensor, _: Positions) -> None:
        seen[layer] = h[:, -1].float().sum(0).cpu()  # the padding is on the left

    return look
