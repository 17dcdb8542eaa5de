# What a person types. The README tells what each prints.

GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
COMMIT  ?= $(shell git rev-parse HEAD 2>/dev/null || echo unknown)
LDFLAGS  = -s -w -X main.buildVersion=$(VERSION) -X main.buildCommit=$(COMMIT)

.PHONY: build run demo test check fuzz lint alerts bench bench-compare bench-relay clients crash hostile clean

build: ## bin/tlsrelay, static
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/tlsrelay ./cmd/tlsrelay

run: build ## the relay, with its data in ./data
	bin/tlsrelay serve

demo: build ## the whole story in one terminal, without a network
	bin/tlsrelay demo

test: ## all tests that need Go alone
	$(GO) test ./...

STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2

lint:
	@test -z "$$(gofmt -l cmd configs events policy relay)" || { gofmt -l cmd configs events policy relay; echo 'gofmt would change these'; exit 1; }
	$(GO) vet ./...
	$(GO) vet -tags realclients ./cmd/tlsrelay
	$(GO) run $(STATICCHECK) -tags realclients ./...

check: lint build test ## everything CI runs; needs what .ci/run installs
	$(GO) test -race ./...
	$(MAKE) fuzz alerts clients crash
	$(MAKE) hostile MIX=10s
	bin/tlsrelay demo

# One target at a time is all that go test takes. FUZZ picks some by name.
FUZZ     ?= ^Fuzz
FUZZTIME ?= 3s
fuzz: ## every fuzz target for a moment; FUZZ=FuzzHost FUZZTIME=10m runs one for longer
	@mkdir -p bin
	@$(GO) test -list '$(FUZZ)' ./... >bin/fuzz.txt
	@awk '/^Fuzz/ { name[n++] = $$1 } /^ok/ { for (i = 0; i < n; i++) print $$2, name[i]; n = 0 }' bin/fuzz.txt | \
	while read -r package name; do \
		echo "$$package $$name"; \
		$(GO) test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 5x -parallel 2 "$$package" </dev/null || exit 1; \
	done

PROMTOOL ?= $(shell command -v promtool || echo "$${XDG_CACHE_HOME:-$$HOME/.cache}/tlsrelay-ci/promtool")

alerts: ## the alerting rules against series made for them; needs promtool, as .ci/run brings it
	$(PROMTOOL) check rules configs/alerts.yml
	$(PROMTOOL) test rules configs/alerts_test.yml

clients: ## real clients and real servers against the relay; as root, with what .ci/run installs
	cd cmd/tlsrelay/testdata/clients && npm ci --omit=optional --no-audit --no-fund --silent
	$(GO) test -race -count=1 -tags realclients -run TestReal ./cmd/tlsrelay

MIX ?= 60s
hostile: ## attack from all sides at once, and measure what the others notice; as root on a small disk
	$(GO) test -count=1 -run TestHostileMix -v ./cmd/tlsrelay -args -mix $(MIX)

crash: ## kill the relay under load, again and again, and count what it had answered for
	$(GO) test -race -count=1 -run TestKillAndRestart -v ./cmd/tlsrelay -args -kills 60

bench: ## the Go benchmarks of every part
	$(GO) test -run '^$$' -bench . -benchmem ./...

BENCHSTAT = golang.org/x/perf/cmd/benchstat@v0.0.0-20260908200009-22c9c6c9d4da

bench-compare: ## the same, six times each, against the run before: once at the old commit, once at the new
	@mkdir -p bin
	@if [ -f bin/bench.txt ]; then mv bin/bench.txt bin/bench.old.txt; fi
	$(GO) test -run '^$$' -bench . -skip Backlog -benchmem -count 6 -benchtime 300ms ./events ./policy ./relay/... | tee bin/bench.txt
	@if [ -f bin/bench.old.txt ]; then $(GO) run $(BENCHSTAT) bin/bench.old.txt bin/bench.txt; fi

ARGS ?=
bench-relay: build ## the relay as a whole, with sender and receivers in processes of their own; ARGS=-help
	$(GO) build -trimpath -o bin/benchrelay ./cmd/benchrelay
	bin/benchrelay $(ARGS)

clean:
	rm -rf bin
