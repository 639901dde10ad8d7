"""What became of an output: nothing, a loop, a copy of its source, or cut off at the limit."""

from steerlab.core.columns import Score
from steerlab.scores.answer import Answer
from steerlab.scores.chrf_pairs import chrf_pairs
from steerlab.scores.text import repetition

LOOP = 0.2  # of repetition: no human line of the packaged corpus reaches it
COPY = 60.0  # of chrF to the source: a line of it with its longest word exchanged has 65


def is_empty(text: str) -> bool:
    """Whether a text has nothing but spaces."""
    return not text.strip()


def is_loop(text: str) -> bool:
    """Whether a text repeats itself: a fifth or more of its character 4-grams were there before."""
    return repetition(text) >= LOOP


def is_copy(text: str, source: str) -> bool:
    """Whether a text is its source sentence still, or nearly: its chrF to it is 60 or more.

    Unlike equality this finds a copy with a word changed or a mark left out. Translations into
    other languages lie far below, names and loanwords included.
    """
    return bool(chrf_pairs([text], [source]).chrf[0] >= COPY)


def _empty(answer: Answer) -> bool:
    return is_empty(answer.output)


def _loop(answer: Answer) -> bool:
    return is_loop(answer.output)


def _echo(answer: Answer) -> bool:
    return is_copy(answer.output, answer.question)


RECORDS = {
    "echo": Score(
        label="copies of the source",
        compute=_echo,
        aggregate="share",
        higher_is_better=None,
        table="outputs",
    ),
    "loop": Score(
        label="loops", compute=_loop, aggregate="share", higher_is_better=False, table="outputs"
    ),
    # By the decoding: whether an output ended before its limit of tokens.
    "truncated": Score(
        label="cut off at the limit", aggregate="share", higher_is_better=False, table="outputs"
    ),
    "empty": Score(
        label="empty",
        compute=_empty,
        aggregate="share",
        # The summary's `empty` is their number.
        key="empty_share",
        higher_is_better=False,
        table="outputs",
    ),
}
