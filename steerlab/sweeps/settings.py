"""The settings that several verbs share: the type, the check and the help of each, written once.

A settings class picks its fields from here and gives each its default. The descriptions are the
help of the command line and the tables in docs/settings.md, so they begin in lower case and end
without a full stop; "(default: ...)" stands in them where the default is no plain value. Nothing
heavy is imported before a value is checked, since `--help` reads this module.
"""

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from steerlab.core.errors import SteerlabError
from steerlab.core.labels import AT, label
from steerlab.core.languages import code_of
from steerlab.core.settings import Checked, check

NEW_TOKENS = 32
AUTO = "auto"  # the prompt form that fits what the model does with it
EMPTY = "there is nothing in it; give at least one, or leave the key out"


# -------------------------------------------------- what a file, a command line or Python may write


def split(value: Any) -> Any:
    """The items of a list written as words with commas or spaces between them; a number alone
    stands for a list of it."""
    if isinstance(value, str):
        return tuple(value.replace(",", " ").split())
    return _listed(value)


def split_names(value: Any) -> Any:
    """The items of a list written with commas between them: a name, such as `lda against source`,
    may hold spaces."""
    if isinstance(value, str):
        return tuple(name.strip() for name in value.split(",") if name.strip())
    return _listed(value)


def _listed(value: Any) -> Any:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return (value,)
    # pydantic takes lists and tuples, but no range
    return tuple(value) if isinstance(value, range) else value


def _codes(value: Any) -> Any:
    """The codes that languages go by, from any of their codes; some readers of YAML have `no`,
    which is Norwegian, as false."""
    if isinstance(value, (list, tuple)):
        return tuple(map(_code, value))
    return _code(value)


def _code(value: Any) -> Any:
    if value is False:
        raise ValueError('false is no language; for Norwegian quote it, as in "no"')
    if not isinstance(value, str):
        return value
    if AT in value:  # a concept in a language; what is none is left for the check to refuse
        with suppress(SteerlabError):
            return label(value)
    return code_of(value) or value


def _all(value: Any) -> Any:
    """The word "all" is the same as no choice."""
    return None if isinstance(value, str) and value.strip() == "all" else value


def options_in(value: Any) -> Any:
    """Options and their values, from words such as enable_thinking=true,effort=low."""
    if not isinstance(value, str):
        return value
    options: dict[str, Any] = {}
    for word in split_names(value):
        name, equals, text = word.partition("=")
        if not equals or not name.strip():
            raise ValueError(f"{word!r} is no option; write its name and value as in a=true,b=low")
        if name.strip() in options:
            raise ValueError(f"{name.strip()} stands twice; name each once")
        options[name.strip()] = _literal(text.strip())
    return options


def _literal(text: str) -> bool | int | float | str | None:
    """A value by how YAML writes it."""
    words: dict[str, bool | None] = {"true": True, "false": False, "null": None}
    if text in words:
        return words[text]
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text


def _path(value: Any) -> Any:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _dtype(value: Any) -> Any:
    """The name of a dtype of torch, `torch.bfloat16` without its `torch.`."""
    return value if value is None else str(value).removeprefix("torch.")


def _pair(value: Any) -> Any:
    """A source and a target, written as en-de."""
    if not isinstance(value, str):
        return value
    source, dash, target = value.partition("-")
    if not (source and dash and target):
        raise ValueError(f"{value!r} is no pair; write the source and the target as in en-de")
    return _code(source), _code(target)


# --------------------------------------------------------------------------------------- the checks


def need_two_languages(source: str, targets: Iterable[str] | None) -> None:
    """Raise where the source is among the targets."""
    if source in (targets or ()):
        raise SteerlabError(
            f"the source {source!r} is among the targets; a direction needs two languages"
        )


def need_chat(template: Mapping[str, Any] | None, form: str) -> None:
    """Raise where there are options of a chat template, and the form is without one."""
    from steerlab.engine.prompts import read_form

    if template and (form == AUTO or read_form(form)[0] != "chat"):
        raise SteerlabError(
            f"template: the prompt form {form!r} has no chat template; give prompt=chat, or leave "
            "the options out"
        )


def need_trained(knobs: Mapping[str, Any] | None, names: Iterable[str]) -> None:
    """Raise where there are knobs of a training, and nothing is trained."""
    from steerlab.engine.learn import HOW
    from steerlab.sweeps.trainings import OF_PREFERENCES, TRAINED

    trained = set(names) & set(TRAINED)
    if knobs and not trained:
        raise SteerlabError(
            f"training: none of the estimators is trained; give {', '.join(TRAINED)}, or leave the "
            "knobs out"
        )
    more = [name for name in knobs or () if name not in OF_PREFERENCES]
    if more and not trained & set(HOW):
        raise SteerlabError(
            f"training: {', '.join(sorted(trained))} takes {' and '.join(OF_PREFERENCES)}, and has "
            f"no {more[0]!r}; leave it out"
        )


def need_name(keys: Iterable[str]) -> None:
    """Raise where keys decide how a model is loaded, and the model is loaded already."""
    if decided := [key for key in ("revision", "dtype", "device") if key in keys]:
        raise SteerlabError(
            f"the model is loaded already, so that {decided[0]} decides nothing; leave it out, or "
            "give the model by its name"
        )


def need_judge(judge: str | None, judge_model: str | None) -> None:
    """Raise where there is no such judge, or a model is named for one that has none."""
    if judge is None or (judge == "retrieval" and judge_model is None):
        return  # the defaults; the judges take a second to import
    from steerlab.scores.judges.choice import check_judge

    try:
        check_judge(judge, judge_model)
    except SteerlabError as error:
        raise SteerlabError(f"judge: {error}") from error


def _need_some(items: Any) -> None:
    if items is not None and len(items) == 0:
        raise SteerlabError(EMPTY)


def _need_languages(codes: str | Iterable[str] | None) -> None:
    for code in (codes,) if isinstance(codes, str) else codes or ():
        label(code)


def _need_estimators(names: Iterable[str] | None) -> None:
    from steerlab.sweeps.methods import known

    for name in names or ():
        known(name)


def _need_knobs(knobs: Mapping[str, Any] | None) -> None:
    if knobs is not None:
        Training.of(knobs)


def _need_form(form: str) -> None:
    from steerlab.engine.prompts import read_form

    read_form(form)


def _need_form_or_auto(form: str) -> None:
    if form != AUTO:
        _need_form(form)


def _numbered(form: str) -> str:
    """The form's name with the number of its examples, which is part of every key."""
    from steerlab.engine.shots import with_number

    return with_number(form)


# ---------------------------------------------------------------------------------------- the types
# Of what stands in `Annotated`, checks run from left to right, after what is read by the
# BeforeValidators, from right to left.

Word = Annotated[str, Field(min_length=1), BeforeValidator(_path)]
Natural = Annotated[int, Field(ge=1)]
Number = Annotated[float, Field(allow_inf_nan=False)]
SOME = check(_need_some)
SPLIT = BeforeValidator(split)
NAMES = BeforeValidator(split_names)
ALL = BeforeValidator(_all)
CODES = BeforeValidator(_codes)
LANGUAGES = check(_need_languages)

Codes = Annotated[tuple[str, ...] | None, SOME, LANGUAGES, SPLIT, CODES, ALL]
Numbers = Annotated[tuple[Number, ...] | None, SOME, SPLIT]
Pair = Annotated[tuple[str, str], LANGUAGES, BeforeValidator(_pair)]
Pairs = Annotated[tuple[Pair, ...] | None, SOME, SPLIT]
Lines = Annotated[Natural | None, ALL]

# --------------------------------------------------------------------------------------- the fields

ModelName = Annotated[
    Word,
    Field(
        description="a Hub id, a folder or a .gguf file of a causal language model; polyglot is "
        "the one in the package, gemma-3-270m and smollm2-135m-instruct are data packages"
    ),
]
Revision = Annotated[
    Word | None,
    Field(description="a branch, tag or commit of the model on the Hub (default: its main branch)"),
]
Dtype = Annotated[
    Literal["float32", "bfloat16", "float16", "float64", "auto"] | None,
    BeforeValidator(_dtype),
    Field(
        description="the precision; auto is bfloat16 where the processor computes in it (default: "
        "float32 on a CPU, the checkpoint's own on a GPU)"
    ),
]
Device = Annotated[
    Word | None, Field(description="cpu, or cuda with a GPU (default: cuda if there is one)")
]
CorpusName = Annotated[
    Word | None,
    Field(
        description="a folder of aligned <iso>.txt files (default: the sentences in the package)"
    ),
]
Langs = Annotated[
    Codes,
    Field(description="languages to read, such as en,de,es (default: all of the corpus)"),
]
Source = Annotated[str, LANGUAGES, CODES, Field(description="the language of the prompts")]
Targets = Annotated[
    Codes,
    Field(description="languages to steer to, such as de,es (default: all but the source)"),
]
_ESTIMATORS = Field(
    description="ways to find a direction, such as diffmean,lda or lda against source; a wrong one "
    "lists all"
)
Estimators = Annotated[tuple[Word, ...], SOME, check(_need_estimators), NAMES, _ESTIMATORS]
FurtherEstimators = Annotated[
    tuple[Word, ...] | None,
    SOME,
    check(_need_estimators),
    NAMES,
    Field(
        description="methods beside the six of this job, such as bipo,austeer, each with the "
        "operator that goes with it (default: none); a wrong one lists all"
    ),
]
EstimatorNames = Annotated[tuple[Word, ...], SOME, NAMES, _ESTIMATORS]  # that a grid checks itself
Layers = Annotated[
    tuple[Annotated[int, Field(ge=0)], ...] | None,
    SOME,
    SPLIT,
    ALL,
    Field(description="layers to steer at, such as 1,3,5 (default: all)"),
]
Strengths = Annotated[
    Numbers,
    Field(
        description="strengths of the operators, each in the operator's own unit, such as 0.5,1 "
        "(default: the operator's own)"
    ),
]
Prompt = Annotated[
    str,
    check(_need_form),
    AfterValidator(_numbered),
    Field(
        description="how a sentence becomes a prompt (its form): line, as it is; chat; "
        "line+english or chat+de, which ask for the language; or echo:5 and fewshot:3, which put "
        "examples of the corpus first"
    ),
]
Template = Annotated[
    dict[str, bool | int | float | str | None] | None,
    BeforeValidator(options_in),
    Field(
        description="options of the chat template, such as enable_thinking=true or "
        "reasoning_effort=low (default: enable_thinking=false); what it thinks is never judged"
    ),
]
TrainingKnobs = Annotated[
    dict[str, int | float] | None,
    check(_need_knobs),
    BeforeValidator(options_in),
    Field(
        description="knobs of the trained methods bipo, lm, yapo and reft_r1, such as "
        "steps=30,pairs=50: pairs, new (and no more of grains), steps, batch, rate, beta, every, "
        "patience, held_out "
        "(default: learn's)"
    ),
]
PromptOrAuto = Annotated[str, check(_need_form_or_auto), AfterValidator(_numbered)]
Lid = Annotated[
    Word | None,
    Field(
        description="a fastText language identifier (default: lid.176, which is installed with "
        "steerlab)"
    ),
]
JUDGE = (
    "who judges relevance: retrieval, likelihood (which passes copies, and much of whatever the "
    "same model wrote), model:ID_OR_FOLDER, embeddings:ID_OR_FOLDER, the URL of an "
    "OpenAI-compatible endpoint, or none"
)
JudgeModel = Annotated[
    Word | None,
    Field(description="the name of the model behind the judge's URL, such as Qwen/Qwen3-8B"),
]
NewTokens = Annotated[Natural, Field(description="new tokens of an output at most")]
Limit = Annotated[Lines, Field(description="sentences to run at most (default: all)")]
RowsOfABatch = Annotated[
    Natural | None,
    Field(description="rows that run together (default: what memory and speed advise)"),
]
Seed = Annotated[int, Field(ge=0, lt=2**63, description="the seed of what is drawn at random")]


class Training(Checked):
    """The knobs of methods that are trained, as `learn` has them; None for its own.

    `pairs` is how many sentences are learnt from at most, evenly spread, and `new` the most tokens
    of the model's own answers to them.
    """

    pairs: Annotated[int, Field(ge=2)] | None = None
    new: Natural | None = None
    steps: Annotated[int, Field(ge=0)] | None = None
    batch: Natural | None = None
    rate: Annotated[Number, Field(gt=0)] | None = None
    beta: Annotated[Number, Field(gt=0)] | None = None
    every: Natural | None = None
    patience: Natural | None = None
    held_out: Annotated[Number, Field(gt=0, lt=1)] | None = None
