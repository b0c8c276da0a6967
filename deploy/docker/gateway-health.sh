#!/bin/bash
# Whether the node's loop turns. Never whether its broker is there: a restart of the node would not bring it back.
# By bash alone, which opens sockets itself: a Python for each look takes a tenth of a second of CPU, and seconds to
# start where the machine is busy.
set -eu
exec 3<>"/dev/tcp/127.0.0.1/${HIROBA_OPS_PORT:-9000}"
printf 'GET /healthz HTTP/1.0\r\n\r\n' >&3
read -r -t 3 _ status _ <&3
[ "$status" = 200 ]
