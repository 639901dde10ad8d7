"""Contrastive likelihood: an output is relevant if the unsteered model finds it likelier after its
own prompt than after others."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from steerlab.core.corpus import Corpus
from steerlab.core.errors import SteerlabError
from steerlab.engine.conditional import conditional
from steerlab.models.loading import load
from steerlab.models.model import Model
from steerlab.scores.chrf import rivals, twins
from steerlab.scores.judges.answers import Answer
from steerlab.scores.judges.places import places, without_twins


@dataclass(frozen=True)
class Likelihood:
    """Rates 1 where an output is likelier after its own prompt than after prompts with other
    sentences, else 0.

    It passes a copy of the source, which is likely after its own prompt like nothing else; and on
    what the same model wrote it is near to circular, since an output came from its prompt whatever
    it says. It asks whether an output depends on its sentence, not whether it says the same: hold
    `faithful` or another judge beside it (docs/faithful.md has the figures).

    The other prompts have another sentence of the same language in the place of the question. A tie
    and an empty output are rated 0. Chance is 1 / (distractors + 1).

    Args:
        references: the sentences that questions are taken from.
        model: what `load` takes; it should be the model that was steered, without its edit.
        distractors: with how many other prompts the own one is compared.
        seed: decides which these are.
        batch: the most rows that run together; by default as many as speed and memory advise.
    """

    references: Corpus
    model: Any = None
    distractors: int = 15
    seed: int = 0
    batch: int | None = None

    @property
    def name(self) -> str:
        """Everything that decides a rating; the model is loaded for it."""
        model = json.dumps(loaded(self.model).metadata, sort_keys=True)
        corpus = f"{self.references.hash}{without_twins(self.references)}"
        prompts = f"{self.distractors + 1} prompts of {corpus}, seed {self.seed}"
        return f"likelihood among {prompts}, under {model}"

    def rate(self, answers: Sequence[Answer]) -> Mapping[str, Any]:
        """`rating` [answer] of 0 or 1, and `margin` [answer]: by how many nats per token the output
        is likelier than after the best other prompt.

        The margin of an empty output is NaN. Raises `SteerlabError` while an edit is on the model,
        since the model has to judge as it is.
        """
        model = loaded(self.model)
        has_text = np.array([bool(answer.output.strip()) for answer in answers], dtype=bool)
        written = [answer for answer in answers if answer.output.strip()]
        pairs = []
        for answer, prompts in zip(written, self._prompts(written), strict=True):
            pairs += [(prompt, answer.output) for prompt in prompts]
        # Edits of a sweep often give the same output to the same prompt: it is read once.
        distinct = list(dict.fromkeys(pairs))
        [nats], lengths = conditional(model, distinct, batch=self.batch)
        # Per token, as outputs are compared in one scale; the same output has the same length.
        nats_per_token = dict(zip(distinct, (nats / lengths).tolist(), strict=True))
        flat = np.array([nats_per_token[pair] for pair in pairs])
        cost = flat.reshape(len(written), self.distractors + 1)
        margin = np.full(len(answers), np.nan)
        margin[has_text] = cost[:, 1:].min(1) - cost[:, 0]
        return {"rating": (margin > 0).astype(float), "margin": margin}

    def _prompts(self, answers: Sequence[Answer]) -> list[list[str]]:
        """For each answer its own prompt, then those with another sentence in the question's
        place."""
        others = rivals(
            len(self.references), self.distractors, self.seed, twins(self.references.lines)
        )
        prompts = []
        for answer, index in zip(answers, places(self.references, answers), strict=True):
            # The last occurrence: a prompt may show examples before its question.
            before, question, after = answer.prompt.rpartition(answer.question)
            if not question:
                raise SteerlabError(
                    f"the question {answer.question[:40]!r} is not in its prompt "
                    f"{answer.prompt[:60]!r}, so no other "
                    "can stand in its place; give the rows' prompt and question as they were run"
                )
            sentences = self.references[answer.source]
            rivalling = [before + sentences[other] + after for other in others[index]]
            prompts.append([answer.prompt, *rivalling])
        return prompts


def loaded(model: Any) -> Model:
    """The model of a name or folder, loaded once in a process; a model itself is taken as it is."""
    if model is None or isinstance(model, (str, Path)):
        return _load(model)
    return load(model)


@lru_cache(maxsize=2)
def _load(source: str | Path | None) -> Model:
    return load(source)
