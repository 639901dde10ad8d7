"""Which rows run together: decided before a run from sizes alone, halved only where memory runs
out."""

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import psutil
import torch
from rich.console import Console

from steerlab.core.errors import SteerlabError

ROWS = 512  # more does not pay on a CPU; the benchmark's section `profile` measures it
TOKENS = 4096  # of a batch that keeps the logits of every position
SHARE = (
    0.5  # of the memory that the weights leave on the device, which is all that a run plans to take
)

Result = TypeVar("Result")


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
    only: Sequence[int] | None = None,
    longest: int | None = None,
    new: int = 0,
    every: bool = False,
    batch: int | None = None,
) -> Plan:
    """Cut rows of tokens `ids` into batches of at most `batch` rows, or of as many as `advise`
    says. Raises where not even one row fits.

    Args:
        ids: the tokens of each row; rows of like tokens come beside each other.
        depth: where each row joins its prompt, or another number by which rows of one prompt are
            put in order.
        only: the numbers of the rows to run; by default all.
        longest: the tokens to reckon with for a row; by default those of the longest.
        new: how many tokens will follow.
        every: whether the logits of every position are kept.
        batch: the rows of a batch, whatever memory says.
    """
    chosen = range(len(ids)) if only is None else only
    if longest is None:
        longest = max((len(ids[row]) for row in chosen), default=0)
    advised = advise(model, longest, new=new, every=every)
    rows = advised if batch is None else _need_rows(batch)
    order = sorted(chosen, key=lambda row: (len(ids[row]), ids[row], depth[row]))
    return Plan(_cut(order, rows), rows, row_bytes(model, longest, new=new, every=every))


def plan_in_order(
    model: Any,
    ids: Sequence[Sequence[int]],
    *,
    batch: int,
    every: bool = False,
    backward: bool = False,
) -> Plan:
    """Cut rows of tokens `ids` into batches in the given order: at most `batch` rows each, fewer
    only where memory holds fewer.

    For what is added up over batches. The last bits of such a sum depend on which rows run
    together, so that this does not depend on their lengths, nor on a machine that has the memory.
    `every` and `backward` as for `row_bytes`.
    """
    longest = max(map(len, ids), default=0)
    held = fitting(model, longest, every=every, backward=backward)
    rows = min(_need_rows(batch), held)
    need = row_bytes(model, longest, every=every, backward=backward)
    return Plan(_cut(range(len(ids)), rows), rows, need)


def _need_rows(batch: int) -> int:
    if batch < 1:
        raise SteerlabError(f"a batch of {batch} rows is none; give 1 or more")
    return batch


def _cut(order: Sequence[int], rows: int) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(order[start : start + rows]) for start in range(0, len(order), rows))


def advise(model: Any, longest: int, *, new: int = 0, every: bool = False) -> int:
    """The rows of a batch: as many as pay and as half of the free memory holds; raises where not
    even one fits."""
    most = max(1, TOKENS // max(longest, 1)) if every else ROWS
    return min(most, fitting(model, longest, new=new, every=every))


def fitting(
    model: Any, longest: int, *, new: int = 0, every: bool = False, backward: bool = False
) -> int:
    """How many rows half of the free memory holds; raises where it does not hold even one."""
    need = row_bytes(model, longest, new=new, every=every, backward=backward)
    budget = (memory(model.device) - model.bytes) * SHARE
    if need > budget:
        raise SteerlabError(
            f"a row of {longest} tokens and {new} new ones needs about {need / 2**30:.1f} GiB "
            f"beside the weights of {model.name}, and {max(0.0, budget) / 2**30:.1f} GiB are "
            f"planned for on {model.device}: shorten the prompt, take another dtype or a larger "
            "device"
        )
    return int(budget // need)


def row_bytes(
    model: Any, length: int, *, new: int = 0, every: bool = False, backward: bool = False
) -> int:
    """Estimated bytes of one row: its keys and values, the widest moment of a block, and its
    logits in float32.

    Args:
        length: tokens of the row.
        new: how many will follow; without any there is no cache.
        every: whether the logits of every position are kept.
        backward: whether every block's activations are kept for gradients.
    """
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
    blocks = model.n_layers if backward else 1
    logits = (length if every else 1) * vocab * (item + 8)
    # Twice the cache: where rows leave it, the old one is there until the new one is written.
    return 2 * (cache if new else 0) + blocks * (scores + block) + logits


def memory(device: torch.device) -> int:
    """Bytes of the whole device, so that the same machine always plans the same."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return int(psutil.virtual_memory().total)


def run(
    made: Plan,
    work: Callable[[Sequence[int]], Any],
    mark: Callable[[], Any] = lambda: None,
    undo: Callable[[Any], Any] = lambda _: None,
) -> Plan:
    """Do the work batch by batch; where memory runs out the batch and all that follow are halved,
    and it is said.

    `mark` and `undo` take back what a failed batch has counted. Gives the plan as it was kept to;
    raises where not even one row runs.
    """
    waiting = list(made.batches)
    done: list[tuple[int, ...]] = []
    rows = made.rows
    while waiting:
        batch = waiting.pop(0)
        before = mark()
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
        # Outside of `except`, which would keep the frames of the failed batch, and with them its
        # memory.
        undo(before)
        rows = (len(batch) + 1) // 2
        waiting.insert(0, batch)
        gc.collect()
        torch.cuda.empty_cache()
        Console(stderr=True).print(
            f"memory ran out at {len(batch)} rows; going on with batches of {rows}"
        )
    return Plan(tuple(done), rows, made.row_bytes)


@dataclass
class InOrder:
    """Runs rows in the order in which they are given: together if memory holds them, else in as few
    batches as it holds.

    Where memory runs out the batch and all that follow, in later calls too, are halved, and it is
    said. `every` and `backward`: what a row keeps, as for `row_bytes`.
    """

    model: Any
    every: bool = False
    backward: bool = False
    _most: int | None = field(default=None, init=False)  # rows of a batch, once memory has run out

    def run(
        self, ids: Sequence[Sequence[int]], work: Callable[[Sequence[int]], Result]
    ) -> list[Result]:
        """What `work` gives for each batch of numbers of rows: one result, or more where memory is
        short.

        A batch that fails must leave nothing behind: let `work` only read, and add up what it
        gives. `ids`: the tokens of each row.
        """
        made = plan_in_order(
            self.model,
            ids,
            batch=max(1, len(ids)) if self._most is None else self._most,
            every=self.every,
            backward=self.backward,
        )
        results: list[Result] = []
        kept = run(made, lambda rows: results.append(work(rows)))
        if kept.rows < made.rows:
            self._most = kept.rows
        return results


def out_of_memory(error: BaseException) -> bool:
    """Whether an error of Python or torch, on CPU or CUDA, says that memory ran out."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    messages = ("can't allocate memory", "not enough memory", "CUDA out of memory")
    return any(message in str(error) for message in messages)


def _size(config: Any, names: Sequence[str], otherwise: int) -> int:
    """The first of these attributes that a model's config has."""
    for name in names:
        if (size := getattr(config, name, None)) is not None:
            return int(size)
    return otherwise
