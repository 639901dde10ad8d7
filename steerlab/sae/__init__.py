"""Sparse autoencoders: what sae-lens trains or knows, Gemma Scope's and Llama Scope's, from a
folder or by release."""

from steerlab.sae.autoencoder import SAE, saes

__all__ = ["SAE", "saes"]
