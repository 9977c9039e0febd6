# rosterd: `make help` lists the targets.

GO          ?= go
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2

# In a release's sources there is no .git, in a fresh repository no tag.
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
COMMIT  ?= $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
LDFLAGS := -X main.version=$(VERSION) -X main.commit=$(COMMIT)

# Version and commit are stamped by LDFLAGS, also where git refuses to look
# into somebody else's checkout.
BUILDFLAGS := -buildvcs=false

DEMO_EXIT ?=

.DEFAULT_GOAL := help
.PHONY: help build install-deps lint test demo clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

build: ## build ./rosterd, a static binary
	CGO_ENABLED=0 $(GO) build $(BUILDFLAGS) -trimpath -ldflags '$(LDFLAGS)' -o rosterd .

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
	if command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then export ROSTERD_E2E=required; fi; \
	set -x; $(GO) test $(BUILDFLAGS) $$race -timeout 10m ./...

demo: install-deps build ## show rosterd at work on a private Prosody until Ctrl-C; DEMO_EXIT=1 ends after the show
	@DEMO_EXIT=$(DEMO_EXIT) $(GO) run $(BUILDFLAGS) ./e2e/demo -rosterd ./rosterd

clean: ## delete what was built
	rm -f rosterd
