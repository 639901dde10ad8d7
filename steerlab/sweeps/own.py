"""What a user brings to a sweep beside the package's names: directions, estimators, operators.

Each goes where the package's go, under a name of its own. Nothing heavy is imported before there is
something to read, since a grid is read for `--help` too.
"""

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from steerlab.core.errors import SteerlabError

if TYPE_CHECKING:
    import steerlab.edits.record
    import steerlab.estimate.record

_NAME = re.compile(r"\w[\w .+-]*")  # of a file, and of a word in a list with commas


@dataclass(frozen=True)
class Own:
    """A user's `Directions`, `Estimator` and `Operator` records and scorers, by the names that rows
    call them."""

    directions: Mapping[str, Any] = field(default_factory=dict)
    estimators: Mapping[str, Any] = field(default_factory=dict)
    operators: Mapping[str, Any] = field(default_factory=dict)
    scorers: Mapping[str, Callable[..., Any]] = field(default_factory=dict)

    @property
    def fits(self) -> tuple[str, ...]:
        """The names that stand where an estimator's does."""
        return (*self.directions, *self.estimators)

    def digests(self) -> dict[str, str]:
        """What tells each from another under the same name: a folder keeps these.

        Raises for a function whose source and values cannot be read.
        """
        from steerlab.edits.digest import Unreadable

        digests = {name: value.digest for name, value in self.directions.items()}
        for name, record in {**self.estimators, **self.operators}.items():
            try:
                digests[name] = _digest(record)
            except Unreadable as error:
                raise SteerlabError(
                    f"what {name!r} does cannot be read ({error}), and so a folder cannot tell it "
                    "from others under that name; leave out= out, or write it as a plain function"
                ) from error
        return digests | {name: scorer_digest(name, one) for name, one in self.scorers.items()}


def scorer_digest(name: str, scorer: Callable[..., Any]) -> str:
    """A hash of what a scorer does; its name alone where its source and values cannot be read, as
    those of a model behind it."""
    from steerlab.edits.digest import Unreadable, function_digest

    try:
        return function_digest(scorer)
    except Unreadable:
        return f"name {name}"


def operator_digest(record: "steerlab.edits.record.Operator", name: str) -> str:
    """A hash of what an operator does, for the keys of its cells.

    One whose source cannot be read counts by its name: nothing is kept of it, since a folder
    refuses it before any work.
    """
    from steerlab.edits.digest import Unreadable

    try:
        return _digest(record)
    except Unreadable:
        return f"name {name}"


def _digest(record: Any) -> str:
    """A hash of a record's function, with the keyword that a sweep sets or what it collects."""
    from steerlab.edits.digest import function_digest

    setting = getattr(record, "knob", None) or " ".join(record.needs)
    return f"{setting} {function_digest(record.make)}"


def take_own(keys: Mapping[str, Any]) -> tuple[dict[str, Any], Own]:
    """(the keys of a grid with names in place of a user's own things, those things by name).

    Directions stand beside the estimators that are asked for, or alone where none are.
    """
    keys = dict(keys)
    scorers = _read_scorers(keys.pop("scorers", None))
    directions = _read_directions(keys.pop("directions", None))
    estimators: dict[str, Any] = {}
    given = keys.get("estimators")
    if given is not None and not isinstance(given, str):
        given, estimators = _read_estimators(given)
        keys["estimators"] = given
    if directions:
        from steerlab.sweeps.settings import split_names

        named = list(split_names(given or ()))
        keys["estimators"] = [*named, *(name for name in directions if name not in named)]
    operators: dict[str, Any] = {}
    if isinstance(keys.get("operators"), Mapping):
        keys["operators"], operators = _read_operators(keys["operators"], keys.get("strengths"))
    return keys, Own(directions, estimators, operators, scorers)


def _read_directions(given: Any) -> dict[str, Any]:
    if given is None:
        return {}
    from steerlab.core.directions import Directions

    if not isinstance(given, Mapping):
        raise SteerlabError(
            f"directions: give them by name, such as {{'mine': directions}}, not as "
            f"{type(given).__name__}"
        )
    for name, directions in given.items():
        _need_name("directions", name, _estimator_names())
        if not isinstance(directions, Directions):
            raise SteerlabError(
                f"directions.{name}: Directions are needed, not {type(directions).__name__}"
            )
    return dict(given)


def _read_scorers(given: Any) -> dict[str, Callable[..., Any]]:
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise SteerlabError(
            f"scorers: give them by name, such as {{'polite': function}}, not as "
            f"{type(given).__name__}"
        )
    for name, scorer in given.items():
        _need_name("scorers", name, _score_names())
        if not callable(scorer):
            raise SteerlabError(
                f"scorers.{name}: a function from a list of outputs to as many numbers is needed, "
                f"not {type(scorer).__name__}"
            )
    return dict(given)


def _read_estimators(given: Any) -> tuple[list[Any], dict[str, Any]]:
    """Names, and the records of those that are functions."""
    items = list(given) if isinstance(given, Iterable) else [given]
    if all(isinstance(item, str) for item in items):
        return items, {}
    from steerlab.estimate.record import estimator

    names: list[Any] = []
    own: dict[str, steerlab.estimate.record.Estimator] = {}
    for item in items:
        if isinstance(item, str):
            names.append(item)
            continue
        try:
            record = estimator(item)
        except SteerlabError as error:
            raise SteerlabError(f"estimators: {error}") from error
        _need_name("estimators", record.name, (*_estimator_names(), *own))
        own[record.name] = record
        names.append(record.name)
    return names, own


def _read_operators(
    given: Mapping[str, Any], strengths: Any
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Names with their strengths, and the records of those that are functions or records."""
    from steerlab.edits.record import Operator

    named = dict(given)
    own: dict[str, steerlab.edits.record.Operator] = {}
    for name, value in given.items():
        if not (isinstance(value, Operator) or callable(value)):
            continue
        _need_name("operators", name, _operator_names())
        own[name] = value if isinstance(value, Operator) else _operator_of(name, value, strengths)
        # Its own grid, unless strengths are given for all.
        named[name] = own[name].grid if strengths is None else None
    return named, own


def _operator_of(name: str, function: Callable[..., Any], strengths: Any) -> Any:
    """The record of a plain function; its knob is its one keyword, or the first of them."""
    from steerlab.edits.record import Operator
    from steerlab.sweeps.settings import split

    parameters = list(inspect.signature(function).parameters.values())
    keywords = [
        parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY
    ]
    if not keywords:
        raise SteerlabError(
            f"operators.{name}: it has no keyword to vary; write it as (direction, *, strength), "
            "or give an Operator record"
        )
    if strengths is None:
        raise SteerlabError(
            f"operators.{name}: it has no strengths of its own; give strengths=, or an Operator "
            "record with a grid"
        )
    return Operator(
        make=function,
        knob=keywords[0],
        unit=f"its own {keywords[0]}",
        grid=tuple(float(strength) for strength in split(strengths)),
        no_twin="it is your own function; draw one yourself",
    )


def _estimator_names() -> tuple[str, ...]:
    from steerlab.estimate import VARIANTS
    from steerlab.estimate.units import METHODS

    return (*VARIANTS, *METHODS)


def _score_names() -> tuple[str, ...]:
    """Columns that rows have already."""
    from dataclasses import fields

    from steerlab.core.columns import score_records
    from steerlab.sweeps.cell import Cell

    written = ("sentence", "estimator", "seed", "twin", "cell", "prompt", "question", "reference")
    made = ("output", "tokens", "truncated", "site", "dose", "language", "rating", "unfaithful")
    return (*score_records(), *(each.name for each in fields(Cell)), *written, *made, "place")


def _operator_names() -> tuple[str, ...]:
    from steerlab.edits import OPERATORS

    return (*OPERATORS, "none")


def _need_name(key: str, name: Any, taken: Iterable[str]) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise SteerlabError(
            f"{key}: {name!r} is no name for rows and files; give letters, digits, spaces and "
            "._+-, as in sl.estimate.estimator(function, name='mine')"
        )
    if name in taken:
        raise SteerlabError(
            f"{key}: {name!r} is the package's own or given twice; give yours another name"
        )
