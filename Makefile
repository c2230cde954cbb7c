# Margay: `make demo` shows the guide working on this machine, `make test` proves it. Both need Go and root.
GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
COMMIT  ?= $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X main.version=$(VERSION) -X main.commit=$(COMMIT)
export CGO_ENABLED = 0

FUZZ_TIME ?= 10m

.PHONY: build image demo test bench lint fuzz-kernel mutants

build:                  ## one static binary: bin/margay
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/margay ./cmd/margay

image: build            ## container image from scratch, without a container engine: bin/margay-image.tar
	$(GO) run ./install/image -binary bin/margay -name margay:$(VERSION) -o bin/margay-image.tar

demo: build             ## the guide, for real, on hosts made of network namespaces
	bin/margay demo

test:                   ## all tests; kernel tests make their own namespaces
	$(GO) test ./...

bench:                  ## speed: store to kernel, messages per change, evaluator, calculation
	$(GO) test -run '^$$' -bench . -benchtime 1s ./...

fuzz-kernel:            ## random programs and packets, evaluator against kernel, for FUZZ_TIME
	MARGAY_FUZZ_TIME=$(FUZZ_TIME) $(GO) test -run '^TestVerdictsAreEvalsForLong$$' -v -count 1 -timeout 0 ./dataplane/nft

mutants:                ## break the compiler on purpose: every fault must be caught
	MARGAY_MUTANTS=1 $(GO) test -run '^TestMutants$$' -v -count 1 -timeout 0 -parallel 2 ./dataplane/nft

lint:                   ## gofmt, go vet, staticcheck (pinned in go.mod)
	@test -z "$$(gofmt -l .)" || { gofmt -l .; exit 1; }
	$(GO) vet ./...
	$(GO) tool staticcheck ./...

.PHONY: test-kubernetes bench-kubernetes demo-kubernetes

# The API server of Kubernetes, built from its Go module; about ten minutes the first time.
KUBE_VERSION = $(shell sed -n 's|^\tk8s.io/kubernetes \(v[0-9.]*\).*|\1|p; s|^require k8s.io/kubernetes \(v[0-9.]*\).*|\1|p' test/kubernetes/apiserver/go.mod)
KUBE_LDFLAGS = -s -w -X k8s.io/component-base/version.gitVersion=$(KUBE_VERSION)
KUBE_TEST    = KUBE_APISERVER=$(CURDIR)/bin/kube-apiserver $(GO) test -C test/kubernetes -count 1 -timeout 60m

bin/kube-apiserver: test/kubernetes/apiserver/go.mod test/kubernetes/apiserver/go.sum
	$(GO) build -C test/kubernetes/apiserver -trimpath -ldflags '$(KUBE_LDFLAGS)' -o $(CURDIR)/$@ k8s.io/kubernetes/cmd/kube-apiserver

test-kubernetes: bin/kube-apiserver  ## the Kubernetes datastore, and agents on it, against a real API server
	$(KUBE_TEST) ./...

bench-kubernetes: bin/kube-apiserver ## from the API server's answer to the kernel
	$(KUBE_TEST) -run '^$$' -bench . -benchtime 100x .

demo-kubernetes: build bin/kube-apiserver ## the rest of the guide: pods' labels, typha and kube-controllers
	KUBE_APISERVER=$(CURDIR)/bin/kube-apiserver $(GO) run -C test/kubernetes ./demo -root $(CURDIR) -margay $(CURDIR)/bin/margay

.PHONY: test-kernel

# Tests on another kernel, in a virtual machine (qemu-system-x86). It is the one of Debian's package KERNEL_PACKAGE, which is downloaded
# once and not installed, or VMLINUZ with the directory of its modules, MODULES.
KERNEL_PACKAGE ?= $(shell apt-cache depends linux-image-cloud-amd64 | sed -n 's/^ *Depends: *//p')
KERNEL_TESTS   ?= ./node/links ./node/pods ./lab ./dataplane/nft ./test/kernel/ipvs
KERNEL_FLAGS   ?=
# Random tests that ask no kernel: emulated, they would take most of the time.
KERNEL_PURE     = TestImageFollows TestFewRulesFollow TestSharedChainsFollow TestNoLookUpMeetsAMix TestTableIsEval TestRulesAreEval \
	TestRandomProgramsTakeEveryPath TestDiffReplaces TestTableIsBounded

ifndef VMLINUZ
test-kernel: bin/kernel
VMLINUZ = $$(echo bin/kernel/boot/vmlinuz-*)
MODULES = $$(echo bin/kernel/lib/modules/*)
endif

bin/kernel:
	rm -rf $@.new && mkdir -p $@.new
	cd $@.new && apt-get download $(KERNEL_PACKAGE) && dpkg-deb -x *.deb . && rm *.deb
	mv $@.new $@

test-kernel:            ## real IPVS, and an older kernel: about an hour
	$(GO) run ./test/kernel -kernel $(VMLINUZ) -modules $(MODULES) -timeout 60m \
		-skip '^($(subst $() ,|,$(strip $(KERNEL_PURE))))$$' $(KERNEL_FLAGS) $(KERNEL_TESTS)
