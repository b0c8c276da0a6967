"""`python -m broker_config`: the same as `hiroba broker`, where only the broker's side is at hand."""

import sys

from broker_config.cli import main

if __name__ == "__main__":
    sys.exit(main())
