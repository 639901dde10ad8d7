"""What the sections of the experiment share: the model, its texts, what was read of it, where
things go."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

import steerlab as sl
from steerlab.core.corpus import Corpus
from steerlab.core.errors import SteerlabError
from steerlab.core.firing import Firing
from steerlab.core.languages import families
from steerlab.engine.language_mass import Lexicon, lexicon
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
from steerlab.sweeps.fits import read_units
from steerlab.sweeps.methods import METHODS, Readings

OUT, PAGE = Path("build/units"), Path("docs/units.md")
IMAGES = PAGE.parent / "images"
SOURCE, SEEDS = "en", 5


@dataclass
class Bed:
    """One model and corpus, read once for every section."""

    model: Model
    corpus: Corpus

    @property
    def targets(self) -> tuple[str, ...]:
        return tuple(iso for iso in self.corpus.langs if iso != SOURCE)

    @property
    def by_family(self) -> list[str]:
        """Languages with their kin beside them."""
        return sorted(self.corpus.langs, key=lambda iso: (families([iso])[0], iso))

    @cached_property
    def readings(self) -> Readings:
        """Everything that any method needs, from the sentences of the `estimate` split."""
        needs = {need for method in METHODS.values() for need in method.needs}
        return read_units(self.model, self.corpus.split("estimate"), needs, source=SOURCE)

    @property
    def saes(self) -> Mapping[int, SAE]:
        return self.readings.saes

    @property
    def latents(self) -> Firing:
        assert self.readings.latents is not None
        return self.readings.latents

    @property
    def neurons(self) -> Firing:
        assert self.readings.neurons is not None
        return self.readings.neurons

    @cached_property
    def tried(self) -> dict[str, Selection | str]:
        """Each method's units, by the name of its directions, or why it finds none."""
        latents, neurons, read = self.latents, self.neurons, self.readings
        random, gradients, lift = read.random, read.gradients, read.lift
        assert random is not None
        assert gradients is not None
        assert lift is not None
        makers: dict[str, Callable[[], Selection]] = {
            "langfir": lambda: langfir(latents, random),
            "langfir shuffled": lambda: langfir(latents, random, read.shuffled),
            "monolinguality": lambda: monolinguality(latents),
            "sae lape": lambda: sae_lape(latents),
            "foxp2": lambda: foxp2_features(latents, lift),
            "lape": lambda: lape(neurons),
            "nju": lambda: nju(neurons).selection("both"),
            "culnig": lambda: culnig(gradients),
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


def bed() -> Bed:
    return Bed(sl.load(), sl.corpus())
