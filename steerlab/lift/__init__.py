"""What latents do to a model: the mass that each moves, the pairs of sentences, the neurons that write it, the cost."""

from steerlab.lift.causal import causal_lift as causal_lift
from steerlab.lift.causal import need_gold as need_gold
from steerlab.lift.paired import latent_pairs as latent_pairs
from steerlab.lift.strengths import least_kl as least_kl
from steerlab.lift.tracing import trace as trace
from steerlab.lift.tracing import written as written

__all__ = ["causal_lift", "latent_pairs", "least_kl", "need_gold", "trace", "written"]
