"""Which estimators, unit methods, trainings and operators a sweep can combine, by their names."""

from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.core.sites import ROUTER
from steerlab.edits import OPERATORS, Operator
from steerlab.estimate import VARIANTS, variant
from steerlab.estimate.units import METHODS as METHODS
from steerlab.estimate.units import Method
from steerlab.estimate.units import Readings as Readings
from steerlab.sweeps.own import Own
from steerlab.sweeps.trainings import TRAINED

NOTHING = Own()  # where a user brings nothing of his own

# The operators that a sweep steers with, by themselves at one layer, and the strengths of each
# where none are given.
STEERING = {name: record.grid for name, record in OPERATORS.items() if not record.removes}


# What looks like an estimator to whoever reads of it, and is none; and what to do instead.
_ELSEWHERE = {
    "amplify": "it is a way to apply: give operators={'amplified': function} with strengths=, a "
    "function of (direction, *, strength) that returns sl.amplify(sl.add(direction, "
    "strength=strength), 2.0)",
}


def known(name: str, own: Own = NOTHING) -> str:
    """The name itself, if there is such an estimator, variant, unit method, training or user's own;
    else it raises and lists them."""
    names = (*VARIANTS, *METHODS, *(how for how in TRAINED if how not in own.fits), *own.fits)
    if name not in names:
        message = f"there is no estimator {name!r}"
        if name in _ELSEWHERE:
            raise SteerlabError(f"{message}; {_ELSEWHERE[name]}")
        raise SteerlabError(f"{message}; there are {', '.join(names)}")
    return name


def operator_for(name: str) -> str:
    """The operator that steers with an estimator, unit method or training where none is asked for:
    `add`, or the first of its own that moves a model."""
    if name in TRAINED:
        return TRAINED[name].operator
    if name in METHODS:
        return next(each for each in METHODS[name].operators if each in STEERING)
    return "add"


def operator_record(name: str, own: Own = NOTHING) -> Operator:
    """The record of an operator, a user's own or the package's."""
    record: Operator = own.operators.get(name) or OPERATORS[name]
    return record


def suits(operator: str, name: str, own: Own = NOTHING) -> bool:
    """Whether an operator can take an estimator's directions: some need what only one makes.

    Args:
        operator: the operator's name.
        name: that of an estimator, a variant, a unit method, or a user's own.
        own: a user's own directions, estimators and operators.
    """
    record = operator_record(operator, own)
    estimator = name
    if name in own.directions:
        # What made them decides, where that is the package's; else what they hold.
        estimator = own.directions[name].estimator
        if estimator not in METHODS and estimator not in VARIANTS:
            return record.estimator is None and _holds(record, own.directions[name])
    elif name in own.estimators:
        # What a user's function makes is not known before it is called: a plain vector is.
        return record.units is None and record.estimator is None
    if estimator in METHODS:
        return _suits_method(operator, record, METHODS[estimator])
    if estimator in TRAINED:  # a vector, and of an autoencoder its code too
        own_code = TRAINED[estimator].sae and record.needs == "code"
        return own_code or (record.units is None and record.estimator is None)
    return record.units is None and record.estimator in (None, variant(estimator).estimator)


def _suits_method(operator: str, record: Operator, method: Method) -> bool:
    """Whether the method lists the operator, or, for one of a user's own, one like it."""
    if operator in OPERATORS:
        return operator in method.operators
    return any(OPERATORS[listed].units == record.units for listed in method.operators)


def _holds(record: Operator, given: Directions) -> bool:
    """Whether directions have the units that an operator acts on."""
    if record.units is None:
        return True
    needed = {"neurons": "mask", "experts": "mask", "latents": "decoder"}[record.units]
    here = (given.site == ROUTER) == (record.units == "experts")
    return here and needed in given.extra and record.needs in ("", *given.extra)
