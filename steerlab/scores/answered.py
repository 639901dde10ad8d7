"""The scores that are made with a row: the first three by `judges.score`, the last one, which
needs the model, by the sweep."""

from steerlab.core.columns import Score

RECORDS = {
    "joint": Score(label="joint", aggregate="share", on_page=False),  # the page draws it
    "in_language": Score(label="LFS", aggregate="share", key="lfs"),
    "relevant": Score(label="relevance", aggregate="share", key="relevance"),
    # CLaS-Bench's S, of the two averages.
    "score": Score(label="S", aggregate="harmonic", of=("in_language", "relevant")),
    # An empty output has no bits per byte, and is left out.
    "bits_per_byte_ratio": Score(label="bits-per-byte ratio", higher_is_better=False),
}
