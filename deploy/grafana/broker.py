"""Broker: the logs, how far the nodes' groups are behind them, and the server that holds them."""

from deploy.grafana.board import HALF, NODE, Board, graph, number, rate

BROKER = 'instance=~"$broker"'


def of_broker(metric: str, by: str = "instance") -> str:
    return rate(metric, by, BROKER)


BOARD = Board(
    "broker",
    "Broker",
    "Redis or Valkey: logs, groups' lag, memory, commands, persistence and replication; and the nodes' road to it.",
    {
        "Now": (
            number("Answers", "Servers that answer their exporter.", "short", f"sum(redis_up{{{BROKER}}})"),
            number(
                "Memory used",
                "Of maxmemory, or of the machine where there is none. At 100 % every publish is refused.",
                "percentunit",
                f"max(instance:redis_memory_used:ratio{{{BROKER}}})",
                "HirobaBrokerMemory",
            ),
            number(
                "Nodes registered",
                "Length of hiroba:nodes: every node that lives, and one that died until node_ttl_s is over.",
                "short",
                f'max(redis_key_size{{{BROKER}, key="hiroba:nodes"}})',
            ),
            number("Logs and keys", "Keys of all databases: a log per room that was spoken in, some of ours.", "short",
                   f"sum(redis_db_keys{{{BROKER}}})"),
            number("Clients", "Connections to the server. A node has three lanes and up to eight more.", "short",
                   f"sum(redis_connected_clients{{{BROKER}}})"),
            number(
                "Oldest proof",
                "The oldest proof of any node that what it publishes comes back to it.",
                "s",
                f"max(hiroba_probe_age_seconds{{{NODE}}})",
                "HirobaNodeDeaf",
            ),
        ),
        "Nodes' road": (
            graph(
                "Lag of groups",
                "Age of what a node has not read yet, worst of its last sample of rooms.",
                "s",
                (f"hiroba_lag_seconds{{{NODE}}}", "{{instance}}"),
                alarm="HirobaLagGrowing",
            ),
            graph(
                "Probe age",
                "Since a node's own entry came back to it by the whole road. A healthy connection proves nothing.",
                "s",
                (f"hiroba_probe_age_seconds{{{NODE}}}", "{{instance}}"),
                alarm="HirobaNodeDeaf",
            ),
            graph(
                "Lost connections",
                "Broken or failed connections to the broker by lane, and probes that did not come back.",
                "cps",
                (rate("hiroba_broker_reconnects_total", "lane"), "{{lane}}"),
                (rate("hiroba_probe_timeouts_total", "job"), "probe {{job}}"),
            ),
            graph(
                "Doorbells and reads",
                "Rooms whose log grew, and XREADGROUP calls: under load one call reads many rooms.",
                "cps",
                (rate("hiroba_doorbells_total", "job"), "doorbells {{job}}"),
                (rate("hiroba_reads_total", "job"), "reads {{job}}"),
                (rate("hiroba_read_rooms_total", "job"), "rooms read {{job}}"),
            ),
            graph(
                "Groups",
                "Made: rooms opened. Healed: a log or group had vanished. Swept: of dead nodes.",
                "cps",
                (rate("hiroba_groups_made_total", "job"), "made {{job}}"),
                (rate("hiroba_groups_healed_total", "job"), "healed {{job}}"),
                (rate("hiroba_groups_swept_total", "job"), "swept {{job}}"),
            ),
            graph(
                "Changes of server",
                "Another server at the broker's address (failover, restart), and logs found without their last entry.",
                "short",
                (f"sum by (instance) (increase(hiroba_broker_changes_total{{{NODE}}}[$__rate_interval]))",
                 "server {{instance}}"),
                (f"sum by (instance) (increase(hiroba_logs_rewound_total{{{NODE}}}[$__rate_interval]))",
                 "logs rewound {{instance}}"),
            ),
        ),
        "Server": (
            graph(
                "Memory",
                "Used, and the limit at which publishes are refused.",
                "bytes",
                (f"redis_memory_used_bytes{{{BROKER}}}", "used {{instance}}"),
                (f"redis_memory_max_bytes{{{BROKER}}}", "maxmemory {{instance}}"),
            ),
            graph("Logs and keys", "Keys by database.", "short",
                  (f"redis_db_keys{{{BROKER}}} > 0", "{{instance}} {{db}}")),
            graph(
                "CPU",
                "Of one core: commands are served by one thread.",
                "percentunit",
                (f"{of_broker('redis_cpu_user_seconds_total')} + {of_broker('redis_cpu_sys_seconds_total')}",
                 "{{instance}}"),
            ),
            graph(
                "Commands",
                "By command. evalsha is publishing, xreadgroup is reading, xrevrange and xinfo are the sweep.",
                "cps",
                (of_broker("redis_commands_total", "cmd"), "{{cmd}}"),
            ),
            graph(
                "Time per command",
                "In the server, without the way to it.",
                "s",
                (f"{of_broker('redis_commands_duration_seconds_total', 'cmd')} / "
                 f"{of_broker('redis_commands_total', 'cmd')}", "{{cmd}}"),
            ),
            graph(
                "Network",
                "Bytes in and out of the server.",
                "Bps",
                (of_broker("redis_net_input_bytes_total"), "in {{instance}}"),
                (of_broker("redis_net_output_bytes_total"), "out {{instance}}"),
            ),
        ),
        "Safety": (
            graph(
                "Writes to disk",
                "1: the last one worked. Append-only file, its rewriting, snapshot. Alarm: HirobaBrokerPersistence.",
                "short",
                (f"redis_aof_last_write_status{{{BROKER}}}", "append {{instance}}"),
                (f"redis_aof_last_bgrewrite_status{{{BROKER}}}", "rewrite {{instance}}"),
                (f"redis_rdb_last_bgsave_status{{{BROKER}}}", "snapshot {{instance}}"),
                width=HALF,
            ),
            graph(
                "Replicas",
                "Connected to each server. Fewer than an hour ago: alarm HirobaBrokerReplication.",
                "short",
                (f"redis_connected_slaves{{{BROKER}}}", "{{instance}}"),
                width=HALF,
            ),
            graph(
                "Expired and evicted",
                "Keys a second. Expired: rooms idle for room_idle_s, and our own. Evicted must be 0: it would be logs.",
                "cps",
                (of_broker("redis_expired_keys_total"), "expired {{instance}}"),
                (of_broker("redis_evicted_keys_total"), "evicted {{instance}}"),
                width=HALF,
            ),
            graph(
                "Replication offset",
                "Bytes of the replication stream; a replica that stays below its master would lose the difference.",
                "bytes",
                (f"redis_master_repl_offset{{{BROKER}}}", "{{instance}}"),
                width=HALF,
            ),
        ),
    },
    variables=(("broker", "Broker", "label_values(redis_up, instance)"),),
)  # fmt: skip
