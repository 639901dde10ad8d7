"""Ways to find where a language lies: statistics in, `Directions` out; none of them sees a model."""

from steerlab.estimate.axes import disentangle, ellipsoid, pca
from steerlab.estimate.dimensions import sparse
from steerlab.estimate.discriminants import lda, probe
from steerlab.estimate.erasure import leace
from steerlab.estimate.gaps import Spectrum as Spectrum
from steerlab.estimate.gaps import spectra as spectra
from steerlab.estimate.gaps import spectrum_table as spectrum_table
from steerlab.estimate.gaps import window as window
from steerlab.estimate.means import diffmean
from steerlab.estimate.pairs import eigengap
from steerlab.estimate.variants import VARIANTS as VARIANTS
from steerlab.estimate.variants import Variant as Variant
from steerlab.estimate.variants import fit as fit
from steerlab.estimate.variants import variant as variant

# The estimators; `spectra` and `fit`, with what belongs to them, are public too.
__all__ = ["diffmean", "eigengap", "lda", "pca", "probe", "disentangle", "ellipsoid", "leace", "sparse"]  # noqa: RUF022
# What `collect(also=...)` has to gather for each, beside count and means, with its knobs as they are.
NEEDS = {name: VARIANTS[name].needs for name in __all__ if VARIANTS[name].needs}
# What each one estimates, which is what a test of it has to plant.
ESTIMATES = {
    "diffmean": "mean difference",
    "lda": "discriminant",
    "probe": "discriminant",
    "pca": "axis of the paired differences",
    "eigengap": "subspace of the paired differences",
    "disentangle": "subspace of the language means",
    "sparse": "dimensions of the mean difference",
    "leace": "mean difference",
    "ellipsoid": "mean difference",
}
