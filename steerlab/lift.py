"""Causal lift."""
