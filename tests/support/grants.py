"""What somebody is let in with, for tests that ask nobody who comes."""

from gateway.core.rights import Rights
from gateway.core.user import NOBODY, Grant

# Everybody, everywhere.
OPEN = Grant(NOBODY, Rights({"*": "rwp"}))
