"""A model with changed weights, as an ordinary folder of Hugging Face."""

import copy
import os
import shutil
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from steerlab.core.errors import SteerlabError
from steerlab.core.files import explained, need_folder, write_json
from steerlab.engine.weights.blocks import NewBlock, check_shifts, deeper
from steerlab.engine.weights.change import new_biases
from steerlab.models.huggingface import HuggingFaceModel

# What configurations call the bias of an MLP's and of an attention's projections.
FLAGS = ("mlp_bias", "attention_bias", "use_bias", "attention_out_bias")


def save_model(
    model: HuggingFaceModel,
    weights: Mapping[tuple[str, str], Tensor],
    folder: Path,
    about: Mapping[str, Any],
    *,
    blocks: Sequence[NewBlock] = (),
) -> Path:
    """Write a model with other weights, its tokenizer and a steerlab.json.

    Args:
        model: whose weights those are that do not change.
        weights: the others, by the names of module and parameter.
        blocks: that it gets beside its own.
        folder: where to; nothing may be there yet.
        about: what steerlab.json says.
    """
    folder = need_folder(folder)
    if os.path.lexists(folder):
        raise SteerlabError(f"{folder} is there already; give the name of a new folder")
    made = built(model, weights, blocks)
    fresh = folder.with_name(f"{folder.name}.{uuid.uuid4().hex[:12]}.new")
    with explained(folder):
        try:
            made.save_pretrained(fresh)
            model.tokenizer.save_pretrained(fresh)
            write_json(fresh / "steerlab.json", about)
            os.replace(fresh, folder)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    return folder


def built(
    model: HuggingFaceModel,
    weights: Mapping[tuple[str, str], Tensor],
    blocks: Sequence[NewBlock] = (),
) -> Any:
    """A network of the model's class, by a configuration that has a place for all of the weights;
    those that do not change are the model's own.

    It is built anew, so that a weight without a place is found here and not left out by whoever
    reads the folder.
    """
    hf = model.hf
    config = copy.deepcopy(hf.config)
    state = dict(hf.state_dict())
    table = hf.get_input_embeddings()
    head = hf.get_output_embeddings()
    names = {id(module): name for name, module in hf.named_modules()}
    for (module, key), value in weights.items():
        state[f"{module}.{key}"] = value
        tied = hf.get_submodule(module) is table and head is not None
        if tied and key == "weight" and head.weight is table.weight:
            # The rows that are read change, and those that are compared with stay.
            config.tie_word_embeddings = False
            config.get_text_config().tie_word_embeddings = False
            state[f"{names[id(head)]}.weight"] = table.weight.detach().clone()
    needed = new_biases(hf, weights)
    made = _empty(type(hf), config)
    if not _has_all(made, needed):
        made = _with_biases(type(hf), config, needed)
    if missing := [name for name in needed if name not in made.state_dict()]:
        raise SteerlabError(
            f"{type(hf).__name__} has no place for {missing[0]}, so that no ordinary folder can "
            "hold this edit; use it by weights.on(model), or add the same step where the "
            "architecture has a bias, such as resid_pre of layer 0, which is the embedding"
        )
    for name, value in made.state_dict().items():
        if name not in state and name.endswith(".bias"):
            state[name] = torch.zeros(value.shape, dtype=model.dtype)
    origin = list(range(model.n_layers))
    if blocks:
        config, state, origin = deeper(model, made.config, state, blocks)
        made = _empty(type(hf), config)
    if beside := set(state) ^ set(made.state_dict()):
        why = "of what was put into it, such as an adapter; merge that first (merge_and_unload)"
        if blocks:
            why = f"moved by a new block, as what a layer has follows from its number, or {why}"
        raise SteerlabError(
            f"{min(beside)} is no weight of {type(hf).__name__} as its configuration says it, but "
            f"{why}"
        )
    made.load_state_dict(state, strict=True, assign=True)
    made.tie_weights()
    _fill(made, model, origin)
    made.generation_config = copy.deepcopy(getattr(hf, "generation_config", None))
    made.eval()
    if blocks:
        check_shifts(model, made, blocks)
    return made


def _fill(made: Any, model: HuggingFaceModel, origin: Sequence[int]) -> None:
    """Give a network what no folder holds, as the angles of positions, from the modules of the
    model that its own are, or are shaped like."""
    start = f"{model.anatomy.path}."
    for name, module in made.named_modules():
        if name.startswith(start):
            number, dot, rest = name.removeprefix(start).partition(".")
            name = f"{start}{origin[int(number)]}{dot}{rest}"
        held = {**module._buffers, **vars(module)}
        for key, value in held.items():
            if isinstance(value, Tensor) and value.is_meta:
                setattr(module, key, getattr(model.hf.get_submodule(name), key))


def _empty(kind: Any, config: Any) -> Any:
    """A network without weights."""
    with torch.device("meta"):
        return kind(copy.deepcopy(config))


def _has_all(network: Any, names: list[str]) -> bool:
    return set(names) <= set(network.state_dict())


def _with_biases(kind: Any, config: Any, needed: list[str]) -> Any:
    """The network with the flags of its configuration that give it the biases that are needed, and
    no others; as it is where there are none."""
    text = config.get_text_config()
    flags = [name for name in FLAGS if getattr(text, name, None) is False]
    gained = {}
    plain = set(_empty(kind, config).state_dict())
    for flag in flags:
        setattr(text, flag, True)
        try:
            gained[flag] = set(_empty(kind, config).state_dict()) - plain
        finally:
            setattr(text, flag, False)
    for flag, names in gained.items():
        if names & set(needed):
            setattr(text, flag, True)
    return _empty(kind, config)
