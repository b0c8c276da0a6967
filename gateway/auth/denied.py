"""Why somebody is not let in: one table for the status, the metric's label and the log's."""

# Reason: status of the answer, when (docs/protocol.md has this table too).
REASONS = {
    "no_credentials": (401, "nothing says who comes: no token, and nobody else is let in"),
    "token_malformed": (401, "the token is no signed JWT"),
    "token_key": (401, "no key of this node fits the token: its `alg` (HS256, RS256, ES256, EdDSA) and `kid`"),
    "token_signature": (401, "the token's signature is not by that key"),
    "token_expired": (401, "the token's `exp` has passed"),
    "token_early": (401, "the token's `nbf` or `iat` is still to come"),
    "token_audience": (401, "the token's `aud` is not `token_audience`"),
    "token_issuer": (401, "the token's `iss` is not `token_issuer`"),
    "token_claims": (401, "a claim of the token is missing or can't be"),
    "site_unknown": (401, "the site (`site_url`) does not know who comes, or they are signed out"),
    "site_forbidden": (403, "the site does not let them in"),
    "site": (503, "the site can't say at present who comes, and has not said it lately"),
    "keys": (503, "the keys at `token_jwks_url` can't be had at present"),
}


class Denied(Exception):
    """Not this one: `reason` is one of REASONS, `args[0]` says more. No secret is in it."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason

    @property
    def status(self) -> int:
        return REASONS[self.reason][0]
