"""Load test: the harness' series beside the server's, on one clock."""

from deploy.grafana.board import JOB, NODE, Board, graph, number, rate

RUN = 'instance=~"$run"'

BOARD = Board(
    "loadtest",
    "Load test",
    "A run of `hiroba loadtest` while it lasts: what it asked for, what it measured, what that cost the nodes.",
    {
        "Run": (
            number("Users", "Connected now.", "short", f"sum(hiroba_loadtest_users{{{RUN}}})"),
            number(
                "Generator's CPU",
                "Of its busiest worker, as a share of a core. Near 100 % the generator is the limit, not the server.",
                "percentunit",
                f"max(hiroba_loadtest_cpu_share{{{RUN}}})",
            ),
            number(
                "Generator's lag",
                "p99 of the last second. It is part of every latency that the run measures.",
                "s",
                f"max(hiroba_loadtest_lag_seconds{{{RUN}}})",
            ),
            number(
                "Suspects",
                "Deliveries that were not simply the room's next; the report says whether they were violations.",
                "short",
                f"sum(hiroba_loadtest_suspects{{{RUN}}})",
            ),
        ),
        "Asked and measured": (
            graph(
                "Users",
                "Connected, and planned by the shape: apart means that the server, or the generator, did not keep up.",
                "short",
                (f"sum(hiroba_loadtest_users{{{RUN}}})", "connected"),
                (f"sum(hiroba_loadtest_users_planned{{{RUN}}})", "planned"),
                (f"sum(hiroba_connections{{{NODE}}})", "on the nodes"),
            ),
            graph(
                "Messages",
                "Sent by the harness, and published by the nodes.",
                "cps",
                (f"sum(rate(hiroba_loadtest_sent_total{{{RUN}}}[$__rate_interval]))", "sent"),
                (f"sum(rate(hiroba_entries_published_total{{{NODE}}}[$__rate_interval]))", "published"),
            ),
            graph(
                "Deliveries",
                "Received and compared by the harness, and written by the nodes.",
                "cps",
                (f"sum(rate(hiroba_loadtest_delivered_total{{{RUN}}}[$__rate_interval]))", "received"),
                (f"sum(rate(hiroba_entries_delivered_total{{{NODE}}}[$__rate_interval]))", "written"),
            ),
            graph(
                "Latency",
                "The harness': from the intended time to the receiver, of the last second. The nodes': p99 of five "
                "minutes, from id to write.",
                "s",
                (f"max by (quantile) (hiroba_loadtest_latency_seconds{{{RUN}}})", "harness {{quantile}}"),
                (f"job:hiroba_delivery_latency_seconds:p99_5m{{{JOB}}}", "nodes p99 {{job}}"),
                alarm="HirobaDeliverySlow",
            ),
            graph(
                "Generator",
                "Its CPU and its event-loop lag, in shares of a core and of a second: whether the run can be believed.",
                "percentunit",
                (f"max(hiroba_loadtest_cpu_share{{{RUN}}})", "CPU"),
                (f"max(hiroba_loadtest_lag_seconds{{{RUN}}})", "lag"),
            ),
            graph(
                "Suspects",
                "Deliveries of the last second that were not simply the room's next.",
                "short",
                (f"sum(hiroba_loadtest_suspects{{{RUN}}})", "suspects"),
            ),
        ),
        "What it costs": (
            graph("CPU of nodes", "Of one core each.", "percentunit",
                  (rate("hiroba_process_cpu_seconds_total"), "{{instance}}")),
            graph("CPU per delivery", "Of all nodes together, per entry written to a socket.", "s",
                  (f"{rate('hiroba_process_cpu_seconds_total', 'job')} / "
                   f"{rate('hiroba_entries_delivered_total', 'job')}", "{{job}}")),
            graph("Memory per connection", "Resident memory of all nodes, the idle process included.", "bytes",
                  (f"sum(hiroba_process_resident_bytes{{{NODE}}}) / (sum(hiroba_connections{{{NODE}}}) > 0)", "all")),
            graph("Sessions behind", "Walked towards the top of their log: readers slower than their room.", "short",
                  (f"hiroba_sessions_behind{{{NODE}}}", "{{instance}}")),
            graph("Closes", "Connections that the nodes ended, by reason.", "cps",
                  (rate("hiroba_closes_total", "reason"), "{{reason}}")),
            graph("Event-loop lag", "Of the nodes, p99 of five minutes.", "s",
                  (f"instance:hiroba_event_loop_lag_seconds:p99_5m{{{NODE}}}", "{{instance}}"),
                  alarm="HirobaEventLoopLag"),
        ),
    },
    variables=(("run", "Run", "label_values(hiroba_loadtest_users, instance)"),),
)  # fmt: skip
