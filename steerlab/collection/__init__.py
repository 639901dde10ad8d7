"""One streaming pass of a corpus through a model, into statistics."""

from steerlab.collection.moments import FREE_BYTES, PARTS, SAMPLE, collect, text_means

__all__ = ["FREE_BYTES", "PARTS", "SAMPLE", "collect", "text_means"]
