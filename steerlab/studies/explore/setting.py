"""What a reader of the explorer sets: a sentence, and how the model is steered while it goes on
with it."""

from typing import Annotated

from pydantic import AfterValidator, Field

from steerlab.core.errors import SteerlabError
from steerlab.core.settings import Checked, check
from steerlab.sweeps.settings import CODES, LANGUAGES, SOME, SPLIT, Number, Prompt, Seed, Source

LONGEST = 2000  # characters of a sentence: more is no sentence, and holds up whoever waits
MOST_TOKENS = 128
STRONGEST = 100.0  # of an operator's knob, whose useful values are below 5
HOTTEST = 5.0  # of the temperature: above it, tokens are all but drawn from a hat


def _need_text(text: str) -> None:
    """Raise for a sentence that no model can read."""
    if not text.strip():
        raise SteerlabError("there is no sentence; write one")
    if len(text) > LONGEST:
        raise SteerlabError(f"the sentence has {len(text):,} characters; give {LONGEST:,} at most")
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise SteerlabError(
            "the sentence holds half of a surrogate pair, which is no character; write it again"
        )


class Steering(Checked):
    """How a model is steered: from where to where, along what, by what, where and how far.

    It is frozen and checked, so that the page, the endpoint, the command and a line of Python mean
    the same.
    """

    source: Source = "en"
    target: Annotated[str, LANGUAGES, CODES, Field(description="the language that is steered to")]
    estimator: Annotated[
        str, Field(min_length=1, max_length=100, description="how the direction was found")
    ] = "diffmean"
    operator: Annotated[
        str, Field(min_length=1, max_length=100, description="how the direction is applied")
    ] = "add"
    layers: Annotated[
        tuple[Annotated[int, Field(ge=0)], ...],
        SOME,
        SPLIT,
        AfterValidator(lambda layers: tuple(sorted(set(layers)))),
        Field(description="where the edit acts; at several layers, each has the whole strength"),
    ]
    strength: Annotated[
        Number,
        Field(ge=-STRONGEST, le=STRONGEST, description="in the operator's own unit"),
    ] = 1.0


class Setting(Steering):
    """One setting of the explorer: what a click, a slider and a key change."""

    text: Annotated[str, check(_need_text), Field(description="the sentence to go on from")]
    prompt: Prompt = "line"
    new_tokens: Annotated[
        int, Field(ge=1, le=MOST_TOKENS, description="new tokens of an output at most")
    ] = 32
    temperature: Annotated[
        Number, Field(ge=0, le=HOTTEST, description="0 takes the likeliest token, more samples")
    ] = 0.0
    seed: Seed = 0
