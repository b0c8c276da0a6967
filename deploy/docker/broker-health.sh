#!/bin/sh
# Whether the broker answers the user `exporter`; not while it loads its data. The password is in the environment:
# an argument would be in the process list.
set -eu
cli=$(command -v valkey-cli || command -v redis-cli)
REDISCLI_AUTH=${BROKER_EXPORTER_PASSWORD:?} "$cli" -h 127.0.0.1 -p "${BROKER_PORT:-6379}" --user exporter ping | grep -qx PONG
