"""The record of a method that chooses units: what it reads, and which operators take its
directions."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from steerlab.core.costs import Cost
from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.core.firing import Firing, Gradients, LatentPairs, Lift
from steerlab.core.text_vectors import TextVectors
from steerlab.sae import SAE

# The operators that take directions of features, and those that take directions of neurons.
FEATURES = ("add", "ablate", "rotate", "affine", "push", "clamp")
NEURONS = ("neuron_add", "neuron_swap", "neuron_set", "neuron_zero")


@dataclass(frozen=True)
class Readings:
    """What was read of a model for these methods; each takes what it needs.

    Args:
        source: the language that directions lead from.
        saes: the model's autoencoders, by layer.
        latents: what their latents do on the texts.
        random: what the latents do on random tokens.
        shuffled: what the latents do on the texts' own tokens in another order.
        neurons: what the neurons do on the texts.
        gradients: how neurons serve labelled answers.
        lift: what switching latents on does to a language's probability.
        pairs: the differences of paired sentences, on chosen latents.
        texts: what the neurons hold at the last token of each text.
        writing_neurons: how far each neuron writes along the step to a language.
        writing_heads: how far each head does.
        costs: what each reading took, by its name.
    """

    source: str
    saes: Mapping[int, SAE] = field(default_factory=dict)
    latents: Firing | None = None
    random: Firing | None = None
    shuffled: Firing | None = None
    neurons: Firing | None = None
    gradients: Gradients | None = None
    lift: Lift | None = None
    pairs: LatentPairs | None = None
    texts: TextVectors | None = None
    writing_neurons: Directions | None = None
    writing_heads: Directions | None = None
    costs: Mapping[str, Cost] = field(default_factory=dict)

    def cost_of(self, needs: Iterable[str]) -> Cost:
        """What readings took together; what one of them was found with is among them."""
        return sum((self.costs.get(name, Cost()) for name in needs), Cost())


@dataclass(frozen=True)
class Method:
    """The record of a method, which stands in the method's own file, in `RECORDS`.

    Args:
        make: from the readings in `needs`, in this order, and `source=`, to Directions.
        needs: names of fields of `Readings`.
        operators: those that can take what it makes.
        cites: where it comes from, for `sl.cite`: keys of steerlab/data/sources.bib, or whole
            BibTeX entries.
        no_source: where there is no paper to cite, why.
    """

    make: Callable[..., Directions]
    needs: tuple[str, ...]
    operators: tuple[str, ...] = FEATURES
    cites: tuple[str, ...] = ()
    no_source: str = ""

    def fit(self, readings: Readings) -> Directions:
        """Directions, or an error that names the reading that is missing."""
        # A mapping without autoencoders is as good as none.
        missing = [name for name in self.needs if not getattr(readings, name)]
        if missing:
            raise SteerlabError(
                f"there are no {', '.join(missing)} to choose units from: collect them first"
            )
        arguments = [getattr(readings, name) for name in self.needs]
        return self.make(*arguments, source=readings.source)
