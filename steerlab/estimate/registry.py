"""Every estimator and variant by a name of its own, as tables and sweeps call them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.core.moments import Moments
from steerlab.estimate.diffmean import diffmean
from steerlab.estimate.eigengap import eigengap
from steerlab.estimate.lda_and_probe import lda, probe
from steerlab.estimate.leace import leace
from steerlab.estimate.pca import disentangle, ellipsoid, pca
from steerlab.estimate.sparse import sparse


@dataclass(frozen=True)
class Variant:
    """An estimator with knobs; `needs` is what `collect(also=...)` gathers for it.

    `sourced`: it takes `source=`; `paired`: its fit is for that source only; `every`: it reads
    other layers than those whose directions are asked for, so that all have to be collected.
    """

    make: Callable[..., Directions]
    knobs: Mapping[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    sourced: bool = False
    every: bool = False

    @property
    def paired(self) -> bool:
        return self.sourced or "pairs" in self.needs

    @property
    def estimator(self) -> str:
        """The estimator's own name."""
        return self.make.__name__


# A fit's `estimator` is its name here.
VARIANTS: dict[str, Variant] = {
    "diffmean": Variant(diffmean),
    "diffmean texts": Variant(diffmean, {"read": "texts"}),
    "diffmean last": Variant(diffmean, {"read": "last"}),
    "diffmean against rest": Variant(diffmean, {"contrast": "rest"}, sourced=True),
    "diffmean against centre": Variant(diffmean, {"contrast": "centre"}, sourced=True),
    "diffmean against en": Variant(diffmean, {"contrast": "en"}, sourced=True),
    "diffmean against clas": Variant(diffmean, {"contrast": "clas"}, sourced=True),
    "lda": Variant(lda, needs=("scatter", "sample")),
    "lda against source": Variant(lda, {"contrast": "source"}, ("clouds", "sample"), sourced=True),
    "lda against clas": Variant(lda, {"contrast": "clas"}, ("clouds", "sample"), sourced=True),
    "probe": Variant(probe, needs=("sample",)),
    "probe against source": Variant(probe, {"contrast": "source"}, ("sample",), sourced=True),
    "probe against clas": Variant(probe, {"contrast": "clas"}, ("sample",), sourced=True),
    "pca": Variant(pca, needs=("pairs",)),
    "pca means": Variant(pca, {"of": "means"}),
    "pca cloud": Variant(pca, {"of": "cloud"}, ("clouds",)),
    "eigengap": Variant(eigengap, needs=("pairs",)),
    "disentangle": Variant(disentangle),
    "disentangle tokens": Variant(disentangle, {"read": "tokens"}),
    "sparse": Variant(sparse, sourced=True, every=True),
    "sparse monolingual": Variant(sparse, {"setting": "monolingual"}, every=True),
    "leace": Variant(leace, needs=("scatter",)),
    "leace target": Variant(leace, {"concept": "target"}, ("scatter",)),
    "ellipsoid": Variant(ellipsoid, needs=("clouds",)),
}


def variant(name: str) -> Variant:
    """The variant of this name; an unknown one raises and lists the known."""
    if name not in VARIANTS:
        raise SteerlabError(f"there is no estimator {name!r}; there are {', '.join(VARIANTS)}")
    return VARIANTS[name]


def fit(name: str, moments: Moments, *, source: str = "en") -> Directions:
    """Directions by an estimator's or a variant's name; `source` is for those that are set
    against something."""
    told = variant(name)
    return told.make(moments, **told.knobs, **({"source": source} if told.sourced else {}))
