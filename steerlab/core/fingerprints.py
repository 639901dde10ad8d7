"""Fingerprints of models, as artefacts hold them: which are of the same weights.

A fingerprint is two hashes, `weights-rest`. The first one is of every weight, rounded to bfloat16:
it stays what it is when a model is loaded in another dtype, and directions of one mean the same in
the other. The second one is of all else that decides what the model says: the digits that rounding
loses, the configuration and the tokenizer. Keys of results take both.
"""

import re

_OLD = re.compile("[0-9a-f]{16}")  # until version 0.1: of one weight in five hundred


def same_weights(one: str, other: str) -> bool:
    """Whether two fingerprints are of models with the same weights, perhaps in another dtype."""
    return weights_of(one) == weights_of(other)


def weights_of(fingerprint: str) -> str:
    """The part of a fingerprint that says which weights a model has."""
    return fingerprint.partition("-")[0]


def is_old(fingerprint: str) -> bool:
    """Whether a fingerprint is of the kind that did not read every weight, so that it cannot tell
    one model from another."""
    return _OLD.fullmatch(fingerprint) is not None


def unlike(given: str | None, own: str | None) -> str:
    """Why two fingerprints that differ are not taken for the same model: a clause for a message,
    empty where they speak for themselves."""
    if given and own and is_old(given) != is_old(own):
        old = given if is_old(given) else own
        return f"; {old} is of the old kind, which did not read every weight and proves nothing"
    return ""
