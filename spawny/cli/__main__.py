"""`python -m spawny.cli` is `spawny`."""

import sys

from .command import main

sys.exit(main())
