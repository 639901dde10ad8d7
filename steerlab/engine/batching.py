"""Which rows run together in a batch.

It is decided before a run, from sizes alone, so that the same machine always decides the same; only
where memory runs out after all are batches halved.
"""

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import psutil
import torch
from rich.console import Console

from steerlab.core.errors import SteerlabError

# Larger batches do not pay on a CPU; the benchmark's section `profile` measures it.
ROWS = 512
# Of a large model fewer rows keep a processor as busy, rows times weights, and each takes more
# memory: of Gemma 3 270M 256 take as long as 512. Below the least, what rows of a batch share, the
# weights and a common beginning, is read and run too often.
BUSY = 2**36
LEAST_ROWS = 128
# The most tokens of a batch that keeps the logits of every position, and the most logits: they
# outgrow all else, and with a large vocabulary a few hundred tokens keep a processor busy.
TOKENS = 4096
LOGITS = 2**27  # 1.3 GB with what is computed from them in float32
# The share of the memory beside the weights that a run plans to take. The rest is for what the
# estimate of `row_bytes` leaves out: fragments, the allocator's reserve, other processes.
SHARE = 0.5

# As the configurations of Hugging Face and of TransformerLens call the number of logits.
_VOCABULARY = ("vocab_size", "d_vocab")

Result = TypeVar("Result")


@dataclass(frozen=True)
class Plan:
    """Which rows run together.

    Args:
        batches: the numbers of the rows of each batch, in the order in which they run.
        rows: the most rows of a batch.
        row_bytes: the bytes that a row of the longest kind is estimated to take.
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
    greedy: bool = False,
    batch: int | None = None,
) -> Plan:
    """Cut rows into batches in which rows of like length and of one prompt come beside each other.

    Rows of like length need little padding, and rows of one prompt can share it. Raises
    `SteerlabError` where not even one row fits into memory.

    Args:
        model: what will run the rows.
        ids: the tokens of each row.
        depth: where each row joins its prompt, or another number by which rows of one prompt are
            put in order.
        only: the numbers of the rows to run; by default all.
        longest: the tokens to reckon with for a row; by default those of the longest.
        new: how many tokens will follow.
        every: whether the logits of every position are kept.
        greedy: whether logits are only compared with each other.
        batch: the most rows of a batch, whatever memory says; by default what `advise` gives.
    """
    chosen = range(len(ids)) if only is None else only
    if longest is None:
        longest = max((len(ids[row]) for row in chosen), default=0)
    # Asked in any case: it raises where not even one row fits.
    advised = advise(model, longest, new=new, every=every, greedy=greedy)
    rows = advised if batch is None else _need_rows(batch)
    order = sorted(chosen, key=lambda row: (len(ids[row]), ids[row], depth[row]))
    batches = _cut(order, rows, None if model.pads else ids)
    return Plan(batches, rows, row_bytes(model, longest, new=new, every=every))


def plan_in_order(
    model: Any,
    ids: Sequence[Sequence[int]],
    *,
    batch: int,
    every: bool = False,
    backward: bool = False,
) -> Plan:
    """Cut rows into batches in the given order, with fewer than `batch` rows only where memory
    holds fewer.

    It is for what is added up over batches: the last bits of such a sum depend on which rows run
    together, so that here this depends neither on their lengths nor, as long as memory suffices, on
    the machine. Raises `SteerlabError` where not even one row fits.

    Args:
        model: what will run the rows.
        ids: the tokens of each row.
        batch: the rows of a batch.
        every: whether the logits of every position are kept.
        backward: whether every block's activations are kept for gradients.
    """
    longest = max(map(len, ids), default=0)
    held = fitting(model, longest, every=every, backward=backward)
    rows = min(_need_rows(batch), held)
    need = row_bytes(model, longest, every=every, backward=backward)
    return Plan(_cut(range(len(ids)), rows, None if model.pads else ids), rows, need)


def _need_rows(batch: int) -> int:
    """The size of a batch as it was given; less than one row raises."""
    if batch < 1:
        raise SteerlabError(f"a batch of {batch} rows is none; give 1 or more")
    return batch


def _cut(
    order: Sequence[int], rows: int, ids: Sequence[Sequence[int]] | None = None
) -> tuple[tuple[int, ...], ...]:
    """Numbers of rows, cut into batches of so many, in their order; with the tokens of the rows, a
    batch ends where their length changes."""
    batches: list[list[int]] = []
    for row in order:
        last = batches[-1] if batches else []
        same = ids is None or not last or len(ids[last[-1]]) == len(ids[row])
        if not last or len(last) == rows or not same:
            batches.append([])
        batches[-1].append(row)
    return tuple(map(tuple, batches))


def advise(
    model: Any, longest: int, *, new: int = 0, every: bool = False, greedy: bool = False
) -> int:
    """How many rows a batch should have: as many as pay, and as half of the free memory holds.

    Raises `SteerlabError` where not even one fits.

    Args:
        model: what will run the rows.
        longest: the tokens of the longest row.
        new: how many tokens will follow.
        every: whether the logits of every position are kept.
        greedy: whether logits are only compared with each other.
    """
    pays = _paying(model)
    if every:
        vocab = _size(model.config, _VOCABULARY, 1)
        pays = max(1, min(TOKENS, LOGITS // vocab) // max(longest, 1))
    return min(pays, fitting(model, longest, new=new, every=every, greedy=greedy))


def _paying(model: Any) -> int:
    """The rows from which on a larger batch is not faster, but takes more memory."""
    if model.device.type != "cpu":
        return ROWS
    weights = model.bytes // torch.empty(0, dtype=model.dtype).element_size()
    return min(ROWS, max(LEAST_ROWS, BUSY // max(weights, 1)))


def fitting(
    model: Any,
    longest: int,
    *,
    new: int = 0,
    every: bool = False,
    greedy: bool = False,
    backward: bool = False,
) -> int:
    """How many rows half of the free memory holds; raises `SteerlabError` where not even one.

    Args:
        model: what will run the rows.
        longest: the tokens of the longest row.
        new: how many tokens will follow.
        every: whether the logits of every position are kept.
        greedy: whether logits are only compared with each other.
        backward: whether every block's activations are kept for gradients.
    """
    need = row_bytes(model, longest, new=new, every=every, greedy=greedy, backward=backward)
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
    model: Any,
    length: int,
    *,
    new: int = 0,
    every: bool = False,
    greedy: bool = False,
    backward: bool = False,
) -> int:
    """Estimated bytes of one row: its keys and values, the largest that a block holds at a time,
    and its logits.

    Args:
        model: what will run the row.
        length: tokens of the row.
        new: how many will follow; without any there is no cache.
        every: whether the logits of every position are kept.
        greedy: whether logits are only compared with each other, as greedy decoding does, which
            needs no copy of them in float32.
        backward: whether every block's activations are kept for gradients.
    """
    config = model.config
    width = model.width
    # Each size by the names that Hugging Face's and TransformerLens' configs have for it.
    heads = _size(config, ("num_attention_heads", "n_heads", "n_head"), 1)
    key_heads = _size(config, ("num_key_value_heads", "n_key_value_heads"), heads)
    head_width = _size(config, ("head_dim", "d_head"), width // heads)
    mlp_width = _size(config, ("intermediate_size", "d_mlp", "n_inner"), 4 * width)
    vocab = _size(config, _VOCABULARY, 0)
    item = torch.empty(0, dtype=model.dtype).element_size()
    cache = 2 * model.n_layers * key_heads * head_width * (length + new) * item  # keys and values
    scores = heads * length * length * 4  # attention scores, in float32
    # The residual stream with its copies, which norms take in float32, and the MLP's gate, up
    # projection and product in the model's dtype.
    block = length * (6 * width * max(item, 4) + 3 * mlp_width * item)
    blocks = model.n_layers if backward else 1
    # Each logit in the model's dtype and, where more is asked than which is the largest, in float32
    # and once more in what is computed from it.
    logits = (length if every else 1) * vocab * (item + (0 if greedy else 8))
    # Twice the cache: where rows leave it, the old one stays until the new one is written.
    return 2 * (cache if new else 0) + blocks * (scores + block) + logits


def memory(device: torch.device) -> int:
    """Bytes of memory that the whole device has.

    Not those that happen to be free: the same machine should always plan the same batches.
    """
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return int(psutil.virtual_memory().total)


def run(
    made: Plan,
    work: Callable[[Sequence[int]], Any],
    mark: Callable[[], Any] = lambda: None,
    undo: Callable[[Any], Any] = lambda _: None,
) -> Plan:
    """Do the work batch by batch; where memory runs out, the batch and all that follow are halved,
    and a line on stderr says so.

    The result is the plan as it was kept to. Raises `SteerlabError` where memory runs out at a
    single row; any other error of the work is passed on.

    Args:
        made: the plan.
        work: what to do with the numbers of the rows of a batch. It may be called again with the
            same rows.
        mark: gives the state of what the work counts, before each batch.
        undo: takes back to such a state what a failed batch has counted.
    """
    waiting = list(made.batches)
    done: list[tuple[int, ...]] = []
    rows = made.rows
    while waiting:
        batch = waiting.pop(0)
        if len(batch) > rows:
            # Batches have become smaller since the plan was made.
            waiting[:0] = [batch[:rows], batch[rows:]]
            continue
        before = mark()
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
    """Runs rows in the order in which they are given, together as far as memory holds them.

    Where memory runs out, the batch and all that follow are halved, those of later calls too, and a
    line on stderr says so.

    Args:
        model: what runs the rows.
        every: whether the logits of every position are kept.
        backward: whether every block's activations are kept for gradients.
    """

    model: Any
    every: bool = False
    backward: bool = False
    _most: int | None = field(default=None, init=False)  # rows of a batch, once memory has run out

    def run(
        self, ids: Sequence[Sequence[int]], work: Callable[[Sequence[int]], Result]
    ) -> list[Result]:
        """What `work` gives for each batch: one result, or more where memory is short.

        A batch that fails must leave nothing behind, since it runs again: `work` should only read,
        and its results be added up here.

        Args:
            ids: the tokens of each row.
            work: what to do with the numbers of the rows of a batch.
        """
        most = max(1, len(ids)) if self._most is None else self._most
        planned = plan_in_order(
            self.model, ids, batch=most, every=self.every, backward=self.backward
        )
        results: list[Result] = []
        kept_to = run(planned, lambda rows: results.append(work(rows)))
        if kept_to.rows < planned.rows:
            self._most = kept_to.rows
        return results


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out: Python's, or torch's on CPU or CUDA."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    # On a CPU torch raises a plain RuntimeError, which its text alone tells from others.
    messages = ("can't allocate memory", "not enough memory", "CUDA out of memory")
    return any(message in str(error) for message in messages)


def _size(config: Any, names: Sequence[str], otherwise: int) -> int:
    """The first of these attributes that a model's config has, or else the given number."""
    for name in names:
        try:
            size = getattr(config, name, None)
        except Exception:  # transformers' own, for a size that differs from layer to layer
            continue
        if isinstance(size, list | tuple):  # one for each layer
            size = max((each for each in size if isinstance(each, int)), default=None)
        if size is not None:
            return int(size)
    return otherwise
