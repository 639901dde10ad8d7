"""One network, two views: Hugging Face for bulk work, TransformerLens to read with."""

import warnings

# The libraries below ask tqdm for a bar of widgets, which warns, in red and for nothing that is
# shown here, where a notebook has none.
warnings.filterwarnings("ignore", message="IProgress not found")
