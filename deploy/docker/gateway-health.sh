#!/bin/sh
# Whether the node's loop turns. Never whether its broker is there: a restart of the node would not bring it back.
set -eu
exec python3 -c 'import sys, urllib.request; urllib.request.urlopen(sys.argv[1], timeout=2)' \
    "http://127.0.0.1:${HIROBA_OPS_PORT:-9000}/healthz"
