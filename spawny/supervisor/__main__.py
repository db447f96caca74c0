"""`python -m spawny.supervisor`, the same as `spawny-supervisor`."""

import sys

from .run import main

sys.exit(main())
