"""One network, two views: Hugging Face for bulk work, TransformerLens to read with."""
