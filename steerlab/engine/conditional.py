"""How likely an output is after its prompt, with and without edits."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

import steerlab.engine.batching as batches
from steerlab.core.errors import SteerlabError
from steerlab.edits import Edit, stack
from steerlab.engine.forward import Rows, rows_on
from steerlab.engine.inputs import need_room
from steerlab.engine.prompts import encode
from steerlab.models.model import Model


@torch.inference_mode()
def conditional(
    model: Model,
    pairs: Sequence[tuple[str, str]],
    edits: Sequence[Edit] | None = None,
    *,
    batch: int | None = None,
) -> tuple[Float[Tensor, "edit pair"], Float[Tensor, " pair"]]:
    """How many nats each output costs after its prompt under each edit, `[edit pair]`, and how many
    tokens it has, `[pair]`.

    The output's tokens are the same after every prompt, so that costs can be compared. A prompt
    that several outputs follow runs once in a batch. The output counts as generated, for edits that
    act on the prompt or on what is generated alone. Raises `SteerlabError` while an edit is on the
    model, and where prompt and output are longer than the model was made for.

    Args:
        model: what runs the pairs.
        pairs: (prompt, output).
        edits: the edits; by default the model is as it is, one row of costs.
        batch: the most rows that run together; by default as many as speed and memory advise.
    """
    if edits is not None and not len(edits):
        raise SteerlabError("there is no edit; give Edit(()) for the model as it is")
    count = 1 if edits is None else len(edits)
    prompts = list(dict.fromkeys(prompt for prompt, _ in pairs))
    prompt_ids = dict(zip(prompts, encode(model.tokenizer, prompts), strict=True))
    own = _output_ids(model, pairs)
    need_room(model, [[*prompt_ids[pair[0]], *ids] for pair, ids in zip(pairs, own, strict=True)])
    # The edits of a pair come beside each other: row = pair · count + edit.
    ids = [prompt_ids[prompt] for prompt, _ in pairs for _ in range(count)]
    outputs = [output for output in own for _ in range(count)]
    lengths = [len(output) for output in outputs]
    nats = torch.zeros(len(ids))
    given: dict[str, Any] = {"unsteered": True}
    if edits is not None:
        given = {"edit": stack(edits), "carries": list(range(count)) * len(pairs), "new": 1}
    with rows_on(model, ids, **given) as rows:

        def work(chosen: Sequence[int]) -> None:
            nats[list(chosen)] = _after(rows, chosen, [outputs[row] for row in chosen]).cpu()

        longest = max((len(a) + len(b) for a, b in zip(ids, outputs, strict=True)), default=1)
        # Rows of one prompt come beside each other, the shorter outputs first.
        plan = batches.plan(model, ids, lengths, longest=longest, every=True, batch=batch)
        rows.run(work, plan)
    costs = rearrange(nats, "(pair edit) -> edit pair", edit=count)
    return costs, torch.tensor([len(output) for output in own], dtype=torch.float32)


def _output_ids(model: Model, pairs: Sequence[tuple[str, str]]) -> list[list[int]]:
    """The tokens of the output of each (prompt, output)."""

    @cache  # an output follows many prompts
    def tokens(text: str) -> list[int]:
        return list(model.tokenizer(text, add_special_tokens=False).input_ids)

    ids = []
    for prompt, output in pairs:
        # A word after a prompt begins with a space, unless the prompt ends in one or in a line
        # break.
        after_space = prompt[-1:].isspace()
        ids.append(tokens(output if after_space else f" {output}"))
    return ids


def _after(
    rows: Rows, chosen: Sequence[int], outputs: Sequence[Sequence[int]]
) -> Float[Tensor, " row"]:
    """The nats of an output after each of some rows' prompts, `[row]`, summed over its tokens."""
    device = rows.model.device
    longest = max(map(len, outputs))
    # All prompts run first; of each, the last position predicts the output's first token.
    logits, batch = rows.forward(chosen, room=longest - 1)
    tokens = torch.zeros(len(outputs), longest, dtype=torch.long)
    real = torch.zeros(len(outputs), longest, dtype=torch.bool)  # false for padding on the right
    for row, output in enumerate(outputs):
        tokens[row, : len(output)] = torch.tensor(output)
        real[row, : len(output)] = True
    tokens = tokens.to(device)
    real = real.to(device)
    # All tokens of the output but its last predict the others.
    if longest > 1:
        more = batch.follow(tokens[:, :-1], real[:, :-1])
        logits = torch.cat([logits[:, -1:], more], 1)
    nats = torch.zeros(real.shape, device=device)
    nats[real] = torch.nn.functional.cross_entropy(
        logits[real].float(), tokens[real], reduction="none"
    )
    return nats.sum(1)
