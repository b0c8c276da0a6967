#!/bin/sh
# usage: broker-start.sh [DIRECTIVES, as --port 6380]
# The broker of a container: Valkey or Redis, whichever the image has, on broker_config/valkey.conf and the users that
# `make secrets` made. Only where it listens and where it keeps its data differ from the file.
set -eu
conf=${BROKER_CONF:-/etc/hiroba/valkey.conf} acl=${BROKER_ACL:-/etc/hiroba/users.acl} data=${BROKER_DATA:-/data}

# Without users the server would start, and every stranger would be its administrator.
if [ ! -f "$acl" ] || ! grep -q '^user gateway ' "$acl"; then
    echo "broker: no users in $acl: run \`make secrets\` first" >&2
    exit 2
fi
server=$(command -v valkey-server || command -v redis-server) || {
    echo "broker: neither valkey-server nor redis-server is in this image" >&2
    exit 2
}
# What was said is nobody else's to read, in the volume as little as on a machine (broker_config/home.py).
umask 077
exec "$server" "$conf" --bind '*' '-::*' --dir "$data" --aclfile "$acl" "$@"
