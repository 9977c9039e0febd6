# rosterd: `make help` lists the targets.

GO          ?= go
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
# Later ones need a module that proxy.golang.org does not serve.
NFPM        := github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.45.0

# In a release's sources there is no .git, in a fresh repository no tag.
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
COMMIT  ?= $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
LDFLAGS := -X main.version=$(VERSION) -X main.commit=$(COMMIT)

# Version and commit are stamped by LDFLAGS, also where git refuses to look
# into somebody else's checkout.
BUILDFLAGS := -buildvcs=false

DEMO_EXIT ?=

FUZZTIME ?= 60s

.DEFAULT_GOAL := help
.PHONY: help build deb install-deps lint test matrix fuzz chaos demo bench clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

build: ## build ./rosterd, a static binary
	CGO_ENABLED=0 $(GO) build $(BUILDFLAGS) -trimpath -ldflags '$(LDFLAGS)' -o rosterd .

deb: ## build a Debian package into dist; ARCH=arm64: for another machine
	@GO='$(GO)' NFPM='$(NFPM)' VERSION='$(VERSION)' COMMIT='$(COMMIT)' deploy/deb/build.sh

install-deps: ## on Debian, as root: install what the tests and the demo need, if it is missing
	@e2e/install-debian.sh

lint: ## gofmt, go vet, staticcheck, and whether go.mod is tidy
	@unformatted=$$(gofmt -l .); if [ -n "$$unformatted" ]; then echo "gofmt these: $$unformatted"; exit 1; fi
	$(GO) vet ./...
	$(GO) run $(STATICCHECK) ./...
	$(GO) mod tidy -diff

# Where everything could be installed, nothing may be skipped. Elsewhere what
# cannot run says so: the end-to-end tests themselves, and here the race
# detector, which needs cgo and a C compiler.
test: install-deps ## run all tests, end to end on a real Prosody and a real ejabberd included
	@set -e; race=-race; export CGO_ENABLED=1; \
	if ! command -v "$$($(GO) env CC | cut -d' ' -f1)" >/dev/null; then \
		echo "no C compiler: testing without the race detector"; race=; CGO_ENABLED=0; fi; \
	if command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then export E2E=required; fi; \
	set -x; $(GO) test $(BUILDFLAGS) $$race -timeout 30m ./...

# Without the race detector: make test has had it.
matrix: ## run the end-to-end tests on the servers of Debian 13 and sid, too, and print what works where; needs root
	@e2e/install-debian.sh matrix
	$(GO) run $(BUILDFLAGS) ./e2e/matrix $(if $(SUITES),-suites '$(SUITES)')

# What go test finds is in testdata/fuzz of the package from then on, where every
# later go test tries it again. Keep it there, with the fix. Without a limit, most
# of the time would go into making inputs shorter that found nothing. At the end of
# its time go test now and then takes that for a failure. It is none if it says so
# and wrote no input; everything else is.
fuzz: ## give each fuzz target FUZZTIME (60s), and stop at the first finding
	@list=$$($(GO) test $(BUILDFLAGS) -list '^Fuzz' ./...) || { echo "$$list"; exit 1; }; \
	echo "$$list" | awk '/^Fuzz/ { names[n++] = $$1 } /^ok/ { for (i = 0; i < n; i++) print $$2, names[i]; n = 0 }' | \
	while read -r package name; do \
		echo "$$package $$name"; \
		out=$$(mktemp -d); \
		{ $(GO) test $(BUILDFLAGS) -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 1s "$$package" </dev/null 2>&1 || \
			touch "$$out/failed"; } | tee "$$out/log"; \
		if [ -e "$$out/failed" ] && { grep -q 'Failing input' "$$out/log" || ! grep -q '^ *context deadline exceeded$$' "$$out/log"; }; then \
			echo "to replay it: $(GO) test -run '^$$name\$$' $$package"; exit 1; fi; \
		rm -r "$$out"; \
	done

# Seeds on the fake server, on Prosody and on ejabberd, from FIRST on. Most of
# the time a run waits: many go at once.
FAKE     ?= 1000
PROSODY  ?= 20
EJABBERD ?= 20
FIRST    ?= 1
# The same with two instances on one PostgreSQL.
PAIR          ?= 200
PAIR_PROSODY  ?= 10
PAIR_EJABBERD ?= 10

chaos: install-deps build ## let everything fail around ./rosterd, FAKE, PROSODY and EJABBERD times: nobody may lose a contact
	$(GO) test $(BUILDFLAGS) -count=1 -v -timeout 90m -run '^(TestChaos|TestKillUnderRefresh|TestHerd)$$' ./e2e/chaos -args \
		-rosterd "$(CURDIR)/rosterd" -full -fake $(FAKE) -prosody $(PROSODY) -ejabberd $(EJABBERD) -pair $(PAIR) -pair-prosody $(PAIR_PROSODY) -pair-ejabberd $(PAIR_EJABBERD) -seed $(FIRST) -at-once 32

demo: install-deps build ## show rosterd at work on a private Prosody until Ctrl-C; DEMO_EXIT=1 ends after the show
	@DEMO_EXIT=$(DEMO_EXIT) $(GO) run $(BUILDFLAGS) ./e2e/demo -rosterd ./rosterd

# Figures do not fail. RUNS, ONLY and IMPORT are for those who look into one of them.
bench: build $(if $(SERVER),install-deps) ## measure rosterd beside its limits; SERVER=prosody or ejabberd, PEER=DIR: there, beside the module; BENCH_QUICK=1: a look
	$(GO) run $(BUILDFLAGS) ./bench -rosterd ./rosterd $(if $(BENCH_QUICK),-quick) $(if $(SERVER),-server '$(SERVER)') \
		$(if $(PEER),-peer '$(PEER)') $(if $(RUNS),-runs '$(RUNS)') $(if $(ONLY),-only '$(ONLY)') $(if $(IMPORT),-import '$(IMPORT)')

clean: ## delete what was built
	rm -rf rosterd dist
