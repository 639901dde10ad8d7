"""Everything that the caller of the main job decides."""

from typing import Any

from pydantic import Field, model_validator

from steerlab.core.settings import Checked
from steerlab.sweeps.settings import (
    NEW_TOKENS,
    CorpusName,
    Device,
    Dtype,
    FurtherEstimators,
    Langs,
    Layers,
    Lid,
    Limit,
    ModelName,
    NewTokens,
    PromptOrAuto,
    Revision,
    Seed,
    Source,
    Targets,
    Template,
    TrainingKnobs,
    need_chat,
    need_trained,
    need_two_languages,
)

TEST_LINES = 200  # to report on, by default, where a corpus has as many; the packaged one has 70
QUICK_LINES = 16  # the same, if quick


class Settings(Checked):
    """The keys of the main job; they are kept in the run's manifest, and to change one another run
    folder is needed."""

    model: ModelName = "polyglot"
    revision: Revision = None
    corpus: CorpusName = None
    langs: Langs = None
    source: Source = "en"
    targets: Targets = None
    estimators: FurtherEstimators = None
    training: TrainingKnobs = None
    layers: Layers = Field(
        default=None, description="layers to steer at, such as 1,3,5 (default: four, evenly spread)"
    )
    prompt: PromptOrAuto = Field(
        default="line",
        description="how a sentence becomes a prompt (its form): line, chat or echo:5; auto is "
        "echo where the model copies more than nine in ten dev lines with it, else line",
    )
    template: Template = None
    lid: Lid = None
    dtype: Dtype = None
    device: Device = None
    limit: Limit = Field(
        default=TEST_LINES,
        description=f"test lines to report on at most, or all; {QUICK_LINES} if quick",
    )
    new_tokens: NewTokens = NEW_TOKENS
    seed: Seed = 0
    quick: bool = Field(default=False, description="DiffMean only, a small grid: a minute")
    full: bool = Field(default=False, description="every layer, strength, target and dev line")
    race: bool = Field(
        default=False,
        description="choose by successive halving: from 12 settings on about a third of the grid's "
        "cost",
    )

    @model_validator(mode="before")
    @classmethod
    def _fewer_lines_if_quick(cls, given: dict[str, Any]) -> dict[str, Any]:
        if given.get("quick") is True and "limit" not in given:
            return given | {"limit": QUICK_LINES}
        return given

    @model_validator(mode="after")
    def _two_languages(self) -> "Settings":
        need_two_languages(self.source, self.targets)
        need_chat(self.template, self.prompt)
        need_trained(self.training, self.estimators or ())
        return self
