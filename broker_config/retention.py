"""What the broker keeps of a room: the defaults, said here and nowhere else, and how publish.lua takes them."""

from dataclasses import dataclass
from math import ceil

# A node's last call and its answer are kept for so long, s. A retry comes within publish_timeout_s; the saved answer
# outlives it by far.
ONCE_S = 3600

# A room's expiry is renewed once in so many parts of idle_s: oftener costs more than the append itself.
RENEWALS = 8


@dataclass(frozen=True)
class Retention:
    """What a log keeps. Seconds first, but not less than the two minima agree on, never more than the two caps."""

    # How long a client that was away can be told everything: a tunnel, a lift, a laptop's lid.
    seconds: float = 120.0
    # What was said last is there on entering, however long ago: a page full of it.
    entries_min: int = 100
    # But no more of them than so many bytes hold, 100 long letters of 2.6 kB: a hundred of the largest messages are
    # 6.4 MB, and 160 rooms like that would fill the 1 GB of valkey.conf for as long as somebody sits in them.
    bytes_min: int = 256 * 1024
    # One loud room cannot fill the broker: at 1,000 messages a second, 100 s.
    entries_max: int = 100_000
    # 64 MiB: sixteen such rooms fill the 1 GB of valkey.conf.
    bytes_max: int = 64 * 1024 * 1024
    # A room in which nobody was or spoke for so long expires: 7 days.
    idle_s: float = 604_800.0

    def arguments(self) -> tuple[str | int, ...]:
        """ARGV of publish.lua, in its order; whole seconds, upwards: EXPIRE of 0 s would delete the log."""
        bounds = ceil(self.seconds), self.entries_min, self.bytes_min, self.entries_max, self.bytes_max
        return " ".join(map(str, bounds)), ceil(self.idle_s), ceil(self.idle_s / RENEWALS), ONCE_S


DEFAULT = Retention()
