"""A direction in the files of other tools, and back.

Other tools know one kind of edit: a vector for each block, which is added to what the block puts
out. `export` writes that of `add`; `read` makes `Directions` of such a file, in whose direction
strength 1 adds exactly the file's vectors.
"""

from steerlab.core.exchange.formats import FORMATS, export, read, table
from steerlab.core.exchange.vectors import Vectors

__all__ = ["FORMATS", "Vectors", "export", "read", "table"]
