"""Features, neurons and experts: which units carry which language, what moves them, and the
directions made of them."""

from steerlab.analysis.routing import (
    routing_by_family,
    routing_divergence,
    spread_out,
    u_shape,
)
from steerlab.core.firing import Firing
from steerlab.core.routing import Routing
from steerlab.engine.causal_lift import causal_lift
from steerlab.engine.collect_gradients import collect_gradients
from steerlab.engine.collect_routing import collect_routing
from steerlab.engine.collect_units import collect_units
from steerlab.engine.latent_pairs import latent_pairs
from steerlab.engine.least_kl import least_kl
from steerlab.engine.static_neuron import StaticNeuron, static_neuron
from steerlab.engine.trace import trace
from steerlab.estimate.units.as_directions import decoded, gated, masked, sae_diffmean
from steerlab.estimate.units.austeer import austeer, momenta, random_atoms
from steerlab.estimate.units.controls import matched, random_units
from steerlab.estimate.units.culnig import culnig
from steerlab.estimate.units.experts import experts, multilingual, other_layers
from steerlab.estimate.units.foxp2 import candidates, foxp2_features, signed
from steerlab.estimate.units.langfir import langfir, langfir_counts, langfir_stability
from steerlab.estimate.units.lape import lape, sae_lape
from steerlab.estimate.units.monolinguality import monolinguality
from steerlab.estimate.units.nju import kinds_moved, nju
from steerlab.estimate.units.off_topic import deranged_pairs, off_topic
from steerlab.estimate.units.selection import Selection
from steerlab.sae.autoencoder import saes
from steerlab.studies.feature_card.page import feature_card

__all__ = [
    "Firing",
    "Routing",
    "Selection",
    "StaticNeuron",
    "austeer",
    "candidates",
    "causal_lift",
    "collect_gradients",
    "collect_routing",
    "collect_units",
    "culnig",
    "decoded",
    "deranged_pairs",
    "experts",
    "feature_card",
    "foxp2_features",
    "gated",
    "kinds_moved",
    "langfir",
    "langfir_counts",
    "langfir_stability",
    "lape",
    "latent_pairs",
    "least_kl",
    "masked",
    "matched",
    "momenta",
    "monolinguality",
    "multilingual",
    "nju",
    "off_topic",
    "other_layers",
    "random_atoms",
    "random_units",
    "routing_by_family",
    "routing_divergence",
    "sae_diffmean",
    "sae_lape",
    "saes",
    "signed",
    "spread_out",
    "static_neuron",
    "trace",
    "u_shape",
]
