"""People for the driver: a token for each connection, and the key that a node takes them by."""

import secrets
import time
from pathlib import Path

import jwt

# Long enough for any run.
LIFE_S = 86_400


class People:
    """Users 0, 1, 2 …, each with a name and rights in all rooms, as a small site's tokens have them."""

    def __init__(self, directory: Path) -> None:
        """`directory`: where their tokens are kept, a line each."""
        self._secret = secrets.token_hex(32)
        self._directory = directory
        # For the node that lets them in.
        self.environment = {"HIROBA_TOKEN_KEYS": f"HS256:{self._secret}"}

    def tokens(self, count: int) -> Path:
        """The file that has so many."""
        path = self._directory / f"tokens-{count}"
        if not path.exists():
            path.write_text("".join(f"{self.token(number)}\n" for number in range(count)))
        return path

    def token(self, number: int) -> str:
        now = int(time.time())
        claims = {"sub": str(number), "name": f"Person {number}", "iat": now, "exp": now + LIFE_S}
        return jwt.encode({**claims, "rooms": {"*": "rwp"}, "jti": secrets.token_hex(8)}, self._secret, "HS256")
