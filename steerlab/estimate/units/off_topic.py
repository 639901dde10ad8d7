"""Latents that are on where an answer is not to its question."""

from collections.abc import Sequence

import torch

from steerlab.core.errors import SteerlabError
from steerlab.core.firing import Firing
from steerlab.core.samples import derangement
from steerlab.estimate.units.selection import Selection, need_share, selected


def off_topic(
    answered: Firing, deranged: Firing, *, consistency: float = 0.8, most: float = 0.0
) -> Selection:
    """Choose the latents that fire where a question has another's answer, and not where it has its
    own.

    LangFIR's filter with the true pairs as noise: a latent is kept whose share of the deranged
    pairs in which it is on at any token is at least `consistency`, and of the true ones at most
    `most`. Both read the same questions and answers, so that what tells them apart is whether they
    belong together. A small rise needs no such latent: a subject that question and answer share is
    in one true pair and in two deranged ones, and on polyglot that is all there is (docs/gates.md).
    Source: endogenous steering resistance (arXiv 2602.06941), with 0.8 and 0,
    whose 26 latents of a model of 70 billion parameters clamped to 0 lower its rate by a quarter.

    Args:
        answered: what the latents do on questions with their own answers.
        deranged: on the same with another's (`deranged_pairs`).
        consistency: the least share of deranged pairs.
        most: the largest share of true ones.
    """
    need_share("the consistency", consistency)
    need_share("the share of true pairs", most)
    answered.need_texts()
    deranged.need_texts()
    answered.need_like(deranged, "the firing on deranged pairs")
    if not torch.equal(answered.texts, deranged.texts):
        raise SteerlabError(
            f"there are {answered.texts.tolist()} true pairs and {deranged.texts.tolist()} "
            "deranged ones; derange the same pairs"
        )
    chosen = (deranged.share >= consistency) & (answered.share <= most)
    if not chosen.any():
        near = int(((deranged.share >= consistency) & (answered.share <= 0.2)).sum())
        raise SteerlabError(
            f"no latent is on in {consistency:.0%} of the deranged pairs and at most {most:.0%} of "
            f"the true ones; at most=0.2 there would be {near}"
        )
    settings = {"consistency": consistency, "most": most}
    return selected("off topic", deranged, chosen, deranged.share - answered.share, settings)


def deranged_pairs(
    questions: Sequence[str], answers: Sequence[str], *, between: str = " ", seed: int = 0
) -> list[str]:
    """Each question with the answer of another, as one text.

    Args:
        questions: two or more.
        answers: of each.
        between: what stands between the two; with true pairs the same.
        seed: decides whose answer each one gets.
    """
    if len(questions) != len(answers) or len(questions) < 2:
        raise SteerlabError(
            f"there are {len(questions)} questions and {len(answers)} answers; give two or more "
            "pairs"
        )
    order = derangement(len(answers), seed).tolist()
    return [f"{a}{between}{answers[number]}" for a, number in zip(questions, order, strict=True)]
