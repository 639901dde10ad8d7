"""Which units carry which language, by each published method, and the directions that are made
of them."""

from steerlab.estimate.units.as_directions import decoded as decoded
from steerlab.estimate.units.as_directions import gated as gated
from steerlab.estimate.units.as_directions import masked as masked
from steerlab.estimate.units.as_directions import sae_diffmean as sae_diffmean
from steerlab.estimate.units.austeer import austeer as austeer
from steerlab.estimate.units.austeer import momenta as momenta
from steerlab.estimate.units.austeer import random_atoms as random_atoms
from steerlab.estimate.units.controls import matched as matched
from steerlab.estimate.units.controls import random_units as random_units
from steerlab.estimate.units.culnig import culnig as culnig
from steerlab.estimate.units.foxp2 import candidates as candidates
from steerlab.estimate.units.foxp2 import foxp2_features as foxp2_features
from steerlab.estimate.units.foxp2 import latent_spectra as latent_spectra
from steerlab.estimate.units.foxp2 import signed as signed
from steerlab.estimate.units.langfir import langfir as langfir
from steerlab.estimate.units.langfir import langfir_counts as langfir_counts
from steerlab.estimate.units.langfir import langfir_stability as langfir_stability
from steerlab.estimate.units.lape import entropy as entropy
from steerlab.estimate.units.lape import lape as lape
from steerlab.estimate.units.lape import sae_lape as sae_lape
from steerlab.estimate.units.monolinguality import monolinguality as monolinguality
from steerlab.estimate.units.nju import Alignment as Alignment
from steerlab.estimate.units.nju import nju as nju
from steerlab.estimate.units.record import Method as Method
from steerlab.estimate.units.record import Readings as Readings
from steerlab.estimate.units.registry import METHODS as METHODS
from steerlab.estimate.units.selection import Selection as Selection
