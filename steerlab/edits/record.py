"""What is to be known of an operator beside its formula: its knob, what that counts, and its random
twin."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from steerlab.core.errors import SteerlabError
from steerlab.edits.part import ChangeFn, Tensors

# twin(tensors of a part, generator, scale) -> those of the tensors that are drawn anew. The scale
# multiplies the length, fraction or angle, whichever it is by which the operator's dose grows.
TwinFn = Callable[[Tensors, torch.Generator, float], Tensors]


@dataclass(frozen=True, kw_only=True)
class Operator:
    """The record of an operator, which stands in the operator's own file, in `RECORDS`.

    A sweep calls `make(direction, **{knob: value})` over `grid` by default.

    Args:
        make: from a Direction, and the knob by keyword, to an Edit; one of your own may give a
            WeightEdit, as `sl.bake` and `sl.steer2edit` do.
        knob: the keyword that a sweep varies.
        unit: what a knob of 1 means, as a table or an axis says it: "natural gaps".
        grid: values of the knob, of which none changes nothing.
        change: the function of the parts that it makes, by which a part's record is found; None
            for an operator of your own that is made with `sl.edit`.
        identity: the knobs at which the operator changes nothing; one of your own, which has no
            `change`, may leave them out.
        twin: draws the tensors of a part like a given one in random directions.
        no_twin: without a twin, why there is none and what to compare with instead.
        estimator: the only estimator that fits what it needs, or None for any.
        removes: whether it takes a language away and names no other, so that it acts on
            `directions[target]` and is judged on removal.
        whole: whether it acts on all layers of the directions at once, not on one.
        units: what a selection must be of for the operator to act on it; None where any fit of
            activations will do.
        needs: of one of units, what `Directions.extra` must hold beside the units themselves.
        cites: where it comes from, for `sl.cite`: keys of steerlab/data/sources.bib, or whole
            BibTeX entries.
        no_source: where there is no paper to cite, why.
    """

    make: Callable[..., Any]
    knob: str
    unit: str
    grid: tuple[float, ...]
    change: ChangeFn | None = None
    identity: Mapping[str, float] = field(default_factory=dict)
    twin: TwinFn | None = None
    no_twin: str = ""
    estimator: str | None = None
    removes: bool = False
    whole: bool = False
    units: Literal["latents", "neurons", "experts"] | None = None
    needs: str = ""
    cites: tuple[str, ...] = ()
    no_source: str = ""

    def __post_init__(self) -> None:
        name = getattr(self.make, "__name__", str(self.make))
        knobs = list(inspect.signature(self.make).parameters)[1:]
        for key in (self.knob, *self.identity):
            if key not in knobs:
                raise SteerlabError(
                    f"the record of {name} names the knob {key!r}; it has {', '.join(knobs)}"
                )
        required = ["unit", "grid"] + ["identity"] * (self.change is not None)
        missing = [key for key in required if not getattr(self, key)]
        if missing:
            raise SteerlabError(
                f"the record of {name} leaves out {', '.join(missing)}; an operator has a unit, a "
                "grid, and knobs at which it changes nothing"
            )
        if (self.twin is None) == (not self.no_twin):
            raise SteerlabError(
                f"the record of {name} has either a random twin or, in no_twin, the reason why "
                "there is none; give one of the two"
            )
        if self.twin is not None and self.change is None:
            raise SteerlabError(
                f"the record of {name} has a twin, which belongs to the parts of one function; "
                "give change= too"
            )
