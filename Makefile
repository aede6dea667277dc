# make demo    a cluster of three nodes on this machine, to look at
# make test    everything that is tested, linters first
#
# Both install what they need (Debian, Ubuntu). The others: build, unit, fuzz, e2e,
# lint, bench, install-deps, clean.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := build

BIN := bin
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
# cgo is for the race detector of tests only.
RACE := $(if $(shell command -v gcc),-race,)
E2E := ./test/e2e ./test/cluster

.PHONY: build
build:
	CGO_ENABLED=0 go build -trimpath -ldflags '-s -w -X main.release=$(VERSION)' -o $(BIN)/clsync ./cmd/clsync

.PHONY: install-deps
install-deps:
	tools/install-deps test

.PHONY: demo
demo:
	tools/install-deps demo
	$(MAKE) --no-print-directory build
	CGO_ENABLED=0 go build -trimpath -o $(BIN)/demo ./tools/demo
	exec $(BIN)/demo -clsync $(BIN)/clsync

.PHONY: test
test: install-deps build lint unit fuzz e2e

.PHONY: lint
lint:
	@out=$$(gofmt -l $$(git ls-files '*.go')); if [ -n "$$out" ]; then echo "gofmt would change:"; echo "$$out"; exit 1; fi
	go vet ./...
	go tool -modfile=tools/lint/go.mod staticcheck ./...

# The packages by themselves.
.PHONY: unit
unit:
	CGO_ENABLED=$(if $(RACE),1,0) go test $(RACE) -timeout 15m $$(go list ./... | grep -v -e /test/e2e -e /test/cluster)

# Every decoder and matcher, with new inputs beside the kept ones.
.PHONY: fuzz
fuzz:
	CGO_ENABLED=0 tools/fuzz

# Real daemons in namespaces. They are built by the tests, so results are never cached.
.PHONY: e2e
e2e:
	CGO_ENABLED=0 go test -count=1 -parallel $(or $(E2E_PARALLEL),4) -timeout 25m $(E2E)

.PHONY: bench
bench:
	tools/install-deps test
	CGO_ENABLED=0 go test -run '^$$' -bench . -benchtime 1x -timeout 30m ./test/bench

.PHONY: clean
clean:
	rm -rf $(BIN) dist
