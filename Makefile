# Everything a contributor types. `make` alone lists it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
ONCE ?=
PURE := tests/unit tests/protocol tests/contract
LAPTOP := tests/laptop $(patsubst %,tests/istio/steering/test_%.py,interception mirror ports robust target versions api_server_away)

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-fast test-laptop test-istio laptop-build mesh-build mesh-up check format chaos chaos-istio bench bench-istio lock schema manifests clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: $(READY) ## the virtual environment, from the hashed lock

$(READY): requirements-dev.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("hairpin needs Python 3.11 or newer; this is " + sys.version.split()[0] + ": make PYTHON=python3.11") if sys.version_info < (3, 11) else 0'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

demo: $(READY) ## a mesh on this machine and the story to follow; ONCE=1 runs the story unattended
	$(BIN)/hairpin demo $(if $(ONCE),--once)

test: $(READY) check ## every check and every test; those that take minutes of waiting run beside the others
	@$(BIN)/python -m tests.support.cluster.binaries || true
	@$(BIN)/python -m tests.laptop.builds || true
	@$(BIN)/pytest -m slow -n 2 $(PYTEST) > .slow-tests.log 2>&1 & slow=$$!; \
	$(BIN)/pytest $(PURE) -n auto $(PYTEST); pure=$$?; \
	$(BIN)/pytest $(PURE:%=--ignore=%) --ignore=tests/istio -n 2 --dist loadfile -m "not istio and not slow" $(PYTEST); rest=$$?; \
	$(BIN)/pytest tests/istio tests/laptop -m "istio and not slow" $(PYTEST); istio=$$?; \
	wait $$slow; slow=$$?; cat .slow-tests.log; \
	[ $$pure = 0 ] && [ $$rest = 0 ] && [ $$slow = 0 ] && [ $$istio = 0 ]

test-fast: $(READY) ## the pure tests alone: a minute
	$(BIN)/pytest tests/unit tests/protocol -n auto $(PYTEST)

test-laptop: $(READY) laptop-build mesh-build ## the laptop's side: programs of many languages and debuggers under `hairpin run`, also beside Istio (Node, Go, Java, Rust, musl-tools; root for the mesh)
	$(BIN)/pytest $(LAPTOP) $(PYTEST)

laptop-build: $(READY) ## those programs, at pinned versions: minutes once, cached in ~/.cache/hairpin
	$(BIN)/python -m tests.laptop.builds

test-istio: $(READY) mesh-build ## the tests against a real API server and a real Istio mesh (root, Go, Debian's etcd-server, iptables)
	$(BIN)/pytest tests/istio $(PYTEST)

mesh-build: $(READY) ## the mesh's programs, from Go modules: minutes once, cached in ~/.cache/hairpin
	$(BIN)/python -m tests.support.cluster.binaries

mesh-up: $(READY) mesh-build ## that mesh with a shop and hairpin in it, to try things by hand until Ctrl-C; ONCE=1 steers a request, and ends
	$(BIN)/python -m tests.support.cluster $(if $(ONCE),--once)

check: $(READY) ## format, lint, types and the direction of imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY) ## format, and mend what the linter can
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

chaos: $(READY) ## kill and freeze each part under load, and count what failed
	$(BIN)/python -m bench.chaos $(CHAOS)

chaos-istio: $(READY) mesh-build ## the same in a real Istio mesh
	$(BIN)/python -m bench.chaos_istio $(CHAOS)

bench: $(READY) ## latency, throughput, attach time and CPU, as ratios of one run (wrk: Debian's)
	$(BIN)/python -m bench $(BENCH)

bench-istio: $(READY) mesh-build ## the same in a real Istio mesh: also session starts, port-forward, delivery (root, Go, wrk)
	$(BIN)/python -m bench.istio $(BENCH)

lock: ## the hashed locks, from pyproject.toml (needs uv)
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header pyproject.toml -o requirements.txt
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --group dev pyproject.toml -o requirements-dev.txt

schema: $(READY) ## the JSON Schemas in docs/, from the model and the flags
	$(BIN)/python -m tests.support.schemas

manifests: $(READY) ## the folder manifests/, from hairpin/kubernetes
	$(BIN)/python -m hairpin.kubernetes.manifests manifests

clean: ## what was built here
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis dist
