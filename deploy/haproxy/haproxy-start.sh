#!/bin/sh
# usage: haproxy-start.sh
# HAProxy on the files beside this script, with as many connections as the descriptor limit holds: it takes two for each
# and 200 for itself, and would not start at all with fewer.
set -eu
here=$(dirname "$0")
wanted=${LB_CONNECTIONS_MAX:-20000} limit=$(ulimit -Hn)
if [ "$limit" != unlimited ] && [ "$(((limit - 200) / 2))" -lt "$wanted" ]; then
    allowed=$(((limit - 200) / 2))
    echo "haproxy: the descriptor limit, $limit, is enough for $allowed connections and not for $wanted: raise nofile" >&2
    wanted=$allowed
fi
export LB_CONNECTIONS_MAX="$wanted"
exec haproxy -W -db -f "$here/haproxy.cfg" -f "$here/nodes-dns.cfg"
