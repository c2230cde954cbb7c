# Margay: `make demo` shows the guide working on this machine, `make test` proves it. Both need Go and root.
GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
COMMIT  ?= $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X main.version=$(VERSION) -X main.commit=$(COMMIT)
export CGO_ENABLED = 0

.PHONY: build demo test bench lint

build:                  ## one static binary: bin/margay
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/margay ./cmd/margay

demo: build             ## the guide, for real, on hosts made of network namespaces
	bin/margay demo

test:                   ## all tests; kernel tests make their own namespaces
	$(GO) test ./...

bench:                  ## speed: store to kernel, messages per change, evaluator, calculation
	$(GO) test -run '^$$' -bench . -benchtime 1s ./...

lint:                   ## gofmt, go vet, staticcheck (pinned in go.mod)
	@test -z "$$(gofmt -l .)" || { gofmt -l .; exit 1; }
	$(GO) vet ./...
	$(GO) tool staticcheck ./...
