"""Which rows run together: decided before a run from sizes alone, halved only where memory runs
out."""

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import psutil
import torch
from rich.console import Console

from steerlab.core.errors import SteerlabError

ROWS = 512  # more does not pay on a CPU; the benchmark's section `profile` measures it
TOKENS = 4096  # of a batch that keeps the logits of every position
SHARE = (
    0.5  # of the memory that the weights leave on the device, which is all that a run plans to take
)


@dataclass(frozen=True)
class Plan:
    """Batches of row numbers: rows of like length, of one prompt and of one depth beside each
    other.

    `row_bytes` is what a row of the longest kind is estimated to take.
    """

    batches: tuple[tuple[int, ...], ...]
    rows: int
    row_bytes: int


def plan(
    model: Any,
    ids: Sequence[Sequence[int]],
    depth: Sequence[int],
    *,
    new: int = 0,
    every: bool = False,
    batch: int | None = None,
) -> Plan:
    """Cut rows of tokens `ids` into batches of at most `batch` rows, or of as many as `advise`
    says.

    `depth` is where each row joins its prompt; `new` tokens will follow; `every` keeps the logits
    of every position. Raises where not even one row fits.
    """
    if batch is not None and batch < 1:
        raise SteerlabError(f"a batch of {batch} rows is none; give 1 or more")
    longest = max(map(len, ids), default=0)
    advised = advise(model, longest, new=new, every=every)
    rows = advised if batch is None else batch
    order = sorted(range(len(ids)), key=lambda row: (len(ids[row]), ids[row], depth[row]))
    batches = tuple(tuple(order[start : start + rows]) for start in range(0, len(order), rows))
    return Plan(batches, rows, row_bytes(model, longest, new=new, every=every))


def advise(model: Any, longest: int, *, new: int = 0, every: bool = False) -> int:
    """The rows of a batch: as many as pay and as half of the free memory holds; raises where not
    even one fits."""
    need, budget = (
        row_bytes(model, longest, new=new, every=every),
        (memory(model.device) - model.bytes) * SHARE,
    )
    if need > budget:
        raise SteerlabError(
            f"a row of {longest} tokens and {new} new ones needs about {need / 2**30:.1f} GiB "
            "beside the weights of "
            f"{model.name}, and {max(0.0, budget) / 2**30:.1f} GiB are planned for on "
            f"{model.device}: shorten the "
            "prompt, take another dtype or a larger device"
        )
    most = max(1, TOKENS // max(longest, 1)) if every else ROWS
    return max(1, min(most, int(budget // need)))


def row_bytes(model: Any, length: int, *, new: int = 0, every: bool = False) -> int:
    """Estimated bytes of one row: its keys and values, the widest moment of a block, and its
    logits in float32."""
    config, width = model.config, model.width
    heads = _size(config, ("num_attention_heads", "n_heads", "n_head"), 1)
    kept = _size(config, ("num_key_value_heads", "n_key_value_heads"), heads)
    dim = _size(config, ("head_dim", "d_head"), width // heads)
    inner = _size(config, ("intermediate_size", "d_mlp", "n_inner"), 4 * width)
    vocab = _size(config, ("vocab_size", "d_vocab"), 0)
    item = torch.empty(0, dtype=model.dtype).element_size()
    cache = 2 * model.n_layers * kept * dim * (length + new) * item
    scores = heads * length * length * 4
    block = length * (6 * width + 3 * inner) * max(item, 4)
    logits = (length if every else 1) * vocab * (item + 8)
    return 2 * (cache if new else 0) + scores + block + logits


def memory(device: torch.device) -> int:
    """Bytes of the whole device, so that the same machine always plans the same."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return int(psutil.virtual_memory().total)


def run(made: Plan, work: Callable[[Sequence[int]], None], mark: Callable, undo: Callable) -> Plan:
    """Do the work batch by batch; where memory runs out the batch and all that follow are halved,
    and it is said.

    `mark` and `undo` take back what a failed batch has counted. Gives the plan as it was kept to;
    raises where not even one row runs.
    """
    waiting, done, rows = list(made.batches), [], made.rows
    while waiting:
        batch, before = waiting.pop(0), mark()
        if len(batch) > rows:
            waiting[:0] = [batch[:rows], batch[rows:]]
            continue
        try:
            work(batch)
            done.append(batch)
            continue
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            if len(batch) == 1:
                raise SteerlabError(
                    "memory ran out at a batch of one row: shorten the prompt, take another dtype "
                    "or a larger device"
                ) from error
        undo(
            before
            # outside of `except`, which would keep the frames of the failed batch, and with them
            # its memory
        )
        rows = (len(batch) + 1) // 2
        waiting.insert(0, batch)
        gc.collect()
        torch.cuda.empty_cache()
        Console(stderr=True).print(
            f"memory ran out at {len(batch)} rows; going on with batches of {rows}"
        )
    return Plan(tuple(done), rows, made.row_bytes)


def out_of_memory(error: BaseException) -> bool:
    """Whether an error of Python or torch, on CPU or CUDA, says that memory ran out."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return any(
        told in str(error)
        for told in ("can't allocate memory", "not enough memory", "CUDA out of memory")
    )


def _size(config: Any, names: Sequence[str], otherwise: int) -> int:
    for name in names:
        if (found := getattr(config, name, None)) is not None:
            return int(found)
    return otherwise
