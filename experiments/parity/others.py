"""One other tool that steers by a file of ours: `python others.py TOOL FOLDER`, under a Python that
has the tool, and nothing of steerlab.

The folder holds `rows.json` (token ids), the model, and the vectors; the tool's logits and tokens
go into `TOOL.npz` and `TOOL-plain.npz`, steered and not.
"""

import ctypes
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

Ids = list[int]
Logits = Any  # [pos vocab] in float32
NEW = 16


def run(folder: Path, tool: str, logits: Callable[[Ids], Logits], on: Callable[[], Any]) -> None:
    """The logits at each position of each row, and what is said greedily after its prompt."""
    rows = json.loads((folder / "rows.json").read_text("utf-8"))
    for name, around in ((tool, on), (f"{tool}-plain", nullcontext)):
        with around():
            found: dict[str, Any] = {
                f"logits{number}": np.asarray(logits(row["ids"]), np.float32)
                for number, row in enumerate(rows)
            }
            for number, row in enumerate(rows if name == tool else []):
                found[f"tokens{number}"] = np.array(greedy(logits, row["prompt"]))
        np.savez(folder / f"{name}.npz", **found)


def greedy(logits: Callable[[Ids], Logits], prompt: Ids) -> Ids:
    """The likeliest token, again and again; the whole text runs anew each time."""
    ids = list(prompt)
    for _ in range(NEW):
        ids.append(int(np.argmax(logits(ids)[-1])))
    return ids[len(prompt) :]


def of_transformers(folder: Path) -> tuple[Any, Callable[[Ids], Logits]]:
    """The folder's model in transformers, and its logits."""
    import torch
    from transformers import AutoModelForCausalLM

    where = json.loads((folder / "about.json").read_text("utf-8"))["model"]
    model = AutoModelForCausalLM.from_pretrained(where, torch_dtype=torch.float32).eval()

    @torch.inference_mode()
    def logits(ids: Ids) -> Logits:
        return model(input_ids=torch.tensor([ids])).logits[0].float().numpy()

    return model, logits


def steering_vectors(folder: Path) -> None:
    """`SteeringVector(**torch.load(file)).apply(model)`."""
    import torch
    from steering_vectors import SteeringVector

    model, logits = of_transformers(folder)
    vector = SteeringVector(**torch.load(folder / "vector.pt", weights_only=True))
    run(folder, "steering-vectors", logits, lambda: vector.apply(model))


def repeng(folder: Path) -> None:
    """`ControlVector.import_gguf(file)`, and `set_control(vector, 1.0)`."""
    from repeng import ControlModel, ControlVector

    model, logits = of_transformers(folder)
    vector = ControlVector.import_gguf(folder / "vector.gguf")
    controlled = ControlModel(model, sorted(vector.directions))

    @contextmanager
    def on() -> Iterator[None]:
        controlled.set_control(vector, 1.0)
        yield
        controlled.reset()

    run(folder, "repeng", logits, on)


def llama_cpp(folder: Path, file: str, tool: str) -> None:
    """`llama_set_adapter_cvec` with the tensors of the control vector's GGUF, as llama.cpp's own
    `--control-vector` loads them: block k at (k - 1) · width."""
    import gguf
    import llama_cpp.llama_cpp as library

    library.llama_backend_init()
    quiet = library.llama_log_callback(lambda level, text, data: None)
    library.llama_log_set(quiet, None)
    settings = library.llama_model_default_params()
    model = library.llama_model_load_from_file(file.encode(), settings)
    if not model:
        raise SystemExit(f"llama.cpp does not load {file}")
    options = library.llama_context_default_params()
    options.n_ctx = options.n_batch = options.n_ubatch = 256
    options.n_threads = options.n_threads_batch = 1
    options.type_k = options.type_v = 0  # float32: by default the cache is float16
    options.flash_attn_type = 0
    context = library.llama_init_from_model(model, options)
    vocab = library.llama_vocab_n_tokens(library.llama_model_get_vocab(model))
    width, blocks = library.llama_model_n_embd(model), library.llama_model_n_layer(model)

    def logits(ids: Ids) -> Logits:
        library.llama_memory_clear(library.llama_get_memory(context), True)
        batch = library.llama_batch_init(len(ids), 0, 1)
        batch.n_tokens = len(ids)
        for place, token in enumerate(ids):
            batch.token[place], batch.pos[place] = token, place
            batch.n_seq_id[place], batch.seq_id[place][0] = 1, 0
            batch.logits[place] = 1
        if library.llama_decode(context, batch):
            raise SystemExit("llama.cpp does not decode")
        given = library.llama_get_logits(context)
        made = np.ctypeslib.as_array(given, (len(ids), vocab)).copy()
        library.llama_batch_free(batch)
        return made

    data = np.zeros((blocks - 1, width), np.float32)
    for tensor in gguf.GGUFReader(folder / "vector.gguf").tensors:
        data[int(tensor.name.removeprefix("direction.")) - 1] = tensor.data

    @contextmanager
    def on() -> Iterator[None]:
        pointer = data.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        failed = library.llama_set_adapter_cvec(context, pointer, data.size, width, 1, blocks)
        if failed:
            raise SystemExit("llama.cpp does not take the control vector")
        yield
        library.llama_set_adapter_cvec(context, None, 0, width, 0, 0)

    run(folder, tool, logits, on)


def main() -> None:
    tool, where = sys.argv[1], Path(sys.argv[2])
    about = json.loads((where / "about.json").read_text("utf-8"))
    if tool == "steering-vectors":
        steering_vectors(where)
    elif tool == "repeng":
        repeng(where)
    elif tool == "llama.cpp":
        llama_cpp(where, about["gguf"], tool)
    elif tool == "llama.cpp-packed":
        llama_cpp(where, about["packed"], tool)
    else:
        raise SystemExit(f"there is no tool {tool!r}")


if __name__ == "__main__":
    main()
