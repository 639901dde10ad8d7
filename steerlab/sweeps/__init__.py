"""Many cells into one folder that survives."""
