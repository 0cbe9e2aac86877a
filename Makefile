# SPDX-License-Identifier: GPL-3.0-or-later
# The front door. Each target does the set-up that it needs.

PYTHON := $(firstword $(foreach p,python3 python3.13 python3.12 python3.11 /usr/bin/python3,$(shell $(p) -c '' 2>/dev/null && echo $(p))))
# A machine without any Python, which the program that sets everything else up needs.
GET_PYTHON = { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null || \
	{ echo "setup: Python 3.11 or newer with venv is missing; install it (Debian: apt-get install python3 python3-venv)"; exit 1; }; } && \
	apt-get update -qq && apt-get install -y -qq python3 python3-venv
CHECK := .venv/bin/python tests/tools/check.py
# Only a KUBECONFIG on make's own command line names a cluster to test on: one that is merely exported may be production.
ifeq ($(origin KUBECONFIG),command line)
export DELIVERY_KUBECONFIG := $(abspath $(KUBECONFIG))
endif
unexport KUBECONFIG

.PHONY: help setup demo test test-quick cluster cluster-down lint bench

help: ## Show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-14s %s\n", $$1, $$2}' Makefile
	@echo
	@echo "demo, test and bench take KUBECONFIG=path to use that cluster; without it they build and start a local one."

setup: ## Make .venv: pinned packages, kubernetes.core, and this collection where Ansible finds it
	@$(if $(PYTHON),$(PYTHON) tests/tools/setup.py,$(GET_PYTHON) && python3 tests/tools/setup.py)

demo: setup ## Release a real application on a real cluster, with traffic, and see bad versions taken back
	@.venv/bin/python tests/demo/demo.py

test: setup ## Run everything: lint, sanity, unit, and the tests on a real cluster
	@$(CHECK)

test-quick: setup ## Run what needs no cluster, for the daily loop
	@$(CHECK) lint-quick unit

cluster: setup ## Start the local Kubernetes; the last line names its KUBECONFIG
	@tests/cluster/cluster up

cluster-down: ## Take it down with all that it left, and the one with the routers
	@tests/cluster/cluster down
	@tests/cluster/cluster down routed

lint: setup ## Run the linters
	@$(CHECK) lint-quick lint

bench: setup ## Measure steps and releases against their peers, as ratios
	@.venv/bin/python tests/benchmarks/run.py
