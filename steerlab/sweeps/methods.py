"""Every method that chooses units, by the name that tables and sweeps call it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.core.firing import Firing, Gradients, LatentPairs, Lift
from steerlab.edits import OPERATORS
from steerlab.estimate import VARIANTS, variant
from steerlab.estimate.units.as_directions import decoded, gated, masked, sae_diffmean
from steerlab.estimate.units.culnig import culnig
from steerlab.estimate.units.foxp2 import foxp2_features, signed
from steerlab.estimate.units.langfir import langfir
from steerlab.estimate.units.lape import lape, sae_lape
from steerlab.estimate.units.monolinguality import monolinguality
from steerlab.estimate.units.nju import nju
from steerlab.sae import SAE

# The operators that a sweep steers with, by themselves at one layer, and the strengths of each
# where none are given.
STEERING = {name: told.grid for name, told in OPERATORS.items() if not told.removes}

FEATURES = ("add", "ablate", "rotate", "affine", "push", "clamp")
NEURONS = ("neuron_add", "neuron_swap", "neuron_set", "neuron_zero")


@dataclass(frozen=True)
class Readings:
    """What was read of a model for these methods; a method takes what it needs, and raises where
    that is missing."""

    source: str
    saes: Mapping[int, SAE] = field(default_factory=dict)
    latents: Firing | None = None
    random: Firing | None = None
    shuffled: Firing | None = None
    neurons: Firing | None = None
    gradients: Gradients | None = None
    lift: Lift | None = None
    pairs: LatentPairs | None = None


@dataclass(frozen=True)
class Method:
    """A method, the readings that it needs, and the operators that can take what it makes."""

    make: Callable[..., Directions]
    needs: tuple[str, ...]
    operators: tuple[str, ...] = FEATURES

    def fit(self, readings: Readings) -> Directions:
        """Directions, or an error that names the reading that is missing."""
        if missing := [name for name in self.needs if not getattr(readings, name)]:
            raise SteerlabError(
                f"there are no {', '.join(missing)} to choose units from: collect them first"
            )
        return self.make(*(getattr(readings, name) for name in self.needs), source=readings.source)


def _sae_diffmean(latents: Firing, saes: Mapping[int, SAE], *, source: str) -> Directions:
    return sae_diffmean(latents, saes)


def _langfir(
    latents: Firing, random: Firing, saes: Mapping[int, SAE], *, source: str
) -> Directions:
    return decoded(langfir(latents, random), latents, saes, source=source)


def _langfir_shuffled(
    latents: Firing, random: Firing, shuffled: Firing, saes: Mapping[int, SAE], *, source: str
) -> Directions:
    return decoded(langfir(latents, random, shuffled), latents, saes, source=source)


def _monolinguality(latents: Firing, saes: Mapping[int, SAE], *, source: str) -> Directions:
    return decoded(monolinguality(latents), latents, saes, source=source)


def _gated(latents: Firing, saes: Mapping[int, SAE], *, source: str) -> Directions:
    return gated(monolinguality(latents), latents, saes)


def _sae_lape(latents: Firing, saes: Mapping[int, SAE], *, source: str) -> Directions:
    return decoded(sae_lape(latents), latents, saes, source=source)


def _foxp2(
    latents: Firing, lift: Lift, pairs: LatentPairs, saes: Mapping[int, SAE], *, source: str
) -> Directions:
    return signed(foxp2_features(latents, lift), pairs, latents, saes)


def _lape(neurons: Firing, *, source: str) -> Directions:
    return masked(lape(neurons), neurons, source=source)


def _nju(neurons: Firing, *, source: str) -> Directions:
    return masked(nju(neurons).selection("both"), neurons, source=source)


def _culnig(gradients: Gradients, neurons: Firing, *, source: str) -> Directions:
    return masked(culnig(gradients), neurons, source=source)


METHODS: dict[str, Method] = {
    "sae diffmean": Method(
        _sae_diffmean, ("latents", "saes"), ("add", "ablate", "rotate", "affine", "push")
    ),
    "langfir": Method(_langfir, ("latents", "random", "saes")),
    "langfir shuffled": Method(_langfir_shuffled, ("latents", "random", "shuffled", "saes")),
    "monolinguality": Method(_monolinguality, ("latents", "saes")),
    "monolinguality gated": Method(_gated, ("latents", "saes"), ("gate", "add")),
    "sae lape": Method(_sae_lape, ("latents", "saes")),
    "foxp2": Method(
        _foxp2, ("latents", "lift", "pairs", "saes"), (*FEATURES, "signed_shift", "push_pull")
    ),
    "lape": Method(_lape, ("neurons",), NEURONS),
    "nju": Method(_nju, ("neurons",), NEURONS),
    "culnig": Method(_culnig, ("gradients", "neurons"), NEURONS),
}


def known(name: str) -> str:
    """The name, if it is that of an estimator, a variant or a method that chooses units; else it
    raises."""
    if name not in METHODS and name not in VARIANTS:
        raise SteerlabError(
            f"there is no estimator {name!r}; there are {', '.join((*VARIANTS, *METHODS))}"
        )
    return name


def suits(operator: str, name: str) -> bool:
    """Whether an operator can take a method's directions: some need what only one fits."""
    if name in METHODS:
        return operator in METHODS[name].operators
    told = OPERATORS[operator]
    return told.units is None and told.estimator in (None, variant(name).estimator)
