"""What the sections of the experiment share: the model, its texts, what was read of it, where
things go."""

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import torch
from setups import SETUPS, Setup

import steerlab as sl
from steerlab import figures
from steerlab.core.corpus import Corpus
from steerlab.core.errors import SteerlabError
from steerlab.core.firing import Firing, Gradients, Lift
from steerlab.core.languages import families
from steerlab.engine.language_mass import Lexicon, lexicon
from steerlab.engine.prompts import prompt
from steerlab.engine.shots import read_shots, shots
from steerlab.engine.trace import written
from steerlab.estimate.units import (
    Selection,
    culnig,
    foxp2_features,
    langfir,
    lape,
    monolinguality,
    nju,
    sae_lape,
)
from steerlab.models.model import Model
from steerlab.sae import SAE
from steerlab.sweeps.methods import METHODS, Readings
from steerlab.sweeps.readings import read_units

sys.path.append(str(Path(__file__).resolve().parents[1]))  # experiments

from saes.training import kept

SOURCE = "en"
RECORDED = Path(__file__).resolve().parents[1] / "figures" / "recorded"


@dataclass
class Bed:
    """One model and corpus, read once for every section."""

    model: Model
    corpus: Corpus
    setup: Setup
    without_lift: str = ""  # why there is no causal lift, where there is none

    @property
    def out(self) -> Path:
        """The folder of rows and tables."""
        return self.setup.out

    @property
    def targets(self) -> tuple[str, ...]:
        """The languages that are steered to."""
        return self.setup.targets or self.others

    @property
    def others(self) -> tuple[str, ...]:
        """All languages but the source."""
        return tuple(iso for iso in self.corpus.langs if iso != SOURCE)

    def image(self, name: str) -> Path:
        """The file of one of the page's pictures."""
        return self.setup.page.parent / "images" / self.setup.picture(name)

    def record(self, name: str, table: pd.DataFrame) -> None:
        """Keep the table of a picture of the documentation, from which `make figures` draws it."""
        if any(self.setup is each for each in SETUPS.values()):  # not a trial's
            file = RECORDED / Path(self.setup.picture(name)).with_suffix(".csv").name
            table.to_csv(file, index=False, float_format="%.6g")

    def draw(self, **pictures: go.Figure) -> None:
        """Draw pictures of the page, by their names; without a browser the page goes without."""
        try:
            # The pictures of the documentation, whoever drew them.
            figures.draw(
                {self.image(name): figure for name, figure in pictures.items()}, force=True
            )
        except SteerlabError as error:
            print(f"units: {error}", file=sys.stderr)

    def shown(self, name: str, alt: str) -> str:
        """The Markdown of one of the page's pictures."""
        return f"![{alt}](images/{self.setup.picture(name)})"

    def note(self, **figures: Any) -> None:
        """Put figures, by name, among those that published claims are judged by."""
        file = self.setup.found
        there = json.loads(file.read_text("utf-8")) if file.exists() else {}
        file.write_text(json.dumps(there | figures, indent=1), "utf-8")

    @property
    def selective(self) -> list[str]:
        """The languages of the selectivity matrix, with their kin beside them."""
        chosen = self.setup.selective or self.corpus.langs
        return [iso for iso in self.by_family if iso in chosen]

    @property
    def sae_layers(self) -> list[int]:
        """The layers that are tried and have an autoencoder."""
        return [layer for layer in self.setup.layers if layer in self.saes]

    @property
    def by_family(self) -> list[str]:
        """Languages with their kin beside them."""
        return sorted(self.corpus.langs, key=lambda iso: (families([iso])[0], iso))

    @cached_property
    def readings(self) -> Readings:
        """Everything that any method needs, from the sentences of the `estimate` split."""
        needs = {need for method in METHODS.values() for need in method.needs}
        needs -= {"gradients", "neurons"}
        texts = self.corpus.split("estimate")
        folder = str(kept(self.model)) if self.setup.saes else None
        options: dict[str, Any] = {"source": SOURCE, "dictionaries": folder}
        options["prompts"] = self.setup.lift_prompts
        try:
            read = read_units(self.model, texts, needs, **options)
        except SteerlabError as error:  # where tokens do not tell the languages apart, say
            self.without_lift = str(error)
            read = read_units(self.model, texts, needs - {"lift", "pairs"}, **options)
        return replace(read, gradients=self.gradients, neurons=self.neurons)

    @property
    def saes(self) -> Mapping[int, SAE]:
        return self.readings.saes

    @property
    def latents(self) -> Firing:
        assert self.readings.latents is not None
        return self.readings.latents

    @cached_property
    def neurons(self) -> Firing:
        """How often each neuron is on in each language; needs no SAEs."""
        found = read_units(self.model, self.corpus.split("estimate"), {"neurons"}, source=SOURCE)
        assert found.neurons is not None
        return found.neurons

    @cached_property
    def gradients(self) -> Gradients:
        """What each neuron does for the answers; needs no SAEs."""
        answered = self.corpus.split("estimate").take(self.setup.answered)
        found = read_units(self.model, answered, {"gradients"}, source=SOURCE)
        assert found.gradients is not None
        return found.gradients

    @cached_property
    def tried(self) -> dict[str, Selection | str]:
        """Each method's units, by the name of its directions, or why it finds none."""
        latents, neurons, read = self.latents, self.neurons, self.readings
        random, lift = read.random, read.lift
        assert random is not None

        def need_lift() -> Lift:
            if lift is None:
                raise SteerlabError(self.without_lift)
            return lift

        makers: dict[str, Callable[[], Selection]] = {
            "langfir": lambda: langfir(latents, random),
            "langfir shuffled": lambda: langfir(latents, random, read.shuffled),
            "monolinguality": lambda: monolinguality(latents),
            "sae lape": lambda: sae_lape(latents),
            "foxp2": lambda: foxp2_features(latents, need_lift()),
            "lape": lambda: lape(neurons),
            "nju": lambda: nju(neurons).selection("both"),
            "culnig": lambda: culnig(self.gradients),
        }
        found: dict[str, Selection | str] = {}
        for name, make in makers.items():
            try:
                found[name] = make()
            except SteerlabError as error:
                found[name] = str(error)
        return found

    @property
    def selections(self) -> dict[str, Selection]:
        return {name: found for name, found in self.tried.items() if isinstance(found, Selection)}

    @property
    def refused(self) -> dict[str, str]:
        return {name: found for name, found in self.tried.items() if isinstance(found, str)}

    def prompts(self, split: str, count: int) -> list[str]:
        """Sentences of the source in the form of prompt that is steered."""
        lines = self.corpus.split(split).take(count)[SOURCE]
        form = self.setup.form
        examples = shots(self.corpus, form, SOURCE, SOURCE) if read_shots(form) else ()
        return [
            prompt(self.model.tokenizer, form, line, source=SOURCE, target=SOURCE, shots=examples)
            for line in lines
        ]

    @cached_property
    def words(self) -> Lexicon:
        """Whose tokens are whose."""
        return lexicon(self.model, self.corpus.split("estimate"))

    @cached_property
    def norms(self) -> torch.Tensor:
        """[layer unit]: how long each feature's decoder row is."""
        return torch.stack(
            [self.readings.saes[layer].W_dec.norm(dim=-1) for layer in self.latents.layers]
        )

    @cached_property
    def neuron_norms(self) -> torch.Tensor:
        """[layer unit]: how long what each neuron writes is."""
        return torch.stack(
            [written(self.model, layer).norm(dim=0) for layer in self.neurons.layers]
        )


def bed(name: str) -> Bed:
    """The model, the corpus and what is to be done of one of the setups."""
    setup = SETUPS[name]
    return Bed(sl.load(setup.model, dtype=setup.dtype), sl.corpus(), setup)
