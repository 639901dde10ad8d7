"""The record of an estimator: its function, what statistics it needs, and what it estimates."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.core.moments import PARTS, Moments


@dataclass(frozen=True, kw_only=True)
class Estimator:
    """The record of an estimator, or of a variant of it with some knobs set.

    It stands in the estimator's own file, in `RECORDS`, under the name that tables and sweeps call
    it by. The record whose name is its function's has no knobs and says what it `estimates`. That
    of a function of your own, which `estimator` makes, has its `name` in it.

    Args:
        make: from Moments, and the knobs by keyword, to Directions.
        knobs: the keywords that the variant sets.
        needs: what `collect(also=...)` gathers for it, beside count and means.
        estimates: what a test of it has to plant, a key of `PLANTS` in tests/test_estimate.py.
        sourced: whether it takes `source=`.
        every: whether it reads other layers than those whose directions are asked for, so that all
            have to be collected.
        name: of one of your own, what tables and sweeps call it.
        cites: where it comes from, for `sl.cite`: keys of steerlab/data/sources.bib, or whole
            BibTeX entries; a variant that names none has its estimator's.
        no_source: where there is no paper to cite, why.
    """

    make: Callable[..., Directions]
    knobs: Mapping[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    estimates: str = ""
    sourced: bool = False
    every: bool = False
    name: str = ""
    cites: tuple[str, ...] = ()
    no_source: str = ""

    def __post_init__(self) -> None:
        if not (self.knobs or self.estimates or self.name):
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
        """Estimate directions; `source` is for estimators that set the target against others."""
        options = {"source": source} if self.sourced else {}
        directions = self.make(moments, **self.knobs, **options)
        if not isinstance(directions, Directions):
            raise SteerlabError(
                f"{self.name or self.estimator} returned {type(directions).__name__}; an estimator "
                "goes from Moments to Directions"
            )
        return directions


def estimator(
    function: Any,
    *,
    needs: Sequence[str] | None = None,
    name: str | None = None,
    every: bool = False,
) -> Estimator:
    """A function of your own as an estimator, which a sweep takes among its `estimators`.

    It goes from Moments to Directions; one with a parameter `source` is given the source language.

    Args:
        function: the function, whose other parameters have defaults; a record stays as it is.
        needs: what `collect(also=...)` gathers for it, beside count and means; by default its
            attribute `needs`, if it has one.
        name: what rows call it; by default its `__name__`.
        every: whether it reads other layers than those whose directions are asked for.
    """
    if isinstance(function, Estimator):
        if not function.name:
            raise SteerlabError(
                f"this is the package's own record of {function.estimator}; give its name, or a "
                "function of your own"
            )
        return function
    if not callable(function):
        raise SteerlabError(
            "an estimator is a name or a function from Moments to Directions, not "
            f"{type(function).__name__}"
        )
    if needs is None:
        needs = getattr(function, "needs", ())
    # One word alone stands for a list of it.
    needs = (needs,) if isinstance(needs, str) else tuple(needs)
    unknown = [part for part in needs if part not in PARTS]
    if unknown:
        raise SteerlabError(
            f"there is no statistic {unknown[0]!r} to collect; needs= takes {', '.join(PARTS)}"
        )
    return Estimator(
        make=function,
        needs=needs,
        sourced="source" in inspect.signature(function).parameters,
        every=every,
        name=str(getattr(function, "__name__", "")) if name is None else name,
    )
