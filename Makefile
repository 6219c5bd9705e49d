# The commands of this project. `make demo` and `make test` need nothing prepared but make and root.

# bcc belongs to the distribution's Python; another python3 may stand first in PATH.
SYSTEM_PYTHON ?= /usr/bin/python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := build/stamp
PHASE := scripts/phase

PROTO := $(sort $(shell find proto -name '*.proto'))
MULTIARCH := $(shell uname -m)-linux-gnu

# BCC compiles socket.bpf.c itself, when the agent starts.
BPF_SOURCES := $(filter-out bpf/socket.bpf.c,$(wildcard bpf/*.bpf.c))
BPF_OBJECTS := $(BPF_SOURCES:bpf/%.c=build/bpf/%.o)
BPF_CLANG ?= clang
BPF_CFLAGS := -target bpf -mcpu=v3 -g -O2 -Wall -Werror -Ibpf/include -idirafter /usr/include/$(MULTIARCH)

# Agents and test workers are started by the hundred: none shall compile Python that another has, whatever a machine's
# environment says (some say not to keep bytecode).
export PYTHONDONTWRITEBYTECODE :=

# Most of a test's time is waiting. One process: make test PARALLEL=
PARALLEL ?= -n auto --maxprocesses 4 --dist loadscope

# Python without a suffix has to be named.
LINTED := . $(shell grep -slE '^\#!.*python' scripts/* daemonset/*)

.PHONY: setup packages proto bpf check lint format types imports unit kernel preflight test demo test-matrix test-kube test-hubble test-helm image test-cluster test-cluster-daily kind test-vm bench fuzz lock test-bare clean
.DELETE_ON_ERROR:
.SUFFIXES:

setup: packages
	@$(MAKE) --no-print-directory prepared

# Separate from setup, so that files which apt-get brings are looked at after it has run.
.PHONY: prepared
prepared: $(STAMP)/project $(STAMP)/proto $(STAMP)/bcc-headers bpf
	@:

packages:
	@$(PHASE) "system packages" scripts/packages

$(STAMP)/venv: requirements/runtime.txt requirements/dev.txt | $(STAMP)
	@$(PHASE) "python environment" scripts/venv $(SYSTEM_PYTHON) $(VENV)
	@touch $@

$(STAMP)/project: pyproject.toml $(STAMP)/venv
	@$(PHASE) "nodewall itself" $(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --no-index --editable .
	@touch $@

$(STAMP)/proto: $(PROTO) $(STAMP)/venv scripts/proto
	@$(PHASE) "protobuf code" scripts/proto $(BIN)/python $(PROTO)
	@touch $@

$(STAMP)/bcc-headers: scripts/bcc-headers $(shell find bpf/bcc-include -type f) $(wildcard /usr/include/linux/version.h) | $(STAMP)
	@$(PHASE) "headers for bcc" scripts/bcc-headers build/bcc-headers
	@touch $@

$(STAMP) build/bpf:
	@mkdir -p $@

build/bpf/%.bpf.o: bpf/%.bpf.c Makefile | build/bpf
	@$(PHASE) "bpf $*" $(BPF_CLANG) $(BPF_CFLAGS) -MMD -MP -MF build/bpf/$*.d -c $< -o $@

-include $(wildcard build/bpf/*.d)

proto: $(STAMP)/proto
bpf: $(BPF_OBJECTS)

# One target each, so that `make -k check` shows every complaint.
check: lint format types imports unit

lint: setup
	@$(PHASE) "ruff check" $(BIN)/ruff check --quiet $(LINTED)

format: setup
	@$(PHASE) "ruff format" $(BIN)/ruff format --quiet --check $(LINTED)

types: setup
	@$(PHASE) "mypy" $(BIN)/mypy --no-error-summary

imports: setup
	@$(PHASE) "import directions" $(BIN)/lint-imports --no-cache

unit: setup
	@$(PHASE) "unit tests" $(BIN)/python -m pytest -q $(PARALLEL) -m "not root and not slow" $(PYTEST_ARGS)

preflight:
	@scripts/preflight

kernel: setup preflight
	@$(PHASE) --show "kernel and slow tests" scripts/tests $(BIN)/python -m pytest -q $(PARALLEL) -m "(root or slow) and not matrix" --durations=10 $(PYTEST_ARGS)

# Every test on every engine and topology: more than an hour.
test-matrix: setup preflight
	@$(PHASE) --show "every engine and topology" $(BIN)/python -m pytest -q $(PARALLEL) -m "root or slow" --durations=10 $(PYTEST_ARGS)

test: check kernel

demo: setup preflight
	@$(BIN)/agentctl lab demo $(ARGS)

# A real API server: built once, in minutes, where go is there (scripts/kube); after that `make test` has these too.
test-kube: setup
	@$(PHASE) "etcd and kube-apiserver" scripts/kube
	@$(PHASE) --show "tests with an API server" $(BIN)/python -m pytest -q -m kube tests/kube $(PYTEST_ARGS)

# Hubble's own command line against this agent: built once, in minutes, where go is (scripts/hubble).
test-hubble: setup
	@$(PHASE) "hubble command line" scripts/hubble
	@$(PHASE) --show "tests with the hubble command line" $(BIN)/python -m pytest -q tests/hubble $(PYTEST_ARGS)

# The chart by the real helm: built once, in minutes, where go is (scripts/helm); after that `make check` has these tests
# too, and `make test` those that install it with an API server.
test-helm: setup
	@$(PHASE) "helm" scripts/helm
	@$(PHASE) --show "tests with helm" $(BIN)/python -m pytest -q $(PARALLEL) tests/chart $(PYTEST_ARGS)

# The image, and the DaemonSet on three nodes in namespaces of this machine: buildah, containerd, and go the first time.
image:
	@$(PHASE) --show "image" scripts/cluster-image build/nodewall.tar

# COMBINATION=all is every way of networking, translating Services and enforcing, one after the other.
COMBINATION ?= ptp-iptables-nfbpf
test-cluster: setup image
	@for each in $(if $(filter all,$(COMBINATION)),$$($(BIN)/python -m tests.cluster.combinations),$(COMBINATION)); do \
		echo "$$each:"; \
		NODEWALL_TEST_CLUSTER=1 NODEWALL_CLUSTER_COMBINATION=$$each NODEWALL_IMAGE=$(CURDIR)/build/nodewall.tar \
			$(BIN)/python -m pytest -q -s -m cluster tests/cluster --durations=10 $(ARGS) || exit; \
	done

# Of these what takes some minutes, where nothing has to be built or fetched for it; else one line says what is missing.
test-cluster-daily: setup
	@scripts/cluster-daily $(BIN)/python $(ARGS)

# The same where kind and Docker are. Untried.
kind:
	docker build -f daemonset/Dockerfile -t nodewall:dev .
	kind create cluster --config daemonset/kind/cluster.yaml
	kind load docker-image nodewall:dev --name nodewall
	kubectl apply -k daemonset/kind
	kubectl -n kube-system rollout status daemonset/nodewall-agent

# On other kernels, emulated: minutes, and the first time a download (scripts/vm).
test-vm: setup
	@$(BIN)/python -m tests.vm $(ARGS)

# Hostile requests and names: a million rounds take some minutes; goes on where it stopped.
ROUNDS ?= 1000000
fuzz: setup
	@$(BIN)/python -m tests.fuzz --rounds $(ROUNDS) $(ARGS)

bench: setup preflight
	@$(BIN)/python -m tests.bench $(ARGS)

# Needs the network: resolves pyproject.toml's names anew for every supported Python and architecture.
lock: setup
	@$(PHASE) "requirements" $(BIN)/python scripts/lock

# The same on a tree with nothing installed: make test-bare DIST=trixie TARGET=check
DIST ?= bookworm
TARGET ?= test
test-bare:
	@scripts/test-bare $(DIST) $(TARGET)

clean:
	@rm -rf build agent/api .mypy_cache .ruff_cache .pytest_cache .hypothesis
