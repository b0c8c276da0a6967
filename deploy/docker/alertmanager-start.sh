#!/bin/sh
# usage: alertmanager-start.sh SOURCE FILE [FLAGS of alertmanager]
# Alertmanager on SOURCE; ALERT_WEBHOOK, if it is set, takes the place of the address in it. FILE is what it reads.
set -eu
source=$1 file=$2
shift 2
# | and & mean something to sed; & is in many addresses.
webhook=$(printf %s "${ALERT_WEBHOOK:-}" | sed 's/[&|\\]/\\&/g')
sed "${webhook:+s|url: .*|url: $webhook|}" "$source" >"$file"
exec alertmanager --config.file="$file" "$@"
