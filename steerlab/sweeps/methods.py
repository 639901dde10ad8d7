"""Which estimators, methods of units and operators a sweep can join, by their names."""

from collections.abc import Mapping
from typing import Any

from steerlab.core.errors import SteerlabError
from steerlab.edits import OPERATORS, Operator
from steerlab.estimate import VARIANTS, variant
from steerlab.estimate.units import METHODS as METHODS
from steerlab.estimate.units import Method
from steerlab.estimate.units import Readings as Readings
from steerlab.sweeps.own import Own

NOTHING = Own()  # of a user's own

# The operators that a sweep steers with, by themselves at one layer, and the strengths of each
# where none are given.
STEERING = {name: record.grid for name, record in OPERATORS.items() if not record.removes}


def known(name: str, own: Own = NOTHING) -> str:
    """The name, if it is that of an estimator, a variant, a method that chooses units, or of a
    user's own; else it raises."""
    names = (*VARIANTS, *METHODS, *own.fits)
    if name not in names:
        raise SteerlabError(f"there is no estimator {name!r}; there are {', '.join(names)}")
    return name


def operator_record(name: str, own: Own = NOTHING) -> Operator:
    """The record of an operator, a user's own or the package's."""
    record: Operator = own.operators.get(name) or OPERATORS[name]
    return record


def suits(operator: str, name: str, own: Own = NOTHING) -> bool:
    """Whether an operator can take a method's directions: some need what only one fits."""
    record = operator_record(operator, own)
    fit = name
    if name in own.directions:
        # What made them decides, where that is the package's; else what they hold.
        fit = own.directions[name].estimator
        if fit not in METHODS and fit not in VARIANTS:
            return record.estimator is None and _holds(record, own.directions[name].extra)
    elif name in own.estimators:
        return record.units is None and record.estimator is None
    if fit in METHODS:
        return _suits_method(operator, record, METHODS[fit])
    return record.units is None and record.estimator in (None, variant(fit).estimator)


def _suits_method(operator: str, record: Operator, method: Method) -> bool:
    """Whether the method lists the operator, or, for one of a user's own, one like it."""
    if operator in OPERATORS:
        return operator in method.operators
    return any(OPERATORS[each].units == record.units for each in method.operators)


def _holds(record: Operator, extra: Mapping[str, Any]) -> bool:
    """Whether directions have the units that an operator acts on."""
    needed = {None: None, "neurons": "mask", "latents": "decoder"}[record.units]
    return needed is None or needed in extra
