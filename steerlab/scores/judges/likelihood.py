"""Contrastive likelihood: an output is relevant if the unsteered model expects it after its own
prompt above others."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

import steerlab.engine.batching as batches
from steerlab.core.corpus import Corpus
from steerlab.core.errors import SteerlabError
from steerlab.engine.forward import Rows, rows_on
from steerlab.engine.inputs import need_room
from steerlab.engine.prompts import encode
from steerlab.models.loading import load
from steerlab.models.model import Model
from steerlab.scores.chrf import rivals
from steerlab.scores.judges.answers import Answer
from steerlab.scores.judges.places import places


@dataclass(frozen=True)
class Likelihood:
    """Rates 1 where an output is likelier after its own prompt than after `distractors` prompts of
    other sentences.

    The other prompts have another sentence of `references`, in the same language, in the place of
    the question. Chance is 1 / (distractors + 1); a tie and an empty output are 0. `model`: what
    `load` takes.
    """

    references: Corpus
    model: Any = None
    distractors: int = 15
    seed: int = 0
    batch: int | None = None  # rows that run together; by default what memory advises

    @property
    def name(self) -> str:
        model = json.dumps(loaded(self.model).metadata, sort_keys=True)
        prompts = f"{self.distractors + 1} prompts of {self.references.hash}, seed {self.seed}"
        return f"likelihood among {prompts}, under {model}"

    def rate(self, answers: Sequence[Answer]) -> Mapping[str, Any]:
        """`rating` [answer] of 0 or 1, and `margin` [answer]: nats per token above the best other
        prompt.

        The margin of an empty output is NaN. Raises while an edit is on the model: it judges as it
        is.
        """
        model = loaded(self.model)
        spoken = [answer for answer in answers if answer.output.strip()]
        pairs = [
            (prompt, answer.output)
            for answer, prompts in zip(spoken, self._prompts(spoken), strict=True)
            for prompt in prompts
        ]
        distinct = list(dict.fromkeys(pairs))
        nats, lengths = conditional(model, distinct, batch=self.batch)
        each = dict(zip(distinct, (nats / lengths).tolist(), strict=True))
        cost = np.array([each[pair] for pair in pairs]).reshape(len(spoken), self.distractors + 1)
        margin = np.full(len(answers), np.nan)
        margin[[bool(answer.output.strip()) for answer in answers]] = (
            cost[:, 1:].min(1) - cost[:, 0]
        )
        return {"rating": (margin > 0).astype(float), "margin": margin}

    def _prompts(self, answers: Sequence[Answer]) -> list[list[str]]:
        """Each answer's own prompt, then the others."""
        others = rivals(len(self.references), self.distractors, self.seed)
        made = []
        for answer, index in zip(answers, places(self.references, answers), strict=True):
            before, question, after = answer.prompt.rpartition(answer.question)
            if not question:
                raise SteerlabError(
                    f"the question {answer.question[:40]!r} is not in its prompt "
                    f"{answer.prompt[:60]!r}, so no other "
                    "can stand in its place; give the rows' prompt and question as they were run"
                )
            lines = self.references[answer.source]
            made.append(
                [answer.prompt, *(before + lines[other] + after for other in others[index])]
            )
        return made


def loaded(model: Any) -> Model:
    """The model, loaded once for each name or folder in a process; a model is taken as it is."""
    return _load(model) if model is None or isinstance(model, (str, Path)) else load(model)


_load = lru_cache(maxsize=2)(load)


@torch.inference_mode()
def conditional(
    model: Model, pairs: Sequence[tuple[str, str]], *, batch: int | None = None
) -> tuple[Float[Tensor, " pair"], Float[Tensor, " pair"]]:
    """Nats of each (prompt, output)'s output after its prompt, `[pair]`, and how many tokens the
    output has, `[pair]`.

    The output's tokens are the same after every prompt. A prompt that several outputs follow runs
    once in a batch.
    """
    texts = list(dict.fromkeys(prompt for prompt, _ in pairs))
    prompts = dict(zip(texts, encode(model.tokenizer, texts), strict=True))
    read = cache(lambda text: list(model.tokenizer(text, add_special_tokens=False).input_ids))
    # A word after a prompt begins with a space, unless the prompt ends in one or in a line break.
    outputs = [read(output if prompt[-1:].isspace() else f" {output}") for prompt, output in pairs]
    ids = [prompts[prompt] for prompt, _ in pairs]
    whole = [[*prompt, *output] for prompt, output in zip(ids, outputs, strict=True)]
    need_room(model, whole)
    lengths = [len(output) for output in outputs]
    nats = torch.zeros(len(pairs))
    with rows_on(model, ids, unsteered=True) as rows:

        def work(chosen: Sequence[int]) -> None:
            nats[list(chosen)] = _after(rows, chosen, [outputs[row] for row in chosen]).cpu()

        longest = max(map(len, whole), default=1)
        plan = batches.plan(model, ids, lengths, longest=longest, every=True, batch=batch)
        rows.run(work, plan)
    return nats, torch.tensor(lengths, dtype=torch.float32)


def _after(
    rows: Rows, chosen: Sequence[int], outputs: Sequence[Sequence[int]]
) -> Float[Tensor, " row"]:
    """The nats of an output after each of some rows' prompts."""
    device, longest = rows.model.device, max(map(len, outputs))
    logits, batch = rows.forward(chosen, room=longest - 1)
    tokens = torch.zeros(len(outputs), longest, dtype=torch.long)
    real = torch.zeros(len(outputs), longest, dtype=torch.bool)
    for row, output in enumerate(outputs):
        tokens[row, : len(output)] = torch.tensor(output)
        real[row, : len(output)] = True
    tokens, real = tokens.to(device), real.to(device)
    # The prompt's pass foretells the first token of an output, and all but its last the others.
    if longest > 1:
        more = batch.follow(tokens[:, :-1], real[:, :-1])
        logits = torch.cat([logits[:, -1:], more], 1)
    nats = torch.zeros(real.shape, device=device)
    nats[real] = torch.nn.functional.cross_entropy(
        logits[real].float(), tokens[real], reduction="none"
    )
    return nats.sum(1)
