"""What can go wrong: no answer, or one that says no."""

from hiroba_client.models import Fault


class HirobaError(Exception):
    """Whatever this client raises."""


class Unreachable(HirobaError):
    """No answer within the time, from none of the addresses. With its idempotency key a write may be sent again, by
    anybody, for five minutes: it is done once."""

    def __init__(self, text: str, idempotency_key: str | None) -> None:
        super().__init__(text)
        self.idempotency_key = idempotency_key


class Problem(HirobaError):
    """An answer that is none of success (RFC 9457). `code`: what a program goes by (docs/api.md)."""

    def __init__(self, status: int, code: str, detail: str, errors: tuple[Fault, ...] = ()) -> None:
        super().__init__(f"{status} {code}: {detail}")
        self.status = status
        self.code = code
        self.detail = detail
        self.errors = errors
