"""PEFT adapters: loaded onto the model that they were trained for."""

import importlib.util
from pathlib import Path
from typing import Any

from steerlab.core.errors import SteerlabError
from steerlab.core.files import read_config
from steerlab.models.checks import ADAPTER


def base_of(folder: Path) -> str:
    """The Hub id or folder of the model that an adapter in a folder belongs to; raises where it
    names none, and without the package that loads it."""
    base = read_config(folder / ADAPTER).get("base_model_name_or_path")
    if not base:
        raise SteerlabError(
            f"{folder / ADAPTER} does not say which model the adapter is for "
            "(base_model_name_or_path); name it there"
        )
    if importlib.util.find_spec("peft") is None:
        raise SteerlabError(
            f"{folder} holds an adapter of PEFT for {base}, which the package peft loads, and it "
            "is not installed; pip install peft"
        )
    # A folder that is named from where the adapter lies.
    beside = folder / str(base)
    return str(beside) if beside.is_dir() else str(base)


def with_adapter(hf: Any, folder: Path) -> Any:
    """A model with an adapter in its layers."""
    from peft import PeftModel

    return inside(PeftModel.from_pretrained(hf, str(folder)))


def inside(adapted: Any) -> Any:
    """The model of transformers in a model of PEFT, whose layers hold the adapter; raises for an
    adapter that is no part of the layers."""
    learnt = getattr(adapted, "active_peft_config", None)
    if learnt is not None and getattr(learnt, "is_prompt_learning", False):
        raise SteerlabError(
            f"an adapter of the kind {learnt.peft_type} stands before the text and not in the "
            "layers, so that steerlab does not know its positions; take one such as LoRA"
        )
    return adapted.get_base_model()
