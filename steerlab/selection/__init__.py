"""Which units carry which language, by each published method, and the directions that are made of them."""

from steerlab.selection.alignment import Alignment as Alignment
from steerlab.selection.alignment import nju as nju
from steerlab.selection.chosen import Selection as Selection
from steerlab.selection.entropy import entropy as entropy
from steerlab.selection.entropy import lape as lape
from steerlab.selection.entropy import sae_lape as sae_lape
from steerlab.selection.freezing import decoded as decoded
from steerlab.selection.freezing import gated as gated
from steerlab.selection.freezing import masked as masked
from steerlab.selection.freezing import sae_diffmean as sae_diffmean
from steerlab.selection.gradient import culnig as culnig
from steerlab.selection.langfir import langfir as langfir
from steerlab.selection.langfir import langfir_counts as langfir_counts
from steerlab.selection.langfir import langfir_stability as langfir_stability
from steerlab.selection.matched import matched as matched
from steerlab.selection.matched import random_units as random_units
from steerlab.selection.methods import METHODS as METHODS
from steerlab.selection.methods import Method as Method
from steerlab.selection.methods import Readings as Readings
from steerlab.selection.methods import known as known
from steerlab.selection.methods import suits as suits
from steerlab.selection.monolingual import monolinguality as monolinguality
from steerlab.selection.signed import candidates as candidates
from steerlab.selection.signed import foxp2_features as foxp2_features
from steerlab.selection.signed import latent_spectra as latent_spectra
from steerlab.selection.signed import signed as signed
