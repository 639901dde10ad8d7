"""The grid of a sweep, as YAML or Python say it: every key is checked, and every error names its
key."""

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from steerlab.core.errors import SteerlabError
from steerlab.core.languages import language
from steerlab.edits import OPERATORS
from steerlab.engine.prompts import read_form
from steerlab.sweeps.cell import Cell
from steerlab.sweeps.methods import METHODS, known, suits
from steerlab.sweeps.runner import NEW_TOKENS

# The operators that a sweep steers with, by themselves at one layer, and the strengths of each
# where none are given.
STEERING = {name: told.grid for name, told in OPERATORS.items() if not told.removes}
ALL = -1  # stands for the layer of what acts on all layers at once

Strength = Annotated[float, Field(allow_inf_nan=False)]


def _listed(value: Any) -> Any:
    """One word stands for a list of it."""
    return (
        (value,) if isinstance(value, (str, int, float)) and not isinstance(value, bool) else value
    )


def _every(value: Any) -> Any:
    return None if value == "all" else _listed(value)


class Grid(BaseModel):
    """Everything that decides a sweep; `Grid.read` takes it from a YAML file, where "all" is every
    layer or language.

    `operators` maps each operator to its strengths, in its own unit (`edits.OPERATORS`): natural
    gaps for `add`, shares of the angle between the two means for `rotate`; a list of names takes
    `strengths`, or each operator's own. One that belongs to an estimator runs with that one only,
    and one that acts on all layers at once takes no layer (-1). `saes`: the folder of the model's
    SAEs, for methods that choose their features. `draws` is how many samples each prompt gets at a
    temperature above 0; `seed` decides these, and the order of the lines in a race.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    model: str = "polyglot"
    revision: str | None = None
    dtype: str | None = None
    device: str | None = None
    corpus: str | None = None
    langs: Annotated[tuple[str, ...] | None, BeforeValidator(_every)] = None
    source: str = "en"
    targets: Annotated[tuple[str, ...] | None, BeforeValidator(_every)] = None
    estimators: Annotated[tuple[str, ...], BeforeValidator(_listed)] = ("diffmean",)
    operators: dict[str, tuple[Strength, ...]] = {"add": STEERING["add"]}
    layers: Annotated[tuple[Annotated[int, Field(ge=0)], ...] | None, BeforeValidator(_every)] = (
        None
    )
    split: Literal["estimate", "dev", "test"] = "dev"
    limit: Annotated[int, Field(ge=1)] | None = None
    prompt: str = "line"
    saes: str | None = None
    lid: str | None = None
    judge: str = "retrieval"
    judge_model: str | None = None
    new_tokens: Annotated[int, Field(ge=1)] = NEW_TOKENS
    one_line: bool = True
    temperature: Annotated[float, Field(ge=0)] = 0.0
    draws: Annotated[int, Field(ge=1)] = 1
    batch: Annotated[int, Field(ge=1)] | None = None
    fluency: bool = False
    race: bool = False
    seed: int = 0

    @model_validator(mode="before")
    @classmethod
    def _strengths(cls, given: Any) -> Any:
        """`strengths` beside a list of operators is short for the same strengths of each."""
        if not isinstance(given, dict):
            raise ValueError(f"a grid is keys and values, not {type(given).__name__}")
        given = dict(given)
        strengths = given.pop("strengths", None)
        operators = given.get("operators", ("add",))
        if isinstance(operators, dict):
            if strengths is not None:
                raise ValueError("strengths: the operators have their own; give one of the two")
            return given
        named = _listed(operators)
        for name in named:
            _operator(name)
        return given | {
            "operators": {
                name: _listed(STEERING[name] if strengths is None else strengths) for name in named
            }
        }

    @field_validator("operators")
    @classmethod
    def _known_operators(cls, given: dict[str, tuple[float, ...]]) -> dict[str, tuple[float, ...]]:
        for name in given:
            _operator(name)
        return given

    @field_validator("estimators")
    @classmethod
    def _known_estimators(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        for name in given:
            try:
                known(name)
            except SteerlabError as error:
                raise ValueError(str(error)) from error
        return given

    @field_validator("langs", "targets", "source")
    @classmethod
    def _known_languages(cls, given: Any) -> Any:
        for iso in _listed(given) or ():
            try:
                language(iso)
            except SteerlabError as error:
                raise ValueError(str(error)) from error
        return given

    @field_validator("prompt")
    @classmethod
    def _known_form(cls, given: str) -> str:
        try:
            read_form(given)
        except SteerlabError as error:
            raise ValueError(str(error)) from error
        return given

    @model_validator(mode="after")
    def _whole(self) -> "Grid":
        if self.source in (self.targets or ()):
            raise ValueError(
                f"the source {self.source!r} is among the targets; a direction needs two languages"
            )
        for name in ("targets", "estimators", "operators", "layers", *self.operators):
            found = self.operators.get(name, getattr(self, name, None))
            if found is not None and not found:
                raise ValueError(
                    "the grid is empty; give at least one estimator, operator, layer, strength and "
                    "target"
                )
        for name in self.operators:
            if not any(suits(name, estimator) for estimator in self.estimators):
                told = OPERATORS[name].estimator or ", ".join(
                    each for each in METHODS if suits(name, each)
                )
                raise ValueError(
                    f"operators.{name}: it needs what {told or 'an estimator'} makes, which is not "
                    "asked for"
                )
        if self.draws > 1 and not self.temperature:
            raise ValueError(
                "draws: at temperature 0 every draw is the same; give a temperature or 1 draw"
            )
        return self

    @classmethod
    def read(cls, file: str | Path) -> "Grid":
        """The grid in a YAML file."""
        file = Path(file)
        try:
            given = yaml.safe_load(file.read_text("utf-8"))
        except OSError as error:
            raise SteerlabError(
                f"there is no grid to read at {file} ({error.strerror}); give a .yaml file"
            ) from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise SteerlabError(f"{file} is not YAML: {' '.join(str(error).split())}") from error
        return cls.of({} if given is None else given, f"{file}: ")

    @classmethod
    def of(cls, given: Any, where: str = "") -> "Grid":
        """The grid of keys and values; a wrong one raises with the key, what was given and what
        is allowed."""
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            raise SteerlabError(
                where + "; ".join(_told(found) for found in error.errors())
            ) from error

    def cells(self, langs: tuple[str, ...], layers: int) -> list[Cell]:
        """Every cell, for a corpus with these languages and a model of so many layers."""
        targets = (
            [iso for iso in langs if iso != self.source] if self.targets is None else self.targets
        )
        return [
            Cell(
                method=method_name(estimator, operator),
                operator=operator,
                layer=layer,
                strength=strength,
                source=self.source,
                target=target,
                split=self.split,
                fits=(estimator,),
                form=self.prompt,
                draw=draw,
            )
            for estimator in self.estimators
            for operator, strengths in self.operators.items()
            if suits(operator, estimator)
            for layer in ((ALL,) if OPERATORS[operator].whole else self.layers or range(layers))
            for strength in strengths
            for target in targets
            for draw in range(self.draws)
        ]


def method_name(estimator: str, operator: str) -> str:
    """What a table calls an estimator with an operator."""
    return estimator if operator == "add" else f"{estimator}_{operator}"


def _operator(name: str) -> None:
    if name not in STEERING:
        raise ValueError(f"a sweep steers with {', '.join(STEERING)}, not with {name!r}")


def _told(error: Any) -> str:
    """One of pydantic's errors: the key, what was given, what is allowed."""
    key = ".".join(map(str, error["loc"]))
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(key, Grid.model_fields, n=1)
        meant = f"did you mean {near[0]!r}? " if near else ""
        return f"there is no key {key!r}; {meant}the keys are {', '.join(Grid.model_fields)}"
    told = error["msg"].removeprefix("Value error, ")
    if not key:
        return told
    if error["type"] == "value_error":
        return f"{key}: {told}"
    return f"{key}: {told[0].lower()}{told[1:]}, and {error['input']!r} was given"
