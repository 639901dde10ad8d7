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
from steerlab.engine.prompts import encode, pad
from steerlab.models.branching import branch
from steerlab.models.huggingface import Model
from steerlab.models.loading import load
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
        about = json.dumps(loaded(self.model).about, sort_keys=True)
        told = f"{self.distractors + 1} prompts of {self.references.hash}, seed {self.seed}"
        return f"likelihood among {told}, under {about}"

    def rate(self, answers: Sequence[Answer]) -> Mapping[str, Any]:
        """`rating` [answer] of 0 or 1, and `margin` [answer]: nats per token above the best other
        prompt.

        The margin of an empty output is NaN.
        """
        model = loaded(self.model)
        if model.attachments:
            raise SteerlabError(
                "likelihood is judged by the model as it is: judge outside of the edit's `with`"
            )
        told = [answer for answer in answers if answer.output.strip()]
        rows = zip(told, self._prompts(told), strict=True)
        after = [(prompt, answer.output) for answer, prompts in rows for prompt in prompts]
        distinct = list(dict.fromkeys(after))
        nats, lengths = conditional(model, distinct, batch=self.batch)
        each = dict(zip(distinct, (nats / lengths).tolist(), strict=True))
        cost = np.array([each[pair] for pair in after]).reshape(len(told), self.distractors + 1)
        margin = np.full(len(answers), np.nan)
        margin[[bool(answer.output.strip()) for answer in answers]] = (
            cost[:, 1:].min(1) - cost[:, 0]
        )
        return {"rating": (margin > 0).astype(float), "margin": margin}

    def _prompts(self, answers: Sequence[Answer]) -> list[list[str]]:
        """Each answer's own prompt, then the others."""
        others = rivals(len(self.references), self.distractors, self.seed)
        made = []
        for answer, place in zip(answers, places(self.references, answers), strict=True):
            before, question, after = answer.prompt.rpartition(answer.question)
            if not question:
                raise SteerlabError(
                    f"the question {answer.question[:40]!r} is not in its prompt "
                    f"{answer.prompt[:60]!r}, so no other "
                    "can stand in its place; give the rows' prompt and question as they were run"
                )
            lines = self.references[answer.source]
            made.append(
                [answer.prompt, *(before + lines[other] + after for other in others[place])]
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
    said = [read(output if prompt[-1:].isspace() else f" {output}") for prompt, output in pairs]
    ids = [prompts[prompt] for prompt, _ in pairs]
    longest = max((len(a) + len(b) for a, b in zip(ids, said, strict=True)), default=1)
    if longest > model.context:
        raise SteerlabError(
            f"a prompt and an output have {longest} tokens; {model.name} was made for "
            f"{model.context}: shorten them"
        )
    rows = batches.advise(model, longest, every=True) if batch is None else batch
    order = sorted(range(len(pairs)), key=lambda row: (len(ids[row]), ids[row], len(said[row])))
    parts = tuple(tuple(order[start : start + rows]) for start in range(0, len(order), rows))
    nats = torch.zeros(len(pairs))

    def work(chosen: Sequence[int]) -> None:
        places, found = _after(model, [ids[row] for row in chosen], [said[row] for row in chosen])
        nats[[chosen[place] for place in places]] = found.cpu()

    plan = batches.Plan(parts, rows, batches.row_bytes(model, longest, every=True))
    batches.run(plan, work, lambda: None, lambda _: None)
    return nats, torch.tensor([float(len(tokens)) for tokens in said])


def _after(
    model: Model, prompts: list[list[int]], said: list[list[int]]
) -> tuple[Sequence[int], Float[Tensor, " row"]]:
    """The order in which rows were run, and the nats of what each says after its prompt, in that
    order."""
    rows, joined = prompts, None
    if model.branches:
        rows, joined = branch(
            prompts, [model.n_layers] * len(prompts), range(len(prompts)), model.device
        )
    order = range(len(prompts)) if joined is None else joined.order
    feed, mask = pad(rows, model.tokenizer.pad_token_id, model.device)
    longest = max(map(len, said))
    logits, past = model.forward(feed, mask, last=True, room=longest - 1, branch=joined)
    tokens = torch.zeros(len(said), longest, dtype=torch.long)
    real = torch.zeros(len(said), longest, dtype=torch.bool)
    for place, row in enumerate(order):
        tokens[place, : len(said[row])], real[place, : len(said[row])] = (
            torch.tensor(said[row]),
            True,
        )
    tokens, real = tokens.to(model.device), real.to(model.device)
    if longest > 1:
        mask = torch.cat([mask if joined is None else mask[joined.parent], real[:, :-1]], 1)
        more, _ = model.forward(tokens[:, :-1], mask, past=past)
        logits = torch.cat([logits[:, -1:], more], 1)
    nats = torch.zeros(real.shape, device=model.device)
    nats[real] = torch.nn.functional.cross_entropy(
        logits[real].float(), tokens[real], reduction="none"
    )
    return order, nats.sum(1)
