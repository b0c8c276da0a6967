#!/bin/sh
# usage: alertmanager-start.sh SOURCE FILE [FLAGS of alertmanager]
# Alertmanager on SOURCE; ALERT_WEBHOOK and WATCHDOG_WEBHOOK, where they are set, take the place of the addresses in it
# that end with /alerts and /watchdog. FILE is what it reads.
set -eu
source=$1 file=$2
shift 2
# | and & mean something to sed; & is in many addresses.
escaped() { printf %s "$1" | sed 's/[&|\\]/\\&/g'; }
alerts=$(escaped "${ALERT_WEBHOOK:-}") watchdog=$(escaped "${WATCHDOG_WEBHOOK:-}")
sed -e "${alerts:+s|url: .*/alerts\$|url: $alerts|}" -e "${watchdog:+s|url: .*/watchdog\$|url: $watchdog|}" \
  "$source" >"$file"
exec alertmanager --config.file="$file" "$@"
