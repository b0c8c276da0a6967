#!/bin/sh
# usage: prometheus-start.sh SOURCE DIRECTORY NAME [FLAGS of prometheus]
# Prometheus on prometheus.yml of SOURCE, but what comes and goes is found by DNS: the nodes, for NAME has the addresses
# of all of them, however many there are, and a load test under its container's name while it runs. The file that
# Prometheus reads is written into DIRECTORY. CERTIFICATES: addresses whose ends are told, with spaces between, seen by the
# blackbox_exporter at BLACKBOX.
set -eu
source=$1 directory=$2 name=$3
shift 3

# by_dns JOB NAME PORT: that job's file of targets becomes a name. A name that is not there is no target, and no error.
by_dns() {
    dns="dns_sd_configs: [{names: [$2], type: A, port: $3, refresh_interval: 5s}]"
    sed "/^ *file_sd_configs:\$/{N;s|file_sd_configs:\n *- files: \[targets/$1\.yml\]|$dns|;}"
}

mkdir -p "$directory/targets"
ln -sfn "$source/rules" "$directory/rules"
ln -sf "$source"/targets/*.yml "$directory/targets/"
# No glob in an address is one.
set -f
{ echo '- targets:' && for address in ${CERTIFICATES:-}; do echo "    - '$address'"; done; } >"$directory/targets/certificates.yml"
set +f
# With its last dot the name is looked up as it is, and not below the engine's search domains too.
sed "s|127\.0\.0\.1:9115|${BLACKBOX:-127.0.0.1:9115}|" "$source/prometheus.yml" |
    by_dns gateway "$name" 9000 | by_dns loadtest loadtest. 9089 >"$directory/prometheus.yml"
if [ "$(grep -c dns_sd_configs "$directory/prometheus.yml")" != 2 ]; then
    echo "prometheus-start.sh: prometheus.yml names targets/gateway.yml or loadtest.yml in another way than this knows" >&2
    exit 2
fi
exec prometheus --config.file="$directory/prometheus.yml" "$@"
