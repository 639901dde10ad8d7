"""What is to be known of a method that chooses units: the readings that it needs, and the operators
that take what it makes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.core.firing import Firing, Gradients, LatentPairs, Lift
from steerlab.sae import SAE

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
    """The record of a method, which stands in the method's own file, in `RECORDS`.

    Args:
        make: from the readings in `needs`, in this order, and `source=`, to Directions.
        needs: names of fields of `Readings`.
        operators: those that can take what it makes.
    """

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
