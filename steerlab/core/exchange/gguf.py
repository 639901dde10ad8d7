"""llama.cpp's control vectors: GGUF files with a tensor `direction.k` for block k."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch

from steerlab.core.errors import SteerlabError, first_line_of
from steerlab.core.exchange.vectors import Vectors
from steerlab.core.targets import ORIGIN

ARCHITECTURE = "controlvector"


def write(file: Path, vectors: Vectors, modules: str) -> None:
    """As repeng writes it and llama.cpp reads it: `direction.k` in float32 is added to the output
    of block k, k from 1."""
    package = _package()
    writer = package.GGUFWriter(file, ARCHITECTURE)
    writer.add_string(f"{ARCHITECTURE}.model_hint", vectors.model or "unknown")
    writer.add_uint32(f"{ARCHITECTURE}.layer_count", len(vectors.blocks))
    # Other readers pass over keys that they do not know.
    writer.add_string(ORIGIN, json.dumps(dict(vectors.about)))
    for block in vectors.blocks:
        writer.add_tensor(f"direction.{block}", vectors.by_block[block].numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def read(file: Path) -> Vectors:
    """Also what others write under another architecture's name, if the tensors are there."""
    try:
        reader = _package().GGUFReader(file)
        tensors = {tensor.name: np.array(tensor.data) for tensor in reader.tensors}
        hint, origin = (_text(reader, f"{ARCHITECTURE}.model_hint"), _text(reader, ORIGIN))
    except SteerlabError:
        raise
    except Exception as error:  # whatever a parser stumbles over in a damaged file
        raise SteerlabError(f"it is no GGUF file ({first_line_of(error)})") from error
    found = {}
    for name, data in tensors.items():
        if match := re.fullmatch(r"direction\.(\d+)", name):
            if data.ndim != 1 or data.dtype != np.float32:
                raise SteerlabError(
                    f"{name} is {data.dtype} of shape {data.shape}, not float32 [width]"
                )
            found[int(match[1])] = torch.from_numpy(data)
    try:
        about = json.loads(origin) if origin else {}
    except ValueError as error:
        raise SteerlabError(f"{ORIGIN} is no JSON") from error
    return Vectors(found, about if isinstance(about, dict) else {}, hint)


def _text(reader: Any, key: str) -> str:
    field = reader.get_field(key)
    if field is None or not len(field.parts):
        return ""
    return bytes(field.parts[-1]).decode("utf-8", "replace")


def _package() -> Any:
    try:
        import gguf
    except ImportError as error:
        raise SteerlabError(
            "control vectors of llama.cpp need the package gguf, which is not installed; run: pip "
            "install gguf"
        ) from error
    return gguf
