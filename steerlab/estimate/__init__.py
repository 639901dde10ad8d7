"""Estimators: each goes from statistics of activations to `Directions`; none of them sees a
model."""

from steerlab.estimate.axis import axis as axis
from steerlab.estimate.axis import independent as independent
from steerlab.estimate.axis import log_frequency as log_frequency
from steerlab.estimate.axis import read_axes as read_axes
from steerlab.estimate.clusters import Clusters as Clusters
from steerlab.estimate.clusters import clustered as clustered
from steerlab.estimate.diffmean import diffmean as diffmean
from steerlab.estimate.eigengap import eigengap as eigengap
from steerlab.estimate.heads import head_gaps as head_gaps
from steerlab.estimate.heads import only_heads as only_heads
from steerlab.estimate.lda_and_probe import lda as lda
from steerlab.estimate.lda_and_probe import probe as probe
from steerlab.estimate.leace import leace as leace
from steerlab.estimate.merged import merged as merged
from steerlab.estimate.pca import disentangle as disentangle
from steerlab.estimate.pca import ellipsoid as ellipsoid
from steerlab.estimate.pca import pca as pca
from steerlab.estimate.record import Estimator as Estimator
from steerlab.estimate.record import estimator as estimator
from steerlab.estimate.registry import VARIANTS as VARIANTS
from steerlab.estimate.registry import fit as fit
from steerlab.estimate.registry import variant as variant
from steerlab.estimate.released import clas_bench as clas_bench
from steerlab.estimate.released import language_means as language_means
from steerlab.estimate.selective import Selective as Selective
from steerlab.estimate.selective import selective as selective
from steerlab.estimate.sparse import sparse as sparse
from steerlab.estimate.spectra import Spectrum as Spectrum
from steerlab.estimate.spectra import spectra as spectra
from steerlab.estimate.spectra import spectrum_table as spectrum_table
from steerlab.estimate.spectra import window as window

# The estimators by the names of their functions, as the records have them; a variant has no
# function of its own. `spectra` and `fit`, with what belongs to them, are public too, and so are
# `selective`, `axis` and `clustered`, which make no `Directions` of `Moments` alone.
__all__ = [name for name, record in VARIANTS.items() if record.estimator == name]
# The imports above are for type checkers; an estimator in a new file of this folder is found
# without one.
globals().update({name: VARIANTS[name].make for name in __all__})

# What `collect(also=...)` has to gather for each, beside count and means, with its knobs as they
# are.
NEEDS = {name: VARIANTS[name].needs for name in __all__ if VARIANTS[name].needs}
# What each one estimates, which is what a test of it has to plant.
ESTIMATES = {name: VARIANTS[name].estimates for name in __all__}
