"""The grid of a sweep: its settings, as a YAML file, a command line or Python give them."""

from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, PrivateAttr, field_validator, model_validator

from steerlab.core.errors import SteerlabError
from steerlab.core.settings import Checked, did_you_mean
from steerlab.core.yaml_file import read_yaml
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
    Template,
    TrainingKnobs,
    Word,
    need_chat,
    need_judge,
    need_trained,
    need_two_languages,
    split,
    split_names,
)

if TYPE_CHECKING:
    import steerlab.sweeps.cell

# Scores that a run adds after all choices are made, and one that no setting changes.
UNRACED = ("in_language_probable", "in_language_second", "joint_second", "ceiling")
ALL = -1  # stands for the layer of what acts on all layers at once


def _only_add() -> dict[str, tuple[float, ...]]:
    """The default operators: `add` with its own strengths."""
    from steerlab.sweeps.methods import STEERING

    return {"add": STEERING["add"]}


class Grid(Checked):
    """Everything that decides a sweep; `Grid.read` takes it from a YAML file.

    Each operator has strengths in its own unit (`edits.OPERATORS`): natural gaps for `add`, shares
    of the angle between the two means for `rotate`. An operator that belongs to an estimator runs
    with that one only, and one that acts on all layers at once has layer -1.

    In Python `estimators` may hold a function from Moments to Directions beside names, the value of
    an operator's name may be a function or an `Operator` record, and `directions` takes those that
    are made already, by name.
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
        default_factory=_only_add,
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
    template: Template = None
    training: TrainingKnobs = None
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
    # Read as a truth first, so that words such as yes stay what they were.
    race: bool | Word = Field(
        default=False,
        union_mode="left_to_right",
        description="stop settings that fall behind early: only the best one is wanted, by joint, "
        "or in a file and in Python by the score that is named, such as one of your scorers",
    )
    seed: Seed = 0

    # A user's own functions and directions, by the names that stand in the fields. It is no field,
    # so that it is no option and is in no file; the validators get it as `info.context`, an `info`
    # being pydantic's ValidationInfo.
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
    def _read_operators(cls, given: dict[str, Any], info: Any) -> dict[str, Any]:
        """Every operator with strengths of its own: those given with it, else `strengths`, else
        its default ones."""
        given = dict(given)
        shared = given.pop("strengths", None)
        operators = read_operators(given.get("operators", "add"))
        if shared is not None and any(strengths is not None for strengths in operators.values()):
            raise SteerlabError("strengths: the operators have their own; give one of the two")
        if shared is not None and split(shared) in ((), []):
            raise SteerlabError(f"strengths: {EMPTY}")
        for name, strengths in operators.items():
            # Asked in any case: it raises for what is no operator.
            default = _default_strengths(name, info.context or Own())
            if strengths is None:
                strengths = default if shared is None else shared
            operators[name] = split(strengths)
        return given | {"operators": operators}

    @field_validator("estimators")
    @classmethod
    def _known_estimators(cls, names: tuple[str, ...], info: Any) -> tuple[str, ...]:
        from steerlab.sweeps.methods import known

        for name in names:
            try:
                known(name, info.context or Own())
            except SteerlabError as error:
                raise ValueError(str(error)) from error  # the error that pydantic collects
        return names

    @model_validator(mode="after")
    def _fits_together(self, info: Any) -> "Grid":
        from steerlab.sweeps.methods import METHODS, operator_record, suits

        own: Own = info.context or Own()
        need_two_languages(self.source, self.targets)
        need_judge(self.judge, self.judge_model)
        need_chat(self.template, self.prompt)
        need_trained(self.training, [name for name in self.estimators if name not in own.fits])
        if not self.operators:
            raise SteerlabError(f"operators: {EMPTY}")
        for name, strengths in self.operators.items():
            if not strengths:
                raise SteerlabError(f"operators.{name}: {EMPTY}")
        for name in self.operators:
            # An operator that no estimator here can feed would run no cell at all.
            if not any(suits(name, estimator, own) for estimator in self.estimators):
                able = [method for method in METHODS if suits(name, method, own)]
                record = operator_record(name, own)
                needed = record.estimator or ", ".join(able) or "an estimator"
                raise SteerlabError(
                    f"operators.{name}: it needs what {needed} makes, which is not asked for"
                )
        if isinstance(self.race, str):
            _need_race(self.race, own, fluency=self.fluency)
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
        file = Path(file)
        keys = keys or {}
        given = read_yaml(file)
        given = {} if given is None else given  # an empty file
        if not keys or not isinstance(given, Mapping):
            return cls.of(given, f"{file}: ")
        # Of strengths given in both ways, those of the file are dropped: both would raise.
        given = dict(given)
        if "strengths" in keys and "operators" in given:
            given["operators"] = list(read_operators(given["operators"]))
        if any(read_operators(keys.get("operators", ())).values()):
            given.pop("strengths", None)
        return cls.of(given | dict(keys), f"{file} with the options: ")

    def cells(self, langs: tuple[str, ...], layers: int) -> "list[steerlab.sweeps.cell.Cell]":
        """Every cell of the grid.

        Estimators vary slowest, then operators, layers, strengths, targets and draws; the rows of a
        sweep are in this order.

        Args:
            langs: the languages of the corpus.
            layers: how many layers the model has.
        """
        from steerlab.sweeps.cell import Cell
        from steerlab.sweeps.methods import suits

        targets = self.targets
        if targets is None:
            targets = tuple(lang for lang in langs if lang != self.source)
        cells = []
        for estimator in self.estimators:
            for operator, strengths in self.operators.items():
                if not suits(operator, estimator, self.own):
                    continue
                settings = product(
                    self._layers_of(estimator, operator, layers),
                    strengths,
                    targets,
                    range(self.draws),
                )
                for layer, strength, target, draw in settings:
                    cells.append(
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
                    )
        return cells

    def _layers_of(self, estimator: str, operator: str, layers: int) -> tuple[int, ...]:
        """The layers at which an operator is run with an estimator's directions."""
        from steerlab.sweeps.methods import operator_record

        if operator_record(operator, self.own).whole:
            return (ALL,)
        if self.layers:
            return self.layers
        # By default all: those of the model, or those of directions that are made already.
        directions = self.own.directions.get(estimator)
        return tuple(range(layers)) if directions is None else directions.layers


def _need_race(name: str, own: Own, *, fluency: bool) -> None:
    """Raise for what is no score of each output, that is more or less than another's."""
    from steerlab.core.columns import score_records

    if name in own.scorers:
        return
    able = [
        score
        for score, record in score_records().items()
        if record.of is None and record.higher_is_better is not None and score not in UNRACED
    ]
    if name not in able:
        scorers = ", ".join(own.scorers) or "none are given as scorers="
        raise SteerlabError(
            f"race: there is no score {name!r} to race by; yours: {scorers}; ours: "
            f"{', '.join(able)}; or give true for joint"
        )
    if name.startswith("bits_per_byte") and not fluency:
        raise SteerlabError(f"race: {name} is scored with fluency=True only; give that too")


def method_name(estimator: str, operator: str) -> str:
    """What a table calls an estimator with an operator."""
    return estimator if operator == "add" else f"{estimator}_{operator}"


def read_operators(given: Any) -> dict[str, Any]:
    """Operators with the strengths given with each, or None where none are.

    What is given may be a mapping, names, or words such as `add=0.5,1,rotate`: numbers belong to
    the operator before them.
    """
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
    """The words of one string, or of several, with commas between them."""
    if isinstance(given, str) or not hasattr(given, "__iter__"):
        given = (given,)
    words: list[str] = []
    for item in given:
        words += split_names(str(item))
    return words


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _default_strengths(name: str, own: Own) -> tuple[float, ...]:
    """The strengths of an operator where none are given; what is no operator of a sweep raises."""
    from steerlab.sweeps.methods import STEERING

    if name in own.operators:
        grid: tuple[float, ...] = own.operators[name].grid
        return grid
    if name not in STEERING:
        message = f"operators: a sweep steers with {', '.join(STEERING)}, not with {name!r}"
        near = did_you_mean(str(name), STEERING)
        raise SteerlabError(f"{message}; {near}" if near else message)
    return STEERING[name]
