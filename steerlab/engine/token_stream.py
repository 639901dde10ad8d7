"""Generation token by token: each with its probability, the language that it votes for, and where
it lies along a direction."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from steerlab.core.directions import Direction
from steerlab.core.errors import SteerlabError
from steerlab.core.generated import Token
from steerlab.edits import Edit
from steerlab.edits.edit import need_edit
from steerlab.engine.decoding import Stops
from steerlab.engine.growing_text import GrowingText
from steerlab.engine.inputs import need_room
from steerlab.engine.prompts import encode
from steerlab.engine.sampling import choose, need_settings, uniform
from steerlab.engine.token_lexicon import Lexicon, packaged_lexicon
from steerlab.engine.walk import Walk
from steerlab.models.loading import load
from steerlab.models.model import Model
from steerlab.models.positions import Positions

# The least share of the probability on a language's own tokens for a position to vote for it: most
# of what stands at a comma or a line break is nobody's, and the little left there says nothing.
LEAST_VOTE = 0.05


def stream(
    model: Any,
    prompt: str,
    *,
    edit: Edit | None = None,
    max_new_tokens: int = 32,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    direction: Direction | None = None,
    one_line: bool = True,
    words: Lexicon | None = None,
) -> Iterator[Token]:
    """Continue a prompt and give each token as it comes; their texts together are what `generate`
    says with the same settings.

    Between two tokens nothing is on the model: it may be used for something else, and a stream may
    be left at any time. A token votes by the distribution that it was chosen from:
    v(l) = Σ_u w_l(u) p(u), with the weights of `lexicon`. Along a direction it lies at
    u·(h - μ_source) / gap, h being the steered activations that it was chosen from; over several
    layers this is their mean. So `add` at this layer moves it by its strength.

    Raises `SteerlabError`, before anything runs, for what `generate` refuses, a stack of several
    edits, and a direction that does not fit the model.

    Args:
        model: what `load` takes.
        prompt: the text to continue.
        edit: what is done to the activations.
        max_new_tokens: the most tokens.
        temperature: 0 takes the likeliest token; above, tokens are sampled.
        top_p: sample from the fewest of the likeliest tokens whose probabilities, at the
            temperature, reach this share; 1 samples from all.
        seed: decides what is sampled.
        direction: along which each token is projected.
        one_line: whether the text ends at the first line break after some text.
        words: which tokens are each language's own; by default by the sentences in the package.
    """
    model = load(model)
    need_settings(max_new_tokens, temperature, top_p)
    if not isinstance(prompt, str):
        raise SteerlabError(
            f"stream continues one text, and was given a {type(prompt).__name__}; give a string, "
            "or use generate for several"
        )
    ids = encode(model.tokenizer, [prompt])[0]
    need_room(model, [ids], new=max_new_tokens)
    watched = [] if direction is None else _watched(model, direction)
    if edit is not None:
        need_edit(edit)
        if edit.rows not in (None, 1):
            raise SteerlabError(
                f"stream runs one text, and the stack has {edit.rows} edits; give one of them"
            )
    walk = Walk(
        model,
        [ids],
        edit,
        room=max_new_tokens,
        looks=[(each.site, each.layer, each) for each in watched],
    )
    chances = uniform(1, max_new_tokens, seed)[0] if temperature else None
    words = packaged_lexicon(model) if words is None else words
    words.need_fits(model)
    stops = Stops.of(model, one_line=one_line)
    return _tokens(walk, watched, words, stops, max_new_tokens, temperature, top_p, chances)


def _tokens(
    walk: Walk,
    watched: Sequence["_Watched"],
    words: Lexicon,
    stops: Stops,
    steps: int,
    temperature: float,
    top_p: float,
    chances: Float[Tensor, " step"] | None,
) -> Iterator[Token]:
    text = GrowingText(walk.model.tokenizer)
    weights = words.weights.to(walk.model.device)
    logits = walk.begin()[0]
    begun = False
    waiting: Token | None = None  # ends within a character: whether there is more is not known yet
    for index in range(steps):
        with torch.inference_mode():
            chance = None if chances is None else chances[index : index + 1]
            chosen = int(choose(logits[None], temperature, chance, top_p)[0])
            shares = logits.float().softmax(-1)
            mass = (weights @ shares).tolist()
        if stops.end[chosen]:
            break
        if waiting is not None:
            yield waiting
        begun = begun or not stops.one_line or not bool(stops.blank[chosen])
        last = index + 1 == steps or (stops.one_line and begun and bool(stops.line[chosen]))
        votes = dict(zip(words.langs, mass, strict=True))
        best = max(votes, key=lambda lang: votes[lang], default=None)
        token = Token(
            text.add(chosen, last=last),
            chosen,
            float(shares[chosen]),
            best if best is not None and votes[best] >= LEAST_VOTE else None,
            votes,
            _projection(watched),
            index,
        )
        waiting = token if text.held else None
        if waiting is None:
            yield token
        if last:
            break
        logits = walk.step([chosen])[0]
    if waiting is not None:
        yield replace(waiting, text=text.rest())
    walk.need_touched()


def _projection(watched: Sequence["_Watched"]) -> float | None:
    """Along the direction, of the last position that ran: the mean over its layers."""
    if not watched:
        return None
    return sum(each.last for each in watched) / len(watched)


class _Watched:
    """Sees where the last position lies along a direction at one layer."""

    def __init__(self, direction: Direction, number: int):
        self.site = direction.site
        self.layer = direction.layers[number]
        gap = direction.gap[number]
        self.unit = direction.unit[number].float() / gap
        self.start = direction.start[number].float()
        self.last = 0.0

    def __call__(self, h: Float[Tensor, "row pos width"], positions: Positions) -> None:
        here = h[0, -1].float().cpu()
        self.last = float((here - self.start) @ self.unit)


def _watched(model: Model, direction: Any) -> list[_Watched]:
    if not isinstance(direction, Direction):
        raise SteerlabError(
            f"one direction is needed, not {type(direction).__name__}; give "
            "directions.between('en', 'es').at(5)"
        )
    width = model.width_of(direction.site)
    if direction.unit.shape[1] != width:
        raise SteerlabError(
            f"the direction has width {direction.unit.shape[1]}, {model.name} has {width} at "
            f"{direction.site}; collect and fit again"
        )
    for layer in direction.layers:
        model.need_layer(layer)
    if not direction.gap.all():
        raise SteerlabError(
            f"the means of {direction.target!r} and of its source are one: there is no gap to "
            "measure along it by"
        )
    return [_Watched(direction, number) for number in range(len(direction.layers))]
