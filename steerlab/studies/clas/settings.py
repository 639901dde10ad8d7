"""Everything that the caller of CLaS-Bench decides."""

from typing import Annotated

from pydantic import Field, model_validator

from steerlab.core.errors import SteerlabError
from steerlab.core.settings import Checked
from steerlab.sweeps.settings import (
    JUDGE,
    NAMES,
    SOME,
    SPLIT,
    Codes,
    CorpusName,
    Device,
    Dtype,
    Estimators,
    JudgeModel,
    Layers,
    Lid,
    Limit,
    ModelName,
    NewTokens,
    Numbers,
    Pairs,
    Prompt,
    Revision,
    RowsOfABatch,
    Seed,
    Strengths,
    Template,
    Word,
    need_chat,
    need_judge,
)


class Settings(Checked):
    """The keys of a run of CLaS-Bench; the defaults are the paper's own settings where it has
    them."""

    model: ModelName = "polyglot"
    revision: Revision = None
    questions: Word | None = Field(
        default=None,
        description="DGurgurov/CLaS-Bench or a folder of its form (default: the stand-in in the "
        "package)",
    )
    sources: Codes = Field(
        default=None,
        description="languages to ask in, such as en,de (default: all of the questions)",
    )
    targets: Codes = Field(
        default=None,
        description="languages to steer to, such as de,es (default: all of the questions)",
    )
    pairs: Pairs = Field(
        default=None, description="sources and targets in place of these two, such as en-de,de-en"
    )
    corpus: CorpusName = None
    texts: Word | None = Field(
        default=None, description="a folder of plain <iso>.txt files in place of the corpus"
    )
    estimators: Estimators = ("diffmean",)
    operators: Annotated[tuple[Word, ...], SOME, NAMES] = Field(
        default=("add",),
        description="ways to apply a direction, such as add,rotate; a wrong one lists all",
    )
    layers: Layers = Field(
        default=None,
        description="layers to steer at, such as 4,8,12 (default: seven, as evenly spread as the "
        "paper's)",
    )
    strengths: Strengths = None
    alphas: Numbers = Field(
        default=None,
        description="the paper's absolute steps in place of strengths, such as 1,2.5,5,10",
    )
    prompt: Prompt = "chat"
    template: Template = None
    baselines: Annotated[tuple[Word, ...], SPLIT] = Field(
        default=("english", "target"), description="languages that the prompting baselines ask in"
    )
    judge: Word | None = Field(default=None, description=JUDGE)
    judge_model: JudgeModel = None
    lid: Lid = Field(
        default=None,
        description="a fastText language identifier; the paper's is lid218e.bin (default: lid.176, "
        "which is installed with steerlab)",
    )
    new_tokens: NewTokens = 1024
    limit: Limit = Field(default=None, description="questions to report on at most (default: all)")
    dev_limit: Limit = Field(
        default=None, description="questions to choose on at most (default: all)"
    )
    device: Device = None
    dtype: Dtype = None
    seed: Seed = 0
    batch: RowsOfABatch = None

    @model_validator(mode="after")
    def _fits_together(self) -> "Settings":
        need_judge(self.judge, self.judge_model)
        need_chat(self.template, self.prompt)
        self._need_operators()
        if self.pairs and (self.sources or self.targets):
            raise SteerlabError(
                "the pairs say which sources and targets there are; give pairs, or sources and "
                "targets"
            )
        if self.corpus and self.texts:
            raise SteerlabError(
                "directions come from a corpus of aligned texts or from plain texts; give one of "
                "the two"
            )
        if self.alphas and (self.strengths or self.operators != ("add",)):
            raise SteerlabError(
                "alphas are steps of the operator add in the place of strengths; give them alone, "
                "with add"
            )
        self._need_baselines()
        return self

    def _need_operators(self) -> None:
        from steerlab.edits import OPERATORS
        from steerlab.sweeps.methods import STEERING, suits

        able = [name for name in STEERING if not OPERATORS[name].whole]
        for name in self.operators:
            if name not in able:
                raise SteerlabError(
                    f"operators: CLaS-Bench steers with {', '.join(able)}, not with {name!r}"
                )
            if not any(suits(name, estimator) for estimator in self.estimators):
                raise SteerlabError(
                    f"the operator {name} belongs to the estimator {OPERATORS[name].estimator}; "
                    "ask for that one too"
                )

    def _need_baselines(self) -> None:
        from steerlab.engine.prompts import read_form
        from steerlab.engine.shots import SHOT_FORMS

        form, _ = read_form(self.prompt)
        if form in SHOT_FORMS:
            raise SteerlabError(
                f"prompt: {self.prompt!r} puts examples of a corpus first, and the questions of "
                "CLaS-Bench are answered, not said again; use line or chat"
            )
        for suffix in self.baselines:
            try:
                read_form(f"{form}+{suffix}")
            except SteerlabError as error:
                raise SteerlabError(f"baselines: {error}; or give no baselines") from error
