#!/bin/sh
# usage: gateway-start.sh [FLAGS of hiroba node]
# exec: SIGTERM must reach the node itself, and not a shell that does not pass it on.
set -eu
if [ $# = 0 ] && [ -z "${HIROBA_BROKER_URL:-}${HIROBA_CONFIG:-}" ]; then
    # The default, 127.0.0.1, is this container.
    echo "hiroba: HIROBA_BROKER_URL is not set: redis://gateway:PASSWORD@HOST:6379/0" >&2
    exit 2
fi
exec hiroba node "$@"
