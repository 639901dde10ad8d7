"""What is to be known of an estimator beside its formula: what it needs, and what it estimates."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.core.moments import Moments


@dataclass(frozen=True, kw_only=True)
class Estimator:
    """The record of an estimator, or of a variant of it with some knobs set.

    It stands in the estimator's own file, in `RECORDS`, under the name that tables and sweeps call
    it by. The record whose name is its function's has no knobs and says what it `estimates`.

    Args:
        make: from Moments, and the knobs by keyword, to Directions.
        knobs: the keywords that the variant sets.
        needs: what `collect(also=...)` gathers for it, beside count and means.
        estimates: what a test of it has to plant, a key of `PLANTS` in tests/test_estimate.py.
        sourced: whether it takes `source=`.
        every: whether it reads other layers than those whose directions are asked for, so that all
            have to be collected.
    """

    make: Callable[..., Directions]
    knobs: Mapping[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    estimates: str = ""
    sourced: bool = False
    every: bool = False

    def __post_init__(self) -> None:
        if not self.knobs and not self.estimates:
            raise SteerlabError(
                f"the record of {self.estimator} leaves out what it estimates, which its contract "
                "test plants; give estimates="
            )

    @property
    def paired(self) -> bool:
        """Whether a fit is for one source only."""
        return self.sourced or "pairs" in self.needs

    @property
    def estimator(self) -> str:
        """The name of its function, which all variants of an estimator share."""
        return str(getattr(self.make, "__name__", self.make))

    def fit(self, moments: Moments, *, source: str) -> Directions:
        """Directions; `source` is for those that are set against something."""
        options = {"source": source} if self.sourced else {}
        return self.make(moments, **self.knobs, **options)
