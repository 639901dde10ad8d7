"""One streaming pass of a corpus through a model, into statistics."""

from steerlab.collection.firings import collect_firing
from steerlab.collection.gradients import collect_gradients
from steerlab.collection.moments import FREE_BYTES, PARTS, SAMPLE, collect, text_means

__all__ = ["FREE_BYTES", "PARTS", "SAMPLE", "collect", "collect_firing", "collect_gradients", "text_means"]
