"""`python -m gateway` is `hiroba`. Everything is in `cli.py`."""

import sys

from gateway.cli import main

sys.exit(main())
