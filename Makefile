# Everything one needs to run, test and check hiroba. `make` lists it.
# From a clean clone this wants Python >= 3.11, make and git; the rest is installed into .venv.

PY := .venv/bin/python
# More for pytest: make test PYTEST='-k resume -x'
PYTEST :=
# Where Python writes no bytecode (PYTHONDONTWRITEBYTECODE), each of a thousand nodes would compile us for a third of a
# second.
COMPILE := $(PY) -m compileall -q broker_config deploy gateway loadtest tests
BENCH :=
NODES := 2
STACK_PACKAGES := haproxy prometheus prometheus-alertmanager prometheus-redis-exporter \
    prometheus-blackbox-exporter redis-tools socat

.DEFAULT_GOAL := help
.PHONY: help run stack compose-test secrets test kubernetes test-long check lint bench profile clean packages

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /  make \1|/p' Makefile | awk -F'|' '{printf "%-18s %s\n", $$1, $$2}'

run: .venv/installed ## embedded broker and two nodes on http://127.0.0.1:8000/chat/
	@exec .venv/bin/hiroba up --nodes 2 --data data

# CERT=FILE: TLS too (docs/tls.md). CERTIFICATES='https://… rediss://…': whose end is told besides.
stack: .venv/installed secrets ## HAProxy, broker, nodes, Prometheus, Alertmanager on this machine: make stack NODES=4
	@CI=true sh .ci/packages $(STACK_PACKAGES)
	@exec $(PY) -m deploy.stack --nodes $(NODES) $(if $(CERT),--cert $(CERT)) --watch $(CERTIFICATES)

compose-test: .venv/installed secrets ## try all that docker-compose.yml promises (half an hour); says so where no engine is
	@$(PY) -m deploy.compose

secrets: .venv/installed ## random passwords for the broker's users in .env, once; their hashes in secrets/
	@$(PY) -m broker_config secrets

# Five at a time, a file at a time: most of a run is spent waiting for real processes (four would leave a third of two
# cores idle). More would make the budgets of tests, set on two cores, wait for each other. In the order of the
# directories: the unit tests, of which none waits, come last and leave no worker alone with a long file.
test: .venv/installed packages ## every test but the long ones
	@$(COMPILE)
	@$(PY) -m pytest -m 'not long' -n 5 --dist loadfile --no-loadscope-reorder $(PYTEST)

kubernetes: ## a Kubernetes control plane for test-long, built by Go of its modules (once; half an hour)
	@sh tests/deploy/kubernetes/build.sh

test-long: .venv/installed packages ## the long tests
	@$(COMPILE)
	@$(PY) -m pytest -m long --timeout 600 $(PYTEST)

check: lint ## format, lint, types, import contracts, unit tests
	@$(PY) -m pytest tests/unit $(PYTEST)

lint: .venv/installed ## format, lint, types, import contracts
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy
	.venv/bin/lint-imports

bench: .venv/installed packages ## how fast, as multiples of a C floor (some 30 minutes): make bench BENCH='--rows 1,3'
	@$(PY) -m bench --json bench.json $(BENCH)

profile: .venv/installed packages ## where a node's CPU and memory go (py-spy, tracemalloc; perf where there is one)
	@$(PY) -m bench.profile $(BENCH)

clean: ## remove what was installed and built; data/ stays, for it holds what was said
	rm -rf .venv build dist *.egg-info .*_cache .hypothesis tests/shots
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

packages:
	@sh .ci/packages redis-server chromium fonts-noto-cjk nginx strace systemd gcc libc6-dev zlib1g-dev esbuild node-typescript $(STACK_PACKAGES)

.venv/installed: pyproject.toml constraints.txt .venv/made
	@echo 'Installing hiroba and its tools into .venv (once; a minute or two) …'
	@$(PY) -m pip install --disable-pip-version-check -c constraints.txt -e '.[test,loadtest]'
	@touch $@

.venv/made: .ci/python
	@python=$$(sh .ci/python) && echo "Making .venv with $$python …" && "$$python" -m venv --clear .venv
	@touch $@
