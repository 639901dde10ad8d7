"""Settings that are checked before any work: each error names the key, what was given, what is
allowed, and the nearest key.

A settings class lists its fields once. The command line, the keywords of a call in Python and the
table in the documentation are made from that list, so that they cannot drift apart.
"""

import inspect
import math
import re
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from textwrap import fill
from typing import Any, TypeVar, get_args, get_type_hints

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from steerlab.core.errors import SteerlabError

Made = TypeVar("Made", bound="Checked")
Function = TypeVar("Function", bound=Callable[..., Any])

_MODULES = re.compile(r"\b(?:\w+\.)+(?=\w)")
_LONGEST = 60  # letters of a type that is still read
_WRAPPED: Any = {
    "subsequent_indent": " " * 8,
    "break_long_words": False,
    "break_on_hyphens": False,
}


class Checked(BaseModel):
    """A frozen set of keys and values; a wrong one raises `SteerlabError`, and all wrong ones are
    named together."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def __init__(self, **keys: Any) -> None:
        self._read(keys)

    def _read(self, keys: dict[str, Any], context: Any = None) -> None:
        """Check the keys and take them; `context` reaches the validators of a class that has some
        of its own."""
        for key, value in keys.items():
            if key in type(self).model_fields and _is_truth(value) and _is_numeric(type(self), key):
                raise SteerlabError(
                    f"{key}: true and false are no numbers, and {shortened(value)} was given"
                )
        try:
            self.__pydantic_validator__.validate_python(keys, self_instance=self, context=context)
        except ValidationError as error:
            sentences = [_sentence(each, type(self)) for each in error.errors()]
            raise SteerlabError("; ".join(sentences)) from error

    @classmethod
    def of(cls: type[Made], keys: Any, where: str = "") -> Made:
        """The settings in a mapping, such as a YAML file holds; `where` begins what an error
        says."""
        if not isinstance(keys, Mapping):
            raise SteerlabError(f"{where}keys and values are needed, not {type(keys).__name__}")
        try:
            # A key that is no word (YAML has numbers) is unknown like any other wrong key.
            return cls(**{str(key): value for key, value in keys.items()})
        except SteerlabError as error:
            raise SteerlabError(f"{where}{error}") from error

    @classmethod
    def either(cls: type[Made], settings: Made | None, keys: Mapping[str, Any]) -> Made:
        """Settings that are made, or those of keywords beside them; both at once raise."""
        if settings is None:
            return cls.of(keys)
        if keys:
            raise SteerlabError(
                f"give {cls.__name__} or its keys, not both; beside it there is {', '.join(keys)}"
            )
        return settings


def _is_truth(value: Any) -> bool:
    """Whether a value is True or False, or holds one: pydantic would take them for 1 and 0."""
    if isinstance(value, Mapping):
        return any(map(_is_truth, value.values()))
    if isinstance(value, list | tuple):
        return any(map(_is_truth, value))
    return isinstance(value, bool)


def _is_numeric(settings: type[Checked], key: str) -> bool:
    """Whether a key takes numbers, and no truth."""
    types = set(_types_in(get_type_hints(settings)[key]))
    return bool(types & {int, float}) and bool not in types


def _types_in(hint: Any) -> Iterable[Any]:
    """A type and, of one made of others, those inside."""
    yield hint
    for inner in get_args(hint):
        yield from _types_in(inner)


def check(function: Callable[[Any], Any]) -> AfterValidator:
    """A check for a field's type: what `function` raises as a `SteerlabError` is said under the
    field's key."""

    def checked(value: Any) -> Any:
        try:
            function(value)
        except SteerlabError as error:
            raise ValueError(str(error)) from error  # the error that pydantic collects
        return value

    return AfterValidator(checked)


def did_you_mean(word: str, words: Iterable[str]) -> str:
    """A question that names the nearest of some words; empty where none is near."""
    near = get_close_matches(word, list(words), n=1)
    return f"did you mean {near[0]!r}?" if near else ""


def default_of(settings: type[Checked], key: str) -> Any:
    """The value of a key that is not given."""
    return settings.model_fields[key].get_default(call_default_factory=True)


class Listed(inspect.Signature):
    """A signature that is written with a parameter on each line, and types without their modules,
    where it does not fit one line: that of many keys would be a line of two thousand letters."""

    def __str__(self) -> str:
        if len(plain := super().__str__()) <= 96:
            return plain
        lines, starred = [], False
        for parameter in self.parameters.values():
            if parameter.kind is parameter.KEYWORD_ONLY and not starred:
                lines.append("*")
                starred = True
            lines.append(_short(parameter))
        end = _MODULES.sub("", inspect.formatannotation(self.return_annotation))
        return "(\n    " + ",\n    ".join(lines) + f",\n) -> {end}"


def _short(parameter: inspect.Parameter) -> str:
    """A parameter with its type, unless that is long, and its default."""
    kind = "" if parameter.annotation is parameter.empty else parameter.annotation
    words = _MODULES.sub("", inspect.formatannotation(kind)) if kind else ""
    words = re.sub(r"Optional\[(.*)\]", r"\1 | None", words)
    told = f": {words}" if words and len(words) <= _LONGEST else ""
    if parameter.default is parameter.empty:
        return f"{parameter.name}{told}"
    default = getattr(parameter.default, "__name__", None) or repr(parameter.default)
    return f"{parameter.name}{told} = {default}"


def takes(settings: type[Checked]) -> Callable[[Function], Function]:
    """Show the keys of a settings class in the signature and the docstring of a function that
    takes them as `**keys`.

    `help(function)` and completion in a notebook then list every key. A key that is a parameter of
    the function's own keeps what the function says of it. The docstring's last section has to be
    "Args:".
    """

    def show(function: Function) -> Function:
        signature = inspect.signature(function)
        own = [
            parameter
            for parameter in signature.parameters.values()
            if parameter.kind is not inspect.Parameter.VAR_KEYWORD
        ]
        names = {parameter.name for parameter in own}
        types = get_type_hints(settings)  # without what stands in `Annotated`
        keys = [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=default_of(settings, name),
                annotation=types[name],
            )
            for name in settings.model_fields
            if name not in names
        ]
        shown: Any = function
        returned = signature.return_annotation
        shown.__signature__ = Listed([*own, *keys], return_annotation=returned)
        lines = [
            fill(f"{name}: {field.description}.", 96, initial_indent=" " * 4, **_WRAPPED)
            for name, field in settings.model_fields.items()
            if name not in names
        ]
        shown.__doc__ = "\n".join([inspect.cleandoc(function.__doc__ or ""), *lines])
        return function

    return show


def _sentence(error: Any, settings: type[Checked]) -> str:
    """One of pydantic's errors in our words: the key, what is allowed, what was given."""
    key = ".".join(map(str, error["loc"]))
    if error["type"] == "extra_forbidden":
        keys = settings.model_fields
        key = key[:100]
        allowed = f"{did_you_mean(key, keys)} the keys are {', '.join(keys)}"
        return f"there is no key {key!r}; {allowed.strip()}"
    message = error["msg"].removeprefix("Value error, ")
    if not key:
        return message
    if error["type"] == "value_error":
        return f"{key}: {message}"
    given = error["input"]
    sentence = f"{key}: {message[0].lower()}{message[1:]}, and {shortened(given)} was given"
    near = (
        did_you_mean(str(given)[:100], _choices(error)) if error["type"] == "literal_error" else ""
    )
    return f"{sentence}; {near}" if near else sentence


def need_finite(knob: str, value: Any) -> float:
    """The value of a knob; what is no number, NaN and infinity raise."""
    try:
        number = math.nan if isinstance(value, str) else float(value)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise SteerlabError(f"{knob} is {shortened(value)}; give a finite number")
    return number


def shortened(value: Any, most: int = 200) -> str:
    """A value as Python writes it, cut where it is long: a message is to be read."""
    try:
        text = repr(value)
    except RecursionError:
        return f"a {type(value).__name__} in itself"
    return text if len(text) <= most else f"{text[:most]}... ({len(text):,} letters)"


def _choices(error: Any) -> list[str]:
    """The words that a field of a few words allows; pydantic has them as "'a', 'b' or 'c'"."""
    words: list[str] = error["ctx"]["expected"].replace(" or ", ", ").split(", ")
    return [word.strip("'") for word in words]
