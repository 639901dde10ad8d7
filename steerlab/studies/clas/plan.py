"""What a run of CLaS-Bench asks for, and the cells that it comes to."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product

from steerlab.core.corpus import Corpus
from steerlab.core.errors import SteerlabError
from steerlab.core.languages import language
from steerlab.engine.prompts import read_form
from steerlab.estimate import variant
from steerlab.scores.langid import Identifier
from steerlab.studies.clas.settings import Settings
from steerlab.sweeps.cell import Cell
from steerlab.sweeps.grid import method_name
from steerlab.sweeps.methods import STEERING, suits

UNSTEERED, RANDOM = "unsteered", "random"
SEEDS = 5

Pair = tuple[str, str]
Setting = tuple[int, float]  # layer and strength


@dataclass(frozen=True)
class Plan:
    """The cells of a run, for its pairs of languages and its layers."""

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
        found = product(self.settings.estimators, self.settings.operators)
        return {
            method_name(estimator, operator): (estimator, operator)
            for estimator, operator in found
            if suits(operator, estimator)
        }

    @property
    def controls(self) -> dict[str, str]:
        """The prompt form of each control that is not steered."""
        base = read_form(self.settings.prompt)[0]
        found = {f"prompt {suffix}": f"{base}+{suffix}" for suffix in self.settings.baselines}
        return {UNSTEERED: self.settings.prompt} | found

    @property
    def unit(self) -> str:
        """What a strength of 1 is."""
        if self.settings.alphas:
            return "1 in the residual stream"
        units = {"add": "natural gap", "rotate": "angle between the two means"}
        return ", ".join(
            f"{operator}: {units.get(operator, 'its own')}" for operator in self.settings.operators
        )

    def grid(self, operator: str) -> list[Setting]:
        """The layers and strengths that an operator is tried at."""
        strengths = self.settings.alphas or self.settings.strengths or STEERING[operator]
        return [(layer, strength) for layer in self.layers for strength in strengths]

    @property
    def choices(self) -> dict[str, Setting] | None:
        """Each method's only setting; None where there is something to choose."""
        grids = {name: self.grid(operator) for name, (_, operator) in self.methods.items()}
        several = any(len(grid) > 1 for grid in grids.values())
        return None if several else {name: grid[0] for name, grid in grids.items()}

    def dev(self) -> list[Cell]:
        """Every method at every setting."""
        return [
            cell
            for name, (_, operator) in self.methods.items()
            for setting in self.grid(operator)
            for cell in self._steered(name, setting, "dev")
        ]

    def test(self, choices: Mapping[str, Setting], split: str) -> list[Cell]:
        """Each method at its choice, random directions at the first one's, and the controls that
        are not steered."""
        cells = [
            cell for name in self.methods for cell in self._steered(name, choices[name], split)
        ]
        first = next(iter(self.methods))
        cells += self._steered(RANDOM, choices[first], split)
        for name, form in self.controls.items():
            cells += [Cell(name, "none", -1, 0.0, *pair, split, (), form) for pair in self.pairs]
        return cells

    def _steered(self, method: str, setting: Setting, split: str) -> Iterator[Cell]:
        first = next(iter(self.methods))
        estimator, operator = self.methods[first if method == RANDOM else method]
        for source, target in self.across:
            fit = fit_name(estimator, source)
            fits = (
                tuple(f"{RANDOM} {seed} {fit}" for seed in range(SEEDS))
                if method == RANDOM
                else (fit,)
            )
            yield Cell(
                method, operator, *setting, source, target, split, fits, self.settings.prompt
            )


def needs_source(estimator: str) -> bool:
    """Whether an estimator's fit is for the pairs of one source only."""
    return variant(estimator).paired


def fit_name(estimator: str, source: str) -> str:
    """What a bench calls the directions of an estimator for a source."""
    return f"{estimator} from {source}" if needs_source(estimator) else estimator


def pairs_of(settings: Settings, questions: Corpus, identifier: Identifier) -> tuple[Pair, ...]:
    """The pairs of a run; raises for what does not exist or contradicts itself, before any model
    is loaded."""
    pairs = _pairs(settings, questions)
    if strange := [target for _, target in pairs if target not in identifier.languages]:
        raise SteerlabError(
            f"the language identifier {identifier.name} cannot name {language(strange[0]).name}, "
            "so that no answer "
            "could succeed; give another one as lid, or leave the target out"
        )
    return pairs


def layers_of(settings: Settings, count: int) -> tuple[int, ...]:
    """The layers asked for, or seven at the eighths of a model: 4, 8, ... 28 of 32, as in the
    paper."""
    return settings.layers or tuple(
        sorted({round(count * eighth / 8) for eighth in range(1, 8)} - {count})
    )


def _pairs(settings: Settings, questions: Corpus) -> tuple[Pair, ...]:
    sources, targets = settings.sources or questions.langs, settings.targets or questions.langs
    pairs = settings.pairs or tuple((source, target) for source in sources for target in targets)
    for pair in pairs:
        for iso in pair:
            questions[iso]
    found = tuple(dict.fromkeys(pairs))
    if all(source == target for source, target in found):
        raise SteerlabError(
            "every pair asked for is one language with itself "
            f"({', '.join(map('-'.join, found))}), and that has no "
            "direction; give a pair of two languages"
        )
    return found
