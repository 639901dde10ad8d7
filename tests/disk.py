"""A disk without room."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager

LIMIT = 2000  # bytes


@contextmanager
def full_disk(size: int = LIMIT) -> Iterator[None]:
    """No file of this process may grow beyond so many bytes: the real error of a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
