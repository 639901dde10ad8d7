"""Log-probabilities as OpenAI's protocol writes them: one way for completions, one for chats."""

import codecs
from collections.abc import Sequence
from typing import Any

from steerlab.core.tokens import Spelling
from steerlab.engine.token_scores import TokenScore
from steerlab.studies.serve.reply import Placed

LEAST = -9999.0  # stands for the logarithm of nothing, which JSON cannot write


def placed(spelling: Spelling, scores: Sequence[TokenScore]) -> list[Placed]:
    """The tokens of a prompt with where each begins in its text, in which those that are no text,
    such as BOS, have no length."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    tokens, start = [], 0
    for score in scores:
        tokens.append(Placed(score, start))
        if spelling.is_text(score.token):
            start += len(decoder.decode(spelling.of(score.token)))
    return tokens


def of_completion(
    spelling: Spelling, tokens: Sequence[Placed], *, shift: int = 0
) -> dict[str, Any]:
    """Lists beside each other; the likeliest tokens hold the one that was taken, too.

    Args:
        spelling: of the model's tokens.
        tokens: with their log-probabilities.
        shift: the length of what stands before the text in which they begin.
    """
    scores = [each.score for each in tokens]
    return {
        "tokens": [_name(spelling.of(score.token)) for score in scores],
        "token_logprobs": [_number(score.logprob) for score in scores],
        "top_logprobs": [_by_name(spelling, score) for score in scores],
        "text_offset": [shift + each.start for each in tokens],
    }


def of_chat(spelling: Spelling, tokens: Sequence[Placed]) -> dict[str, Any]:
    """An object for each token, with those of the likeliest."""
    content = []
    for each in tokens:
        likeliest = [_object(spelling, *other) for other in each.score.likeliest]
        one = _object(spelling, each.score.token, each.score.logprob)
        content.append(one | {"top_logprobs": likeliest})
    return {"content": content, "refusal": None}


def _by_name(spelling: Spelling, score: TokenScore) -> dict[str, float | None] | None:
    if score.logprob is None:
        return None
    named: dict[str, float | None] = {}
    for token, logprob in (*score.likeliest, (score.token, score.logprob)):
        named.setdefault(_name(spelling.of(token)), _number(logprob))  # of two alike the likelier
    return named


def _object(spelling: Spelling, token: int, logprob: float | None) -> dict[str, Any]:
    spelled = spelling.of(token)
    return {"token": _name(spelled), "logprob": _number(logprob), "bytes": list(spelled)}


def _name(spelled: bytes) -> str:
    """A token's text, or its bytes where it is a part of a character, as OpenAI writes them."""
    try:
        return spelled.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in spelled)


def _number(logprob: float | None) -> float | None:
    return None if logprob is None else max(logprob, LEAST)
