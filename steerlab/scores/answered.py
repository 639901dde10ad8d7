"""The scores that are made with a row, in the order of the page: by `judges.score`, by
`faithful.columns`, and, where the model is needed, by the sweep."""

from steerlab.core.columns import Score

RECORDS = {
    "joint": Score(
        label="joint",
        aggregate="share",
        on_page=False,  # the page draws it
        meaning="right language, own sentence recognised",
    ),
    "faithful": Score(label="faithful", aggregate="share", meaning="and says what it says"),
    "chrfpp": Score(
        label="chrF++",
        digits=1,
        meaning="to the own reference",
        cites=("popovic2017chrf",),
    ),
    "chrf_reference": Score(
        label="chrF",
        digits=1,
        on_page=False,
        cites=("popovic2015chrf",),
    ),
    "joint_all": Score(label="joint, among all lines", aggregate="share", on_page=False),
    "in_language": Score(
        label="LFS",
        aggregate="share",
        key="lfs",
        cites=("gurgurov2026clas",),
    ),
    "relevant": Score(label="relevance", aggregate="share", key="relevance"),
    # CLaS-Bench's S, of the two averages.
    "score": Score(
        label="S",
        aggregate="harmonic",
        of=("in_language", "relevant"),
        cites=("gurgurov2026clas",),
    ),
    # An empty output has no bits per byte, and is left out.
    "bits_per_byte_ratio": Score(label="bits-per-byte ratio", higher_is_better=False),
    # `in_language` of the reference itself: the most that shares of a language can be.
    "ceiling": Score(label="ceiling", aggregate="share", on_page=False),
}
