"""What a run of CLaS-Bench compares, for its settings, questions and model."""

from dataclasses import dataclass
from itertools import product

from steerlab.analysis.choices import Setting
from steerlab.core.corpus import Corpus
from steerlab.core.errors import SteerlabError
from steerlab.engine.prompts import read_form
from steerlab.estimate import variant
from steerlab.scores.langid import Identifier, need_named
from steerlab.studies.clas.settings import Settings
from steerlab.studies.design import AT_METHOD, Control, Design, Method, Pair
from steerlab.sweeps.cell import UNSTEERED
from steerlab.sweeps.grid import method_name
from steerlab.sweeps.methods import STEERING, suits

RANDOM = ("random isotropic", "random covariance")
TWIN = "random twin"
SEEDS = 5  # of the random directions: the questions take them in turn


@dataclass(frozen=True)
class Plan:
    """What a run compares, for its pairs of languages and its layers."""

    settings: Settings
    pairs: tuple[Pair, ...]
    layers: tuple[int, ...]

    @property
    def across(self) -> tuple[Pair, ...]:
        """The pairs of two different languages: only they have a direction."""
        return tuple(pair for pair in self.pairs if pair[0] != pair[1])

    @property
    def methods(self) -> dict[str, Pair]:
        """The estimator and operator of each method, the first one being the one that controls
        stand beside."""
        names = {}
        for estimator, operator in product(self.settings.estimators, self.settings.operators):
            if suits(operator, estimator):
                names[method_name(estimator, operator)] = (estimator, operator)
        return names

    @property
    def first(self) -> str:
        """The method that controls stand beside."""
        return next(iter(self.methods))

    @property
    def prompts(self) -> dict[str, str]:
        """The form of each prompting baseline."""
        base = read_form(self.settings.prompt)[0]
        return {f"prompt {suffix}": f"{base}+{suffix}" for suffix in self.settings.baselines}

    @property
    def forms(self) -> dict[str, str]:
        """The prompt form of each control that is not steered."""
        return {UNSTEERED: self.settings.prompt} | self.prompts

    @property
    def unit(self) -> str:
        """What a strength of 1 is."""
        if self.settings.alphas:
            return "1 in the residual stream"
        units = {"add": "natural gap", "rotate": "angle between the two means"}
        return ", ".join(
            f"{operator}: {units.get(operator, 'its own')}" for operator in self.settings.operators
        )

    def grid(self, operator: str) -> tuple[Setting, ...]:
        """The layers and strengths that an operator is tried at."""
        strengths = self.settings.alphas or self.settings.strengths or STEERING[operator]
        return tuple((layer, strength) for layer in self.layers for strength in strengths)

    @property
    def choices(self) -> dict[str, Setting] | None:
        """Each method's only setting; None where there is something to choose."""
        grids = {name: self.grid(operator) for name, (_, operator) in self.methods.items()}
        if any(len(grid) > 1 for grid in grids.values()):
            return None
        return {name: grid[0] for name, grid in grids.items()}

    @property
    def randoms(self) -> tuple[str, ...]:
        """What the random controls are called: directions of two kinds, or twins of the edits."""
        return RANDOM if self.methods[self.first][1] == "add" else (TWIN,)

    def blind(self, sources: tuple[str, ...]) -> list[Method]:
        """The random controls of the first method.

        Added, random directions of the true gaps have the method's dose. Under another operator
        they have not: there random twins of its edits are scaled to it.
        """
        estimator, operator = self.methods[self.first]
        if self.randoms == (TWIN,):
            fits = {source: (fit_name(estimator, source),) for source in sources}
            return [Method(name=TWIN, operator=operator, fits=fits, twins=tuple(range(SEEDS)))]
        return [
            Method(
                name=kind,
                operator=operator,
                fits={source: random_names(kind, estimator, source) for source in sources},
            )
            for kind in RANDOM
        ]

    @property
    def design(self) -> Design:
        """Every method at every setting, random directions of the first one's dose at its choice,
        and the controls that are not steered.

        The design leaves out steered pairs of one language by itself: `study.same_language` says
        what counts there.
        """
        sources = tuple(dict.fromkeys(source for source, _ in self.across))
        methods = []
        for name, (estimator, operator) in self.methods.items():
            fits = {source: (fit_name(estimator, source),) for source in sources}
            methods.append(
                Method(name=name, operator=operator, fits=fits, settings=self.grid(operator))
            )
        return Design(
            methods=tuple(methods),
            controls=tuple(
                Control(method=method, chances=(AT_METHOD,)) for method in self.blind(sources)
            ),
            prompts=self.prompts,
            dev=self.pairs,
            test=self.pairs,
            form=self.settings.prompt,
        )


def needs_source(estimator: str) -> bool:
    """Whether an estimator's fit is for the pairs of one source only."""
    return variant(estimator).paired


def fit_name(estimator: str, source: str) -> str:
    """What a runner calls the directions of an estimator for a source."""
    return f"{estimator} from {source}" if needs_source(estimator) else estimator


def random_names(kind: str, estimator: str, source: str) -> tuple[str, ...]:
    """What a runner calls the random directions from a source, of the size of an estimator's."""
    return tuple(f"{kind} {seed} {estimator} from {source}" for seed in range(SEEDS))


def pairs_of(settings: Settings, questions: Corpus, identifier: Identifier) -> tuple[Pair, ...]:
    """The pairs of a run; raises for what does not exist or contradicts itself, before any model
    is loaded."""
    pairs = _pairs(settings, questions)
    need_named(identifier, [target for _, target in pairs])
    return pairs


def layers_of(settings: Settings, count: int) -> tuple[int, ...]:
    """The layers asked for, or seven at the eighths of a model: 4, 8, ... 28 of 32, as in the
    paper."""
    if settings.layers:
        return settings.layers
    # A set, since a model of few layers has several eighths at one; and none is above the last.
    eighths = {round(count * eighth / 8) for eighth in range(1, 8)}
    return tuple(sorted(eighths - {count}))


def _pairs(settings: Settings, questions: Corpus) -> tuple[Pair, ...]:
    """The pairs that are asked for, each once; raises where none is of two languages."""
    sources = settings.sources or questions.langs
    targets = settings.targets or questions.langs
    pairs = settings.pairs or tuple(product(sources, targets))
    for pair in pairs:
        for lang in pair:
            questions[lang]  # raises where there are no questions in it
    pairs = tuple(dict.fromkeys(pairs))
    if all(source == target for source, target in pairs):
        raise SteerlabError(
            "every pair asked for is one language with itself "
            f"({', '.join(map('-'.join, pairs))}), and that has no "
            "direction; give a pair of two languages"
        )
    return pairs
