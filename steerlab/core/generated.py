"""What a model said: token by token."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Token:
    """One generated token, and what stood behind it; `engine.token_stream.stream` gives them.

    Args:
        text: what it adds to the output. A character of several tokens comes with its last one, and
            the others have "".
        id: its number in the vocabulary.
        probability: the share that the model gave it, at temperature 1.
        lang: the language with the most votes; None where no language has at least
            `engine.token_stream.LEAST_VOTE`.
        votes: how much of the probability lay on each language's own tokens where this token was
            chosen (`engine.token_lexicon.Lexicon`).
        projection: where the activations that it was chosen from lie along a direction, in natural
            gaps: 0 at the source's mean. None without a direction.
        index: its number in the output, from 0.
    """

    text: str
    id: int
    probability: float
    lang: str | None
    votes: Mapping[str, float] = field(default_factory=dict)
    projection: float | None = None
    index: int = 0
