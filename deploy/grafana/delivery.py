"""Delivery: how messages travel through the nodes, where they wait, who reads too slowly."""

from deploy.grafana.board import FULL, HALF, JOB, NODE, Board, graph, heat, mean, quantile, rate

LATENCY = "hiroba_delivery_latency_seconds"
DELIVERED = "hiroba_entries_delivered_total"
CPU = "hiroba_process_cpu_seconds_total"


def closes(reason: str) -> str:
    """As the alert counts them: all nodes of a job, five minutes."""
    return f'sum by (job) (rate(hiroba_closes_total{{{JOB}, reason="{reason}"}}[5m]))'


BOARD = Board(
    "delivery",
    "Delivery",
    "The road of a message through the nodes: latency, gathering, sessions that fall behind, and what it costs.",
    {
        "Latency": (
            heat(
                "Delivery latency",
                "Entries by how long they took from their id to the sockets. A second band is a second kind of road.",
                "s",
                f"sum by (le) (increase({LATENCY}_bucket{{{NODE}}}[$__rate_interval]))",
                FULL,
            ),
            graph(
                "Delivery latency by node",
                "p99 of five minutes. One node above the others is that node's trouble; all together, the broker's.",
                "s",
                (f"instance:{LATENCY}:p99_5m{{{NODE}}}", "{{instance}}"),
                alarm="HirobaDeliverySlow",
                width=HALF,
            ),
            graph(
                "Publish latency",
                "From a client's message to its id, the oldest of each call.",
                "s",
                (quantile(0.5, "hiroba_publish_latency_seconds"), "p50"),
                (quantile(0.99, "hiroba_publish_latency_seconds"), "p99"),
                width=HALF,
            ),
        ),
        "Gathering": (
            graph(
                "Entries per publish call",
                "How many messages go to the broker together, on average: more under load, one when idle.",
                "short",
                (mean("hiroba_publish_batch_entries"), "{{instance}}"),
            ),
            graph(
                "Entries per write",
                "How many entries are joined into one write to a room's sockets, on average.",
                "short",
                (mean("hiroba_deliver_batch_entries"), "{{instance}}"),
            ),
            graph(
                "Gather",
                "How long a publish may wait for company at present: gather_s when idle, up to gather_max_s when busy.",
                "s",
                (f"hiroba_gather_seconds{{{NODE}}}", "{{instance}}"),
            ),
        ),
        "Readers": (
            graph(
                "Live and behind",
                "Live sessions stand at the top of their room's log; those behind are walked towards it.",
                "short",
                (f"sum(hiroba_sessions_live{{{NODE}}})", "live"),
                (f"sum(hiroba_sessions_behind{{{NODE}}})", "behind"),
            ),
            graph(
                "Walks",
                "Sessions that began to be walked (history, resume, fallen behind), and pages read for them.",
                "cps",
                (rate("hiroba_walks_total", "job"), "walks {{job}}"),
                (rate("hiroba_sessions_fell_behind_total", "job"), "fell behind {{job}}"),
                (rate("hiroba_pages_read_total", "job"), "pages {{job}}"),
            ),
            graph(
                "Gaps",
                "Entries that were gone from a log before they were read, and gaps told to sessions. Should be 0.",
                "cps",
                (rate("hiroba_gaps_total", "job"), "found {{job}}"),
                (rate("hiroba_gaps_told_total", "job"), "told {{job}}"),
            ),
            graph(
                "Closed for slowness",
                "Sessions that read nothing for stall_s (4008).",
                "cps",
                (closes("slow"), "{{job}}"),
                alarm="HirobaClosedForSlowness",
            ),
            graph(
                "Closed for rate",
                "Clients that kept on far above messages_per_s for flood_s (1008).",
                "cps",
                (closes("rate"), "{{job}}"),
                alarm="HirobaClosedForRate",
            ),
            graph(
                "Tails",
                "Memory of the rooms' recent entries; tail_bytes_max bounds it per node.",
                "bytes",
                (f"hiroba_tails_bytes{{{NODE}}}", "{{instance}}"),
            ),
        ),
        "Cost": (
            graph(
                "Fan-out cost",
                "CPU of a node per entry written to a socket. Falls with load, as batches grow.",
                "s",
                (
                    f"{rate(CPU)} / {rate(DELIVERED)}",
                    "{{instance}}",
                ),
            ),
            graph(
                "Fan-out",
                "Sockets written to per entry published.",
                "short",
                (
                    f"{rate(DELIVERED, 'job')} / {rate('hiroba_entries_published_total', 'job')}",
                    "{{job}}",
                ),
            ),
            graph(
                "Clients that had to wait",
                "Sessions not read from because their window was full, or the node's publish queue.",
                "cps",
                (rate("hiroba_publish_window_full_total", "job"), "window {{job}}"),
                (rate("hiroba_publish_queue_full_total", "job"), "queue {{job}}"),
            ),
            graph(
                "Publish queue",
                "Messages without an answer from the broker yet.",
                "short",
                (f"hiroba_publish_queue_entries{{{NODE}}}", "{{instance}}"),
            ),
            graph(
                "Garbage collection",
                "Share of the time that a node stands still for Python's garbage collector.",
                "percentunit",
                (rate("hiroba_gc_pause_seconds_sum"), "{{instance}}"),
            ),
            graph(
                "Tasks",
                "What a node's loop has under way: one per client and some dozen of its own.",
                "short",
                (f"hiroba_tasks{{{NODE}}}", "{{instance}}"),
            ),
        ),
    },
)
