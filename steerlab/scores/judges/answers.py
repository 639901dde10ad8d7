"""What a judge is."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from steerlab.scores.answer import Answer as Answer


@runtime_checkable
class Judge(Protocol):
    """Rates what outputs say, whatever language they say it in.

    `name` tells apart any two judges that might rate differently: it goes into manifests and
    decides which scores may stand in one folder.
    """

    # For type checkers only: `isinstance` of Python 3.11 would ask the object for its `name`, and
    # to name themselves some judges load a model.
    if TYPE_CHECKING:

        @property
        def name(self) -> str: ...

    def rate(self, answers: Sequence[Answer]) -> Mapping[str, Any]:
        """Columns with one value for each answer: `rating` from 0 to 1, NaN where there is none,
        and others of the judge's own."""
