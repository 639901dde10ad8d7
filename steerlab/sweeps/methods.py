"""Which estimators, methods of units and operators a sweep can join, by their names."""

from steerlab.core.errors import SteerlabError
from steerlab.edits import OPERATORS
from steerlab.estimate import VARIANTS, variant
from steerlab.estimate.units import METHODS as METHODS
from steerlab.estimate.units import Readings as Readings

# The operators that a sweep steers with, by themselves at one layer, and the strengths of each
# where none are given.
STEERING = {name: record.grid for name, record in OPERATORS.items() if not record.removes}


def known(name: str) -> str:
    """The name, if it is that of an estimator, a variant or a method that chooses units; else it
    raises."""
    if name not in METHODS and name not in VARIANTS:
        raise SteerlabError(
            f"there is no estimator {name!r}; there are {', '.join((*VARIANTS, *METHODS))}"
        )
    return name


def suits(operator: str, name: str) -> bool:
    """Whether an operator can take a method's directions: some need what only one fits."""
    if name in METHODS:
        return operator in METHODS[name].operators
    record = OPERATORS[operator]
    return record.units is None and record.estimator in (None, variant(name).estimator)
