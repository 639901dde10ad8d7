"""`python -m steerlab.cli` is `steerlab`."""

import sys

from steerlab.cli import main

sys.exit(main())
