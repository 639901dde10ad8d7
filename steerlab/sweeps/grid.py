"""The grid of a sweep, as a YAML file, a command line or Python give it."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml
from pydantic import Field, PrivateAttr, ValidationInfo, field_validator, model_validator

from steerlab.core.errors import SteerlabError
from steerlab.core.settings import Checked, did_you_mean
from steerlab.sweeps.own import Own, take_own
from steerlab.sweeps.settings import (
    EMPTY,
    JUDGE,
    NEW_TOKENS,
    CorpusName,
    Device,
    Dtype,
    EstimatorNames,
    JudgeModel,
    Langs,
    Layers,
    Lid,
    Limit,
    ModelName,
    Natural,
    NewTokens,
    Number,
    Prompt,
    Revision,
    RowsOfABatch,
    Seed,
    Source,
    Strengths,
    Targets,
    Word,
    need_judge,
    need_two_languages,
    split,
    split_names,
)

if TYPE_CHECKING:
    import steerlab.sweeps.cell

ALL = -1  # stands for the layer of what acts on all layers at once


def _add() -> dict[str, tuple[float, ...]]:
    from steerlab.sweeps.methods import STEERING

    return {"add": STEERING["add"]}


class Grid(Checked):
    """Everything that decides a sweep; `Grid.read` takes it from a YAML file.

    Each operator has strengths in its own unit (`edits.OPERATORS`): natural gaps for `add`, shares
    of the angle between the two means for `rotate`. An operator that belongs to an estimator runs
    with that one only, and one that acts on all layers at once takes no layer (-1).

    In Python a function from Moments to Directions stands among the estimators as a name does, a
    function or an `Operator` record is the value of an operator's name, and `directions` are those
    that are made already, by name.
    """

    model: ModelName = "polyglot"
    revision: Revision = None
    dtype: Dtype = None
    device: Device = None
    corpus: CorpusName = None
    langs: Langs = None
    source: Source = "en"
    targets: Targets = None
    estimators: EstimatorNames = ("diffmean",)
    operators: dict[str, tuple[Number, ...]] = Field(
        default_factory=_add,
        description="ways to apply a direction, each with its strengths or without, such as "
        "add,rotate or add=0.5,1,rotate=1; a wrong one lists all",
    )
    # A shorter way to write `operators`, and read into it: a grid itself has none.
    strengths: Strengths = Field(default=None, exclude=True)
    layers: Layers = None
    split: Literal["estimate", "dev", "test"] = Field(
        default="dev", description="the part of the corpus whose sentences are run"
    )
    limit: Limit = None
    prompt: Prompt = "line"
    saes: Word | None = Field(
        default=None,
        description="a folder of the model's SAEs, for methods that choose their features "
        "(default: those in the package, for its model)",
    )
    lid: Lid = None
    judge: Word = Field(default="retrieval", description=JUDGE)
    judge_model: JudgeModel = None
    new_tokens: NewTokens = NEW_TOKENS
    one_line: bool = Field(default=True, description="an output ends with its first line")
    temperature: float = Field(
        default=0.0,
        ge=0,
        allow_inf_nan=False,
        description="0 takes the likeliest token, more samples",
    )
    draws: Natural = Field(
        default=1, description="samples of each prompt, at a temperature above 0"
    )
    batch: RowsOfABatch = None
    fluency: bool = Field(default=False, description="score how fluent the outputs are, too")
    race: bool = Field(
        default=False,
        description="stop settings that fall behind early: only the best one is wanted",
    )
    seed: Seed = 0

    # A user's own functions and directions, by the names that stand in the fields.
    _own: Own = PrivateAttr(default_factory=Own)

    def __init__(self, **keys: Any) -> None:
        named, own = take_own(keys)
        self._read(named, own)
        self._own = own

    @property
    def own(self) -> Own:
        """A user's own functions and directions, by name."""
        return self._own

    @model_validator(mode="before")
    @classmethod
    def _read_operators(cls, given: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        """Every operator with strengths of its own: those given with it, else `strengths`, else
        its default ones."""
        given = dict(given)
        shared = given.pop("strengths", None)
        operators = read_operators(given.get("operators", "add"))
        if shared is not None and any(own is not None for own in operators.values()):
            raise SteerlabError("strengths: the operators have their own; give one of the two")
        if shared is not None and split(shared) in ((), []):
            raise SteerlabError(f"strengths: {EMPTY}")
        for name, own in operators.items():
            chosen = (own, shared, _steering(name, info.context or Own()))
            operators[name] = split(next(each for each in chosen if each is not None))
        return given | {"operators": operators}

    @field_validator("estimators")
    @classmethod
    def _known_estimators(cls, names: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        from steerlab.sweeps.methods import known

        for name in names:
            try:
                known(name, info.context or Own())
            except SteerlabError as error:
                raise ValueError(str(error)) from error  # the error that pydantic collects
        return names

    @model_validator(mode="after")
    def _fits_together(self, info: ValidationInfo) -> "Grid":
        from steerlab.sweeps.methods import METHODS, operator_record, suits

        given: Own = info.context or Own()
        need_two_languages(self.source, self.targets)
        need_judge(self.judge, self.judge_model)
        empty = [f"operators.{name}" for name, own in self.operators.items() if not own]
        if empty or not self.operators:
            raise SteerlabError(f"{(*empty, 'operators')[0]}: {EMPTY}")
        for name in self.operators:
            if not any(suits(name, estimator, given) for estimator in self.estimators):
                able = [each for each in METHODS if suits(name, each, given)]
                record = operator_record(name, given)
                needed = record.estimator or ", ".join(able) or "an estimator"
                raise SteerlabError(
                    f"operators.{name}: it needs what {needed} makes, which is not asked for"
                )
        if self.draws > 1 and not self.temperature:
            raise SteerlabError(
                "draws: at temperature 0 every draw is the same; give a temperature or 1 draw"
            )
        return self

    @classmethod
    def read(cls, file: str | Path, keys: Mapping[str, Any] | None = None) -> "Grid":
        """The grid in a YAML file; `keys`, such as those of a command line, win over the file's.

        Strengths in `keys` win over those that the file has with its operators, and operators with
        strengths in `keys` over the file's `strengths`.
        """
        file, keys = Path(file), keys or {}
        try:
            given = yaml.safe_load(file.read_text("utf-8"))
        except OSError as error:
            raise SteerlabError(
                f"there is no grid to read at {file} ({error.strerror}); give a .yaml file"
            ) from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise SteerlabError(f"{file} is not YAML: {' '.join(str(error).split())}") from error
        given = {} if given is None else given
        if not keys or not isinstance(given, Mapping):
            return cls.of(given, f"{file}: ")
        given = dict(given)
        if "strengths" in keys and "operators" in given:
            given["operators"] = list(read_operators(given["operators"]))
        if any(read_operators(keys.get("operators", ())).values()):
            given.pop("strengths", None)
        return cls.of(given | dict(keys), f"{file} with the options: ")

    def cells(self, langs: tuple[str, ...], layers: int) -> "list[steerlab.sweeps.cell.Cell]":
        """Every cell, for a corpus with these languages and a model of so many layers."""
        from steerlab.sweeps.cell import Cell
        from steerlab.sweeps.methods import operator_record, suits

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
            if suits(operator, estimator, self.own)
            for layer in (
                (ALL,)
                if operator_record(operator, self.own).whole
                else self.layers or self._layers_of(estimator, layers)
            )
            for strength in strengths
            for target in targets
            for draw in range(self.draws)
        ]

    def _layers_of(self, estimator: str, layers: int) -> tuple[int, ...]:
        """All layers of the model, or those of directions that are made already."""
        made = self.own.directions.get(estimator)
        return tuple(range(layers)) if made is None else made.layers


def method_name(estimator: str, operator: str) -> str:
    """What a table calls an estimator with an operator."""
    return estimator if operator == "add" else f"{estimator}_{operator}"


def read_operators(given: Any) -> dict[str, Any]:
    """Operators and the strengths given with each, None without: of a mapping, of names, or of
    words such as `add=0.5,1,rotate`."""
    if isinstance(given, Mapping):
        return dict(given)
    names: dict[str, Any] = {}
    current = None  # the operator that a number belongs to
    for word in _words(given):
        name, equals, strength = word.partition("=")
        if equals:
            current = name.strip()
            names[current] = [strength]
        elif current is not None and _is_number(word):
            names[current].append(word)
        else:
            current = None
            names[word] = None
    return names


def _words(given: Any) -> list[str]:
    if isinstance(given, str) or not hasattr(given, "__iter__"):
        given = (given,)
    return [word for item in given for word in split_names(str(item))]


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _steering(name: str, own: Own) -> tuple[float, ...]:
    """The strengths of an operator where none are given; what is no operator of a sweep raises."""
    from steerlab.sweeps.methods import STEERING

    if name in own.operators:
        grid: tuple[float, ...] = own.operators[name].grid
        return grid
    if name not in STEERING:
        near = did_you_mean(str(name), STEERING)
        raise SteerlabError(
            f"operators: a sweep steers with {', '.join(STEERING)}, not with {name!r}"
            f"{'; ' if near else ''}{near}"
        )
    return STEERING[name]
