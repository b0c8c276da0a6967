"""Every metric of a node: name, unit, labels, a sentence; here and nowhere else. Knows nobody who counts.

The hot road counts in plain integers, once per batch, on a `Metrics`; Prometheus' shapes are made at a scrape.
Metrics never label by room or user.
"""

import gc
import resource
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily
from prometheus_client.registry import Collector, CollectorRegistry

LATENCY_BUCKETS_S = (0.00025, 0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.125, 0.25, 0.5, 1, 2.5, 5, 10)
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)

Metric = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily | InfoMetricFamily


class Histogram:
    """Counts per bucket in plain integers; `weight` lets one look stand for a whole batch of equals."""

    __slots__ = ("_bounds", "_counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float, weight: int = 1) -> None:
        self._counts[bisect_left(self._bounds, value)] += weight
        self.sum += value * weight

    def family(self, name: str, text: str) -> HistogramMetricFamily:
        total, buckets = 0, []
        for bound, count in zip((*self._bounds, float("inf")), self._counts, strict=True):
            total += count
            buckets.append(("+Inf" if bound == float("inf") else str(float(bound)), total))
        family = HistogramMetricFamily(name, text)
        family.add_metric([], buckets, self.sum)
        return family


# Counters: attribute, metric (Prometheus appends _total), the sentence.
COUNTERS = (
    ("published", "hiroba_entries_published", "Entries that this node appended and that were acknowledged."),
    ("delivered", "hiroba_entries_delivered", "Entries written to sockets: one entry to 500 sessions counts 500."),
    ("delivered_bytes", "hiroba_delivered_bytes", "Bytes of message frames written to sockets."),
    ("received", "hiroba_messages_received", "Messages that clients sent, good or bad."),
    ("received_bytes", "hiroba_received_bytes", "Bytes of the messages that clients sent."),
    ("handshakes", "hiroba_handshakes", "WebSockets answered with 101, event streams with 200."),
    (
        "unspoken",
        "hiroba_handshakes_unspoken",
        "Handshakes answered with 101 that offered only subprotocols which nobody here speaks: browsers hang up then.",
    ),
    (
        "displaced",
        "hiroba_connections_displaced",
        "HTTP connections closed for a new one, for there was space for no more: those that idled longest.",
    ),
    (
        "stalled_visits",
        "hiroba_connections_silent",
        "Connections cut off because no whole request came, or no answer was taken, for handshake_timeout_s.",
    ),
    ("publish_calls", "hiroba_publish_calls", "Calls of the publish script: one carries a whole gather."),
    ("publish_retries", "hiroba_publish_retries", "Publish calls sent again after a lost connection."),
    (
        "publish_queue_full",
        "hiroba_publish_queue_full",
        "Times a connection had to wait for space in the publish queue.",
    ),
    (
        "window_full",
        "hiroba_publish_window_full",
        "Times a connection had to wait because its publish window was full.",
    ),
    ("slowed", "hiroba_frames_slowed", "Frames of clients that had to wait because of messages_per_s."),
    ("scripts_loaded", "hiroba_scripts_loaded", "Times the publish script had to be loaded: at start, after a flush."),
    ("doorbells", "hiroba_doorbells", "Doorbells heard: a room's log grew, what a user has read, or somebody types."),
    ("reads", "hiroba_reads", "XREADGROUP calls."),
    ("read_rooms", "hiroba_read_rooms", "Rooms named in XREADGROUP calls."),
    ("read_entries", "hiroba_read_entries", "Entries read from logs by this node's groups."),
    ("gaps", "hiroba_gaps", "Gaps found in logs while reading: entries gone before this node read them."),
    ("gaps_told", "hiroba_gaps_told", "Gaps told to sessions (v1: gap, plain: close 4009)."),
    ("groups_made", "hiroba_groups_made", "Consumer groups made on logs."),
    (
        "groups_healed",
        "hiroba_groups_healed",
        "Reads that failed because a log or group had vanished, and were mended.",
    ),
    ("groups_swept", "hiroba_groups_swept", "Groups of dead nodes removed."),
    ("trims_in_vain", "hiroba_trims_in_vain", "Trims that cut nothing of a log far above its bounds."),
    ("logs_rewound", "hiroba_logs_rewound", "Logs found without this node's last entry (failover, flush)."),
    ("broker_changes", "hiroba_broker_changes", "Times another server answered at the broker's address."),
    (
        "probe_timeouts",
        "hiroba_probe_timeouts",
        "Times a probe, or the answer of one connection to the broker, did not come in time: connected anew.",
    ),
    ("walks", "hiroba_walks", "Sessions that began to be walked: joined with history or after, or fell behind."),
    ("fell_behind", "hiroba_sessions_fell_behind", "Live sessions whose socket was too full to take a batch."),
    ("tops_told", "hiroba_tops_told", "Frames that told connections how far the rooms grew which they watch."),
    (
        "tops_put_off",
        "hiroba_tops_put_off",
        "Times a connection's socket was too full to be told how far rooms grew: it is told a second later.",
    ),
    ("tops_asked", "hiroba_tops_asked", "Logs asked for their newest id because somebody watches them."),
    ("markers_said", "hiroba_markers_said", "Read markers that clients said (read), and were allowed to."),
    (
        "markers_written",
        "hiroba_markers_written",
        "Read markers given to the broker: of one user and room the largest of a quarter of a second.",
    ),
    ("markers_asked", "hiroba_markers_asked", "Read markers that the broker was asked for."),
    ("markers_told", "hiroba_markers_told", "Frames that told another connection of a user up to where he has read."),
    (
        "markers_put_off",
        "hiroba_markers_put_off",
        "Times a connection's socket was too full to be told up to where its user has read: it is told a second later.",
    ),
    ("typing_said", "hiroba_typing_said", "Times clients said that their user types, and it was passed on."),
    ("typing_told", "hiroba_typing_told", "Frames that told connections who types in a room."),
    ("members_said", "hiroba_members_said", "Users whose coming or going in a room this node told the broker."),
    ("rolls_read", "hiroba_rolls_read", "Times this node read of a room all who are there, not only who came or went."),
    (
        "members_told",
        "hiroba_members_told",
        "Frames that told connections who came and went in a room, or how many are there.",
    ),
    ("lists_told", "hiroba_members_lists_told", "Lists of a room's members told to connections, each in pages."),
    (
        "members_put_off",
        "hiroba_members_put_off",
        "Times a connection's socket was too full to be told who came or went: it is told the whole list later.",
    ),
    ("pages", "hiroba_pages_read", "Pieces of logs read from the stream, for walks and for who pages back."),
    ("paged", "hiroba_pages_told", "Pages of older entries told to clients that asked for them (history)."),
    ("put_out", "hiroba_put_out", "Connections, and sessions in one room, that an order ended."),
    (
        "standing_read",
        "hiroba_standing_read",
        "Times this node read all orders that stand: at its start, and where the control log could not tell them.",
    ),
    (
        "orders_given_again",
        "hiroba_orders_given_again",
        "Orders (kicks, revocations) that the broker had lost, and this node knew and gave again.",
    ),
    ("deletions_heard", "hiroba_deletions_heard", "Words in the control log that messages were deleted."),
    ("deleted_told", "hiroba_deleted_told", "Frames that told sessions that messages are deleted which they had."),
    ("deletions_missed", "hiroba_deletions_missed", "Times all open logs were asked for what was deleted in them."),
    (
        "deleted_again",
        "hiroba_deleted_again",
        "Messages that were deleted, came back with a server that did not know it, and were deleted again.",
    ),
    ("stream_reads", "hiroba_stream_reads", "Reads of Durable Streams that were answered, in vain or not."),
    ("stream_appends", "hiroba_stream_appends", "Requests that appended to Durable Streams."),
    (
        "stream_repeats",
        "hiroba_stream_repeats",
        "Requests of producers of Durable Streams whose messages were in the log already: nothing was appended twice.",
    ),
    ("pings", "hiroba_pings_sent", "Pings sent to quiet connections."),
    ("gc_pauses", "hiroba_gc_pauses", "Garbage collections of this process."),
)

# Gauges: attribute, metric, the sentence. None is left out of the scrape: unknown is not 0.
GAUGES = (
    ("gather_s", "hiroba_gather_seconds", "How long a publish may wait for company at present."),
    ("lag_s", "hiroba_lag_seconds", "Age of what this node has not read yet, worst of the last sample of rooms."),
)

# The third is the label; two of them, and their values, stand with a space between.
LABELLED = (
    ("publishes_refused", "hiroba_publishes_refused", "reason", "Publishes that got no id: timeout, unknown, refused."),
    ("closes", "hiroba_closes", "reason", "Connections ended, by reason (docs/protocol.md)."),
    ("errors_told", "hiroba_errors_told", "code", "Errors told to v1 clients, whose connections stay, by code."),
    (
        "handshakes_refused",
        "hiroba_handshakes_refused",
        "reason",
        "WebSockets, event streams and requests at /streams/ refused, by reason.",
    ),
    ("orders", "hiroba_orders_heard", "kind", "Orders heard in the control log: kick, token, issued (revocations)."),
    (
        "site_answers",
        "hiroba_site_answers",
        "answer",
        "How the site's word on who comes was had: user, unknown (401), forbidden (403), failed; kept: it was asked "
        "lately; stale: it is away, and said it before.",
    ),
    (
        "site_publish_answers",
        "hiroba_site_publish_answers",
        "answer",
        "What became of messages about which the site (site_publish_url) was to be asked: allowed, replaced, refused, "
        "failed (no answer that can be used); away, full: it was not asked, and site_publish_away decided.",
    ),
    (
        "typing_dropped",
        "hiroba_typing_dropped",
        "reason",
        "What was said, heard or to be told of who types, and was dropped: often (said again too soon), crowd (above "
        "typing_users_max), broker (away, or whispers_max wait for it), slow (the listener's socket is full).",
    ),
    ("nonsense", "hiroba_broker_nonsense", "what", "Things heard from the broker that nobody of ours wrote, by kind."),
    (
        "requests_refused",
        "hiroba_requests_refused",
        "reason",
        "What came on a port and was no HTTP request: head (431, above head_bytes_max), malformed (400).",
    ),
    ("broker_reconnects", "hiroba_broker_reconnects", "lane", "Broken or failed connections to the broker, by lane."),
    ("api_requests", "hiroba_api_requests", "operation status", "Requests of the HTTP API, by operation and status."),
)

# Gauges with a label: attribute, metric, label, the sentence.
LABELLED_GAUGES = (
    (
        "connections",
        "hiroba_wire_connections",
        "wire",
        "Connections whose handshake is over, by wire: plain, v1, sse, durable, poll (long polls).",
    ),
)

HISTOGRAMS = (
    ("publish_latency", "hiroba_publish_latency_seconds", "From a client's message to its id, oldest of each call.",
     LATENCY_BUCKETS_S),
    ("delivery_latency", "hiroba_delivery_latency_seconds",
     "From an entry's id (broker's clock, offset corrected) to its write to live sockets, per entry.",
     LATENCY_BUCKETS_S),
    ("publish_batch", "hiroba_publish_batch_entries", "Entries in one publish call.", BATCH_BUCKETS),
    ("deliver_batch", "hiroba_deliver_batch_entries", "Entries joined into one write to a room's sockets.",
     BATCH_BUCKETS),
    ("loop_lag", "hiroba_event_loop_lag_seconds", "How late the event loop came to a timer.", LATENCY_BUCKETS_S),
    ("gc_pause", "hiroba_gc_pause_seconds", "Length of garbage collections.", LATENCY_BUCKETS_S),
)  # fmt: skip


class Metrics:
    """What this node counts. Whoever does the work adds; nobody here decides anything."""

    published: int
    delivered: int
    delivered_bytes: int
    received: int
    received_bytes: int
    handshakes: int
    unspoken: int
    displaced: int
    stalled_visits: int
    publish_calls: int
    publish_retries: int
    publish_queue_full: int
    window_full: int
    slowed: int
    scripts_loaded: int
    doorbells: int
    reads: int
    read_rooms: int
    read_entries: int
    gaps: int
    gaps_told: int
    groups_made: int
    groups_healed: int
    groups_swept: int
    trims_in_vain: int
    logs_rewound: int
    broker_changes: int
    probe_timeouts: int
    walks: int
    fell_behind: int
    tops_told: int
    tops_put_off: int
    tops_asked: int
    markers_said: int
    markers_written: int
    markers_asked: int
    markers_told: int
    markers_put_off: int
    typing_said: int
    typing_told: int
    members_said: int
    rolls_read: int
    members_told: int
    lists_told: int
    members_put_off: int
    pages: int
    paged: int
    put_out: int
    standing_read: int
    orders_given_again: int
    deletions_heard: int
    deleted_told: int
    deletions_missed: int
    deleted_again: int
    stream_reads: int
    stream_appends: int
    stream_repeats: int
    pings: int
    gc_pauses: int
    gather_s: float | None
    lag_s: float | None
    publishes_refused: Counter[str]
    closes: Counter[str]
    errors_told: Counter[str]
    connections: Counter[str]
    handshakes_refused: Counter[str]
    requests_refused: Counter[str]
    broker_reconnects: Counter[str]
    orders: Counter[str]
    typing_dropped: Counter[str]
    nonsense: Counter[str]
    site_answers: Counter[str]
    site_publish_answers: Counter[str]
    api_requests: Counter[str]
    publish_latency: Histogram
    delivery_latency: Histogram
    publish_batch: Histogram
    deliver_batch: Histogram
    loop_lag: Histogram
    gc_pause: Histogram

    def __init__(self) -> None:
        for attribute, _, _ in COUNTERS:
            setattr(self, attribute, 0)
        for attribute, _, _ in GAUGES:
            setattr(self, attribute, None)
        for attribute, _, _, _ in (*LABELLED, *LABELLED_GAUGES):
            setattr(self, attribute, Counter())
        for attribute, _, _, bounds in HISTOGRAMS:
            setattr(self, attribute, Histogram(bounds))
        # Unix time: a newer one at the same address is a restart.
        self.started_at = time.time()
        self._gc_started_at = 0.0

    def known(self, attribute: str, reasons: Iterable[str]) -> None:
        """Show these values of a labelled counter from the start: a first 1 out of nothing is no increase."""
        getattr(self, attribute).update(dict.fromkeys(reasons, 0))

    def watch_gc(self) -> None:
        """Measure every collection (gc.callbacks)."""
        gc.callbacks.append(self._on_gc)

    def _on_gc(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._gc_started_at = time.perf_counter()
        else:
            self.gc_pauses += 1
            self.gc_pause.observe(time.perf_counter() - self._gc_started_at)


# A gauge read at a scrape: name, sentence, where its value is; None is left out.
Reading = tuple[str, str, Callable[[], float | None]]


class NodeCollector(Collector):
    """A node's /metrics, made at each scrape from its counts and a few readings."""

    def __init__(self, metrics: Metrics, readings: Iterable[Reading], build: dict[str, str]) -> None:
        self._metrics = metrics
        self._readings = tuple(readings)
        self._build = build

    def collect(self) -> Iterator[Metric]:
        for attribute, name, text in COUNTERS:
            yield CounterMetricFamily(name, text, value=getattr(self._metrics, attribute))
        for attribute, name, label, text in LABELLED:
            labels = label.split()
            family = CounterMetricFamily(name, text, labels=labels)
            for value, count in getattr(self._metrics, attribute).items():
                family.add_metric(value.split() if len(labels) > 1 else [value], count)
            yield family
        for attribute, name, text, _ in HISTOGRAMS:
            yield getattr(self._metrics, attribute).family(name, text)
        yield from self._gauges()
        yield InfoMetricFamily("hiroba_build", "Versions of what runs.", value=self._build)

    def _gauges(self) -> Iterator[Metric]:
        for attribute, name, label, text in LABELLED_GAUGES:
            family = GaugeMetricFamily(name, text, labels=[label])
            for value, count in getattr(self._metrics, attribute).items():
                family.add_metric([value], count)
            yield family
        counted: list[Reading] = [
            (name, text, lambda attribute=attribute: getattr(self._metrics, attribute))  # type: ignore[misc]
            for attribute, name, text in GAUGES
        ]
        for name, text, read in (*counted, *self._readings):
            value = read()
            if value is not None:
                yield GaugeMetricFamily(name, text, value=value)
        usage = resource.getrusage(resource.RUSAGE_SELF)
        yield CounterMetricFamily(
            "hiroba_process_cpu_seconds", "CPU time of this node.", value=usage.ru_utime + usage.ru_stime
        )
        yield GaugeMetricFamily(
            "hiroba_process_start_time_seconds", "When this node started, Unix time.", value=self._metrics.started_at
        )
        yield GaugeMetricFamily("hiroba_process_resident_bytes", "Memory of this node (RSS).", value=_resident_bytes())
        yield GaugeMetricFamily(
            "hiroba_process_open_descriptors", "Open file descriptors.", value=sum(1 for _ in Path("/dev/fd").iterdir())
        )


def _resident_bytes() -> int:
    try:
        return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * resource.getpagesize()
    except OSError:  # no /proc (macOS): the peak is the best that is known
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def registry(metrics: Metrics, readings: Iterable[Reading], build: dict[str, str]) -> CollectorRegistry:
    """What the ops port serves."""
    registry = CollectorRegistry()
    registry.register(NodeCollector(metrics, readings, build))
    return registry
