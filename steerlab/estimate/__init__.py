"""Ways to find where a language lies: statistics in, `Directions` out; none of them sees a
model."""

from steerlab.estimate.diffmean import diffmean
from steerlab.estimate.eigengap import eigengap
from steerlab.estimate.lda_and_probe import lda, probe
from steerlab.estimate.leace import leace
from steerlab.estimate.pca import disentangle, ellipsoid, pca
from steerlab.estimate.registry import VARIANTS as VARIANTS
from steerlab.estimate.registry import Variant as Variant
from steerlab.estimate.registry import fit as fit
from steerlab.estimate.registry import variant as variant
from steerlab.estimate.released import clas_bench as clas_bench
from steerlab.estimate.released import language_means as language_means
from steerlab.estimate.sparse import sparse
from steerlab.estimate.spectra import Spectrum as Spectrum
from steerlab.estimate.spectra import spectra as spectra
from steerlab.estimate.spectra import spectrum_table as spectrum_table
from steerlab.estimate.spectra import window as window

# The estimators; `spectra` and `fit`, with what belongs to them, are public too.
__all__ = [  # noqa: RUF022
    "diffmean",
    "eigengap",
    "lda",
    "pca",
    "probe",
    "disentangle",
    "ellipsoid",
    "leace",
    "sparse",
]
# What `collect(also=...)` has to gather for each, beside count and means, with its knobs as they
# are.
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
