"""No judge: for runs that a scorer of the user's own scores."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from steerlab.scores.judges.answers import Answer


class Unjudged:
    """Rates nothing: every rating is NaN, so that `relevant` and `joint` are false.

    It compares with no other sentences, and so takes any number of them.
    """

    name = "none"

    def rate(self, answers: Sequence[Answer]) -> Mapping[str, Any]:
        """`rating` [answer]: NaN."""
        return {"rating": [math.nan] * len(answers)}
