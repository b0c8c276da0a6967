"""Every setting of hiroba: its name, type, default, reason, said once and here.

Flags, variables, TOML keys, `hiroba config`, the example file and docs/settings.md are all derived from the
fields of `Settings`. Reading the sources is in `load.py`, showing them in `show.py`.

Units come last in names: `_s` seconds, `_bytes`, `_chars`, `_entries`. Limits name precedents, so that a
reader can judge whether a number is usual.
"""

from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from broker_config import prefix
from broker_config.retention import DEFAULT as RETENTION
from gateway.core.rights import Rights
from gateway.settings.urls import (
    check_base_path,
    check_broker_url,
    check_http_url,
    check_login_url,
    check_origin,
    check_token_key,
)
from gateway.settings.urls import masked as masked

ENV_PREFIX = "HIROBA_"

# What `hiroba node` connects to when no broker is named; `hiroba up` runs its own instead.
NODE_BROKER_URL = "redis://127.0.0.1:6379/0"


class SettingsError(ValueError):
    """A setting is unknown or wrong. The text is for the user: what, where it came from, what to do."""


def _split_commas(value: object) -> object:
    """`"a, b"` of a flag or variable as a list, and one number of TOML; what TOML gave as an array stays."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return [value] if isinstance(value, int) else value


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _check_rights(value: tuple[str, ...]) -> tuple[str, ...]:
    Rights.parse(value)
    return value


def _check_patterns(value: tuple[str, ...]) -> tuple[str, ...]:
    Rights(dict.fromkeys(value, "w"))
    return value


Port = Annotated[int, Field(ge=0, le=65_535)]
Count = Annotated[int, Field(ge=1)]
# More than zero; a float inside, whatever was written.
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
SecondsOrZero = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Origin = Annotated[str, AfterValidator(check_origin)]
Comma = BeforeValidator(_split_commas)
Letters = Annotated[tuple[str, ...], NoDecode, Comma, AfterValidator(_check_rights)]
Hosts = Annotated[tuple[str, ...], NoDecode, Comma, Field(min_length=1)]


class Section(BaseSettings):
    """What the groups of settings share."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,  # an input may hold a password
        use_attribute_docstrings=True,
        validate_default=False,
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what is passed in: `Settings(port=0)` means that everywhere. `load.load` reads the
        sources."""
        return (init_settings,)


class Serving(Section):
    """Where hiroba listens and what it runs"""

    broker_url: Annotated[str, AfterValidator(check_broker_url)] | None = Field(
        default=None, examples=[NODE_BROKER_URL]
    )
    """The broker: `redis://`, `rediss://` (TLS; `?ssl_ca_certs=FILE` names a CA), `unix://`, or
    `redis+sentinel://HOST:26379,HOST:26379/SERVICE` for whichever server these sentinels call master; with
    the broker's user and password in front of the host. Unset, `hiroba up` runs the embedded broker and
    `hiroba node` takes `redis://127.0.0.1:6379/0`."""
    key_prefix: Annotated[str, AfterValidator(prefix.check_key_prefix)] = prefix.DEFAULT
    """What every key and channel on the broker begins with, before a `:`. Installations that share a server differ in
    it, or in the database. `hiroba:staging` needs no other rules of the user `gateway`. Changed, all rooms are
    empty."""
    host: Hosts = ("127.0.0.1",)
    """Addresses of the public port: `10.0.0.5, fd00::5`. Loopback, so that nothing is open to the world by
    accident; behind a load balancer `0.0.0.0`, or `::`, which takes IPv4 as well."""
    port: Port = 8000
    """Public port: pages and WebSockets. 0 takes any free one."""
    base_path: Annotated[str, AfterValidator(check_base_path)] = Field(default="", examples=["/talk"])
    """Path in front of every public address, where a proxy gives hiroba a part of a site: `/talk`. It may
    strip the prefix or pass it on."""
    ops_host: Hosts = ("127.0.0.1",)
    """Addresses of the ops ports. They show what happens inside: never on a public interface."""
    ops_port: Port = 9000
    """Ops port of the first node: `/metrics`, `/healthz`, `/readyz`; node n has `ops_port` + n. 0 takes
    any free one, for each node: the log says which."""
    nodes: Count = 2
    """Node processes of `hiroba up`; `hiroba node` is always one. One per core is the most that pays."""
    api_url: str | None = Field(default=None, examples=["http://10.0.0.5:9000,http://10.0.0.6:9000"])
    """Where `hiroba publish` and `hiroba rooms` find the HTTP API: ops ports of nodes, with commas between; where one
    does not answer, the next is asked. Unset: `http://127.0.0.1:` and `ops_port`."""
    api_key: str | None = Field(default=None, examples=["hiroba_…"])
    """The key of the HTTP API that they send (`hiroba keys make`). Not a flag: all on a machine can read those."""
    hang_s: Seconds = 20.0
    """A node of `hiroba up` that has not answered `/healthz` on its ops port for so long hangs: it is killed
    and started again. While it starts it has a minute. gunicorn 30 s; a Kubernetes probe with its defaults 30 s."""
    data: Path = Path("hiroba-data")
    """Directory of the embedded broker's append-only file. One `hiroba up` per directory."""
    reuse_port: bool = False
    """Share the public port with other processes by SO_REUSEPORT. `hiroba up` sets it for its nodes."""
    fd: Annotated[tuple[Annotated[int, Field(ge=3)], ...], NoDecode, Comma] = ()
    """Descriptors of listening sockets that were inherited; they win over `host` and `port`. `hiroba up` sets
    them where SO_REUSEPORT does not balance."""


class Limits(Section):
    """What one client, one room and one node may take"""

    connections_max: Count | None = Field(default=None, examples=[15_000])
    """WebSockets and event streams of one node; one more is answered 503. Unset: 15,000, or what the descriptor
    limit allows, said at start. HTTP connections that idle may have the places that none of them takes, and 128
    more; then the one that idles longest is closed for the next."""
    head_bytes_max: int = Field(default=32_768, ge=1_024)
    """Bytes of a request's head: its line and all headers, cookies too; a larger one is answered 431. nginx 32
    KiB, HAProxy and Node.js 16 KiB."""
    rooms_max: Count = 25_000
    """Rooms open on one node; joining one more is answered 503. Bounds memory and the doorbell's
    subscriptions."""
    room_name_chars_max: int = Field(default=100, ge=1, le=100)
    """Characters of a room's name; a longer one is answered 404. Channels allows group names of less than
    100."""
    message_bytes_max: Count = 65_536
    """Bytes of one client message; a longer one is refused (close 1009) before it is buffered whole. 64
    KiB is a long letter, and small against a batch; Centrifugo 64 KiB, Socket.IO 1 MB, websockets 1 MiB,
    aiohttp 4 MiB."""
    messages_per_s: float = Field(default=20.0, ge=0, allow_inf_nan=False)
    """Messages per second of one connection, on average; above it its socket is read more slowly. Every other
    frame counts as a message, a ping too. 0 is no limit. A person types far less; a paste or a game may not.
    RFC 1459 §8.10 slows IRC clients the same way; Discord takes 2."""
    messages_burst: Count = 40
    """Messages that one connection may send at once before `messages_per_s` holds it: two seconds' worth."""
    message_weight_bytes: Count = 4_096
    """Bytes that count as one message; a longer one counts as many as it has of these, inflated: the longest
    as 16. With `messages_per_s`, 80 KiB a second."""
    rooms_per_connection_max: Count = 500
    """Rooms that one connection may be in; one more is refused (`error` `too_many_rooms`). A chat with more open at
    once is rare, and a list of rooms need not join them. Centrifugo 128 subscriptions, Pusher 100."""
    watches_per_connection_max: Count = 1_000
    """Rooms that one connection may watch; one more is refused (`error` `too_many_rooms`). A list of rooms with
    unread counts; each costs the node some 40 bytes, and a share of one frame a second when it grows."""
    watched_rooms_max: Count = 100_000
    """Rooms that one node watches for all of its connections, whoever else has them open; one more is refused
    (`error` `busy`). Each costs the node half a kilobyte, the broker a subscription, and both a question every
    `sweep_s`."""
    read_rooms_max: Count = 2_000
    """Rooms in which the broker keeps up to where one user has read; of more those go whose marker is oldest. Twice
    what one connection may watch, and some 200 KB."""
    read_waiting_max: Count = 50_000
    """Read markers of one node on their way to the broker, one for each user and room; one more is refused (`error`
    `busy`). They go out four times a second: only while the broker is away do so many wait."""
    typing_s: Seconds = 6.0
    """Who says that they type does so for so long, unless they say something or say it again; of one user and room two
    are passed on in this time. The pages and our client say it every 3 s. XMPP's clients say once that they paused,
    Matrix' every 30 s that they type, Discord's every 10 s."""
    typing_users_max: int = Field(default=10, ge=0)
    """Users who are told of a room in which more type at once; what others say of it is dropped. A page has a line for
    it, and writes "several people" above three. 0: nobody is told that anybody types, and the broker has a channel
    less for each room."""
    whispers_max: Count = 1_000
    """What one node has told the broker of who types and has no answer to; the next one is dropped. The broker takes
    each within microseconds: only a slow one lets so many wait."""
    presence_members_max: Count = 1_000
    """Members of one room of whom its others are told who they are; above it only how many. Nobody reads a longer
    list, and telling everybody of everybody grows with the square. Discord 1,000 in a guild, Pusher 100."""
    presence_bytes_max: Count = 64 * 1024 * 1024
    """Bytes of what one node knows of who is in which rooms; where it would be more, of a room only how many. Some
    150,000 members, each in one room."""
    joins_per_s: float = Field(default=20.0, ge=0, allow_inf_nan=False)
    """Rooms per second that one connection may join, on average; above it its socket is read more slowly. It may join
    `rooms_per_connection_max` at once: who comes back comes back to all of them. 0 is no limit. Joining a room that
    nobody is in costs node and broker as much as several messages."""
    requests_max: Count = 1_000
    """Requests (`join`, `leave`, …) of one connection that wait for those before them; above it its socket is not
    read. Twice what a client asks that comes back to all its rooms."""
    orders_max: Count = 10_000
    """Kicks and revocations that stand at once, for all nodes together; one more is refused. Each takes some 250 bytes
    of the broker and 300 of each node, which reads them all when it starts."""
    revoked_s: Annotated[int, Field(ge=1)] = 2_592_000
    """Seconds for which a revocation stands: no token of yours may live longer, or it would be good again behind it.
    30 days."""
    flood_s: Seconds = 60.0
    """Who was slowed down for so long without a break, with more than 16 KiB still waiting to be read, is
    closed 1008."""
    outgoing_bytes_max: Count = 131_072
    """Bytes waiting in one session's socket; above it the session falls behind and is walked at its own
    pace instead of growing. Two of the largest messages; Centrifugo queues 1 MiB, then disconnects."""
    publish_window: Count = 32
    """Publishes of one session on their way to the broker; a full window stops reading that socket."""
    publish_queue_entries_max: Count = 20_000
    """Entries waiting in a node's publisher; a full queue holds back the sockets that speak. One session may
    have 1/32 of what is still free: nobody fills it alone, and its sessions take turns."""
    publish_queue_bytes_max: Count = 64 * 1024 * 1024
    """Bytes waiting in a node's publisher, counted as `publish_queue_entries_max` is."""
    append_bytes_max: Count = 1_048_576
    """Bytes of one request that appends to a Durable Stream, or of the HTTP API; a larger one is answered 413. What the
    published clients put into one; each of its messages is under `message_bytes_max`."""
    append_messages_max: int = Field(default=1_000, ge=1, le=1_024)
    """Messages of one request that appends to a Durable Stream, or of one of the HTTP API (`batch`, `broadcast`); with
    more it is answered 413. They go to the broker in one call, which holds it for some 15 ms."""
    append_queue_bytes_max: Count = 16 * 1024 * 1024
    """Bytes of all requests that append to Durable Streams and are not answered yet, each counted as
    `message_weight_bytes` at least; above it one more is answered 503. Sixteen of the largest. As many for the HTTP
    API."""
    appenders_max: Count = 10_000
    """Addresses whose rate is remembered at Durable Streams, where one address is what one connection is for sockets:
    `messages_per_s`, `messages_burst` and `message_weight_bytes` hold for it, above that it is answered 429. Who was
    silent longest is forgotten."""
    api_requests_max: Count = 128
    """Requests of the HTTP API under way at once on one node; one more is answered 503. Half of the connections that
    its port takes, so that probes and scrapes always find a place."""
    api_wrong_keys_per_minute: Count = 20
    """Wrong keys that one address may send to the HTTP API; above it wrong ones are answered 429. A right one always
    opens. Who deploys the wrong one tries a few times; a key has 256 bits, so that guessing is hopeless anyway."""
    admin_session_s: Seconds = 3_600.0
    """So long after a login the admin page asks for the key again. As long as a disturbance is looked after; a session
    is of one node, and ends with it, or when its key is revoked."""
    idempotency_s: Seconds = 300.0
    """So long the broker knows a request of the HTTP API that came with an Idempotency-Key, and its answer: sent again,
    it is not done again. Each costs the broker some 300 bytes. Longer than clients try again."""
    producer_ttl_s: Seconds = 86_400.0
    """So long after its last request the broker knows how far a producer of a Durable Stream is, and takes no message
    of it twice. Longer than anybody tries again; each costs the broker some 200 bytes."""
    allowed_origins: Annotated[tuple[Origin, ...], NoDecode, Comma] = ()
    """Origins, besides the request's own host, whose pages may open a WebSocket or read a stream:
    `https://chat.example.org` or `chat.example.org`; a port only where it is not the scheme's. A handshake
    without an Origin passes: it is no browser's."""
    trusted_proxies: Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode, Comma] = ()
    """Networks of proxies that are believed about their clients, address and scheme: `10.0.0.0/8, ::1`.
    Anyone else could forge it."""
    forwarded_only: bool = False
    """Trusted proxies are believed by X-Forwarded-For and X-Forwarded-Proto, and by Forwarded (RFC 7239) where a
    request has no X-Forwarded-For. Set this where they write Forwarded alone: else a client could send the
    other one."""


class People(Section):
    """Who comes in, and what they may do"""

    token_keys: Annotated[tuple[Annotated[str, AfterValidator(check_token_key)], ...], NoDecode, Comma] = Field(
        default=(), examples=["@/etc/hiroba/site.pem"]
    )
    """Keys that tokens (JWT) are held against; any of them may have signed one, so that keys can be exchanged:
    `HS256:SECRET` (32 bytes at least, no comma), `HS256:@FILE`, `@FILE` with a public key in PEM (RS256, ES256, EdDSA),
    a JWK or a JWK set, or the PEM itself. Files are read at start. Not a flag: all on a machine can read those."""
    token_jwks_url: Annotated[str, AfterValidator(check_http_url)] | None = Field(
        default=None, examples=["https://site.example.org/.well-known/jwks.json"]
    )
    """Where public keys are published as a JWK set, beside those of `token_keys`. Asked for when a token first comes,
    when one has an unknown `kid` (at most every 5 s), and every `token_jwks_cache_s`. No redirect is followed."""
    token_jwks_cache_s: Seconds = 600.0
    """Keys of `token_jwks_url` are asked for anew after so long: until then one that was withdrawn counts. While nobody
    answers there, those last known stay. PyJWT 300 s, Envoy 600 s."""
    token_jwks_timeout_s: Seconds = 5.0
    """Budget for the answer of `token_jwks_url`."""
    token_audience: str | None = Field(default=None, examples=["hiroba"])
    """What `aud` of a token must name. Unset, a token that is for somebody is refused (RFC 7519 §4.1.3)."""
    token_issuer: str | None = Field(default=None, examples=["https://site.example.org"])
    """What `iss` of a token must be. Unset, it may be anything."""
    token_leeway_s: SecondsOrZero = Field(default=10.0, le=300)
    """How far the clock of who makes tokens may be from ours: `exp` counts so much later, `nbf` and `iat` so much
    earlier. RFC 7519: a few minutes at most."""
    site_url: Annotated[str, AfterValidator(check_http_url)] | None = Field(
        default=None, examples=["https://site.example.org/hiroba/connect/"]
    )
    """The site that is asked who comes, by a GET with the browser's Cookie, Authorization, User-Agent and
    X-Forwarded-For. It answers `{"user": {"id", "name", "info"}, "rooms": {pattern: rights}, "expires_at"}`, 401 or
    403 (docs/security.md)."""
    site_timeout_s: Seconds = 5.0
    """Budget for the site's answer. gunicorn kills a worker after 30 s; nobody waits so long for a page."""
    site_cache_s: SecondsOrZero = 10.0
    """The site's word on a cookie counts for so long: so long can who signed out there still connect. 0 asks each
    time."""
    site_stale_s: SecondsOrZero = 900.0
    """While the site is away, its word on a cookie counts for so long: a quarter of an hour to bring it back."""
    site_requests_max: Count = 32
    """Requests of one node that the site answers at once; the next one waits, for `handshake_timeout_s` at most. A site
    that answers in 50 ms says of 640 people a second who they are; gunicorn has 2 to 4 workers a core."""
    site_known_bytes_max: Count = 32 * 1024 * 1024
    """Bytes of the site's answers that a node keeps; the oldest make space. Some 12,000 users."""
    login_url: Annotated[str, AfterValidator(check_login_url)] | None = Field(
        default=None, examples=["/accounts/login/?next={page}"]
    )
    """Where the page sends whom nobody knows, or whose login has ended: a path or a URL, in which `{page}` stands for
    the address of the page, percent-encoded. Unset, the page only says so."""
    site_publish_url: Annotated[str, AfterValidator(check_http_url)] | None = Field(
        default=None, examples=["http://10.0.0.7:8080/hiroba/publish/"]
    )
    """The site that is asked about what people say, before anybody hears it, by a POST of `{"room", "user",
    "message"}`. 200 or 204 lets it pass, 200 with `{"message": …}` says that instead, 403 with `{"reason": "…"}`
    refuses it (docs/security.md). Unset: nobody is asked."""
    site_publish_rooms: Annotated[tuple[str, ...], NoDecode, Comma, AfterValidator(_check_patterns)] = ("*",)
    """The rooms of which `site_publish_url` is asked: names, or patterns with `*`. Others pay nothing for it."""
    site_publish_timeout_s: Seconds = 2.0
    """Budget for that answer, and as long again for a turn among `site_publish_requests_max`: who speaks waits."""
    site_publish_away: Literal["refuse", "allow"] = "refuse"
    """What becomes of what is said while nobody answers there (no connection, no answer in time, 429, 502 to 504):
    `refuse` tells who said it to try again later, `allow` says it unasked."""
    site_publish_requests_max: Count = 32
    """Questions of one node that are under way at once; one sender has 4 of them at most. As `site_requests_max`."""
    site_publish_waiting_bytes_max: Count = 16 * 1024 * 1024
    """Bytes of messages of one node that wait for the site's word. What comes above that is treated as if the site were
    away. A quarter of what a publisher's queue may hold."""
    user_rights: Letters = ("*=rwp",)
    """What a user may do whose token says nothing of rooms: `*=r,team-*=rw`. r read, w write, p see who is here, m
    moderate; the longest pattern wins (docs/rights.md)."""
    guests: bool | None = Field(default=None, examples=[True])
    """Whether one may come in who says nothing of who they are. Unset: as long as no key and no site is
    set. Set beside a site, one is a guest whom the site does not know (401)."""
    guest_secret: Annotated[str, Field(min_length=32)] | None = Field(
        default=None, examples=["0123456789abcdef0123456789abcdef"]
    )
    """What the cookies are signed with that keep the names of guests: 32 characters at least, the same on all nodes.
    Unset, `hiroba up` makes one and keeps it in `data`, and `hiroba node` one that no other node knows. Not a flag."""
    guest_rights: Letters = ("*=rwp",)
    """What a guest may do, as in `user_rights`."""
    plain_users: bool = False
    """Tell clients of the wire `plain` who speaks: `{"message": …, "user": {"id", "name"}}`. Else they hear what the
    Channels tutorial's page hears, which has no user."""


class Road(Section):
    """The road of a message: publisher, reader, broker"""

    publish_timeout_s: Seconds = 10.0
    """A publish that the broker has not acknowledged by then is given up: close 1013 on plain, `error` on
    v1."""
    gather_s: SecondsOrZero = 0.004
    """After a publishing call, the next one waits until so long after it, after a read half as long: fewer
    and larger calls and writes under load. The first call of an idle node goes at once."""
    gather_max_s: SecondsOrZero = 0.02
    """What `gather_s` may grow to while the loop is busy."""
    linger_s: SecondsOrZero = 10.0
    """An empty room stays open for so long: a reload of the page costs the broker nothing."""
    presence_grace_s: Annotated[float, Field(ge=1, le=600, allow_inf_nan=False)] = 15.0
    """Who is gone for so long has left, for those who see who is in a room (`presence`): who reloads a page, or whose
    node went away, is back by then. A node says ten times in it who is there. Below 7, who lost the broker with their
    node may be told as gone before the node is back."""
    sweep_s: Seconds = 5.0
    """Once in this time every room is read whether its doorbell rang or not: the longest that a lost
    doorbell can delay a message."""
    probe_s: Seconds = 5.0
    """Five probe entries go through publisher and reader in this time, and each connection to the broker is
    asked as often whether it is there; no answer within it means a dead road: reconnect, and `/readyz`
    says no."""
    heartbeat_s: Seconds = 5.0
    """A node renews its place in the registry once in this time."""
    node_ttl_s: Seconds = 30.0
    """A node that was silent for so long is taken for dead and its groups are removed, by nodes whose own
    connection has stood for as long. Six heartbeats."""
    broker_timeout_s: Seconds = 5.0
    """Budget for connecting to the broker, and for one reply."""


class Reading(Section):
    """What a node keeps of a room, and how it catches sessions up"""

    tail_bytes_max: Count = 64 * 1024 * 1024
    """Bytes of all rooms' tails on one node, compressed frames included, and of what walks share, an eighth;
    the oldest go first and are read from the broker when needed."""
    tail_entries_max: Count = 1_000
    """Entries of one room's tail: slow readers and joiners are served from it without asking the broker."""
    history_max: int = Field(default=1_000, ge=0)
    """Largest `?history=N`; a larger one is answered 400."""
    pages_max: Count = 8
    """Stream pages that one node holds at once for sessions behind: a crowd that comes back together
    queues here, not at the broker. They come over one connection: more would only lie in the broker's
    memory."""
    stall_s: Seconds = 30.0
    """A session behind whose socket took nothing for so long is closed 4008; an event stream also, when its peer
    acknowledged nothing for so long (TCP_USER_TIMEOUT, Linux)."""


class Connections(Section):
    """The life of a connection"""

    handshake_timeout_s: Seconds = 10.0
    """A connection from which no whole request came by then, or that took nothing of an answer for so long,
    is cut off; a handshake that has no cursor by then (broker away, room slow to open) is answered 503.
    Daphne: 5 s."""
    ping_s: Seconds = 25.0
    """A connection that was quiet for so long is pinged, and closed when it stays silent for so long
    again; an event stream hears a comment as often.
    Below the 30 to 60 s after which proxies cut idle connections; Socket.IO and Centrifugo 25 s,
    websockets 20 s."""
    close_s: Seconds = 5.0
    """After our close frame, the socket is cut when the client has not closed by then."""
    drain_s: SecondsOrZero = 20.0
    """At SIGTERM the sessions are closed over so long, so that the other nodes do not get all handshakes
    at once."""
    lb_wait_s: SecondsOrZero = 5.0
    """Between `/readyz` turning false and the first close: the time a load balancer needs to see it. Not
    waited for at Ctrl-C."""


class Retention(Section):
    """What the broker keeps of a room"""

    retention_s: Seconds = RETENTION.seconds
    """Seconds that an entry can be resumed from or shown as history. A room's newest
    `retention_entries_min` entries are kept longer."""
    retention_entries_min: int = Field(default=RETENTION.entries_min, ge=0)
    """Newest entries of a room that age does not remove: what was said last is there on entering."""
    retention_bytes_min: int = Field(default=RETENTION.bytes_min, ge=0)
    """No more of these newest entries than so many bytes hold, the newest one always: a hundred of the
    largest messages are 6.4 MB, and 160 such rooms would fill a broker of 1 GB."""
    retention_entries_max: Count = RETENTION.entries_max
    """Entries of one room, however young: at 1,000 messages a second, 100 s."""
    retention_bytes_max: Count = RETENTION.bytes_max
    """Bytes of one room, however young: one loud room cannot fill the broker; many rooms can."""
    read_ttl_s: Seconds = 90 * 86_400.0
    """What a user has read is forgotten when he has read nothing for so long: 90 days; a guest's after `room_idle_s`,
    if that is shorter."""
    room_idle_s: Seconds = RETENTION.idle_s
    """A room that nobody has used for this long expires, with all that it still held: 7 days."""


class Logging(Section):
    """Log lines, on standard error"""

    log_format: Annotated[Literal["auto", "json", "console"], BeforeValidator(_lower)] = "auto"
    """`json`: one object per line; `console`: for people; `auto`: console when standard error is a
    terminal."""
    log_level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_lower)] = "info"
    """The lowest level that is written."""


SECTIONS: tuple[type[Section], ...] = (Serving, Limits, People, Road, Reading, Connections, Retention, Logging)


class Settings(Serving, Limits, People, Road, Reading, Connections, Retention, Logging):
    """The whole tree, frozen. `settings.model_copy(update={...})` for a variant."""

    @model_validator(mode="after")
    def _agree(self) -> Self:
        """Settings that contradict each other."""
        wrong = [text for holds, text in self._promises() if not holds]
        if wrong:
            raise ValueError("\n".join(wrong))
        return self

    def _promises(self) -> Iterator[tuple[bool, str]]:
        yield (
            self.takes_guests or self.knows_users,
            "guests is false, and no key and no site is set: nobody could come in",
        )
        last = self.ops_port + self.nodes - 1
        yield last <= 65_535, f"the last node's ops port would be {last}: lower ops_port or nodes"
        yield (
            self.port == 0 or self.port != self.ops_port,
            f"port and ops_port are both {self.port}: give one of them another number",
        )
        for low, high in _ORDERED:
            a, b = getattr(self, low), getattr(self, high)
            yield a <= b, f"{low} ({a:g}) must not be above {high} ({b:g})"
        for low, high in _TWICE:
            a, b = getattr(self, low), getattr(self, high)
            yield 2 * a <= b, f"{low} ({a:g}) must not be above half of {high} ({b:g})"

    @property
    def knows_users(self) -> bool:
        """Whether there is a way in for users."""
        return bool(self.token_keys) or self.token_jwks_url is not None or self.site_url is not None

    @property
    def takes_guests(self) -> bool:
        return not self.knows_users if self.guests is None else self.guests

    def require_distinct_ports(self) -> None:
        """For `hiroba up`: raises `SettingsError` where a node's ops port would be the public port."""
        last = self.ops_port + self.nodes - 1
        if self.ops_port and self.ops_port <= self.port <= last:
            raise SettingsError(
                f"port {self.port} lies among the ops ports of the {self.nodes} nodes, "
                f"{self.ops_port} to {last}: move port or ops_port"
            )

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        for name, value in super().__repr_args__():
            assert name is not None
            yield name, for_people(name, value) if name in SECRETS or isinstance(value, str) else value

    def to_environ(self) -> dict[str, str]:
        """Variables that give a child process exactly these settings: `{**os.environ,
        **settings.to_environ()}`.

        Every field is named, an unset one as an empty variable, and no file is read, so nothing that the
        parent inherited can shine through.
        """
        environ = {ENV_PREFIX + name.upper(): as_text(getattr(self, name)) for name in type(self).model_fields}
        return {**environ, ENV_PREFIX + "CONFIG": ""}


# The first of each pair must not be above the second.
_ORDERED = (
    ("gather_s", "gather_max_s"),
    ("gather_max_s", "probe_s"),  # a probe gathers too: no road could be proven
    ("gather_max_s", "publish_timeout_s"),
    ("retention_entries_min", "retention_entries_max"),
    ("retention_s", "room_idle_s"),
    ("message_bytes_max", "outgoing_bytes_max"),  # else one message puts every session behind
    ("message_bytes_max", "publish_queue_bytes_max"),
    ("append_bytes_max", "append_queue_bytes_max"),
    ("message_bytes_max", "retention_bytes_max"),
)
# What is renewed every so often must outlive one renewal that failed or came late.
_TWICE = (
    ("heartbeat_s", "node_ttl_s"),
    ("sweep_s", "room_idle_s"),
)


# No flags, and shown to nobody.
SECRETS = ("token_keys", "guest_secret", "api_key")


def for_people(name: str, value: object) -> str:
    """A value of the setting `name` for people: without what is secret in it."""
    if name in ("guest_secret", "api_key") and value is not None:
        return "***"
    return masked(as_text(value)).replace("\n", "\\n")


def as_text(value: object) -> str:
    """A value as a flag or variable has it; unset is empty. Passwords included: see `masked`."""
    if value is None:
        return ""
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)
