"""The only folder that runs many rows through a model."""
