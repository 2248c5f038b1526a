# jindan. `make help` lists what can be made.

SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := build
.DELETE_ON_ERROR:
.SUFFIXES:
MAKEFLAGS += --no-builtin-rules

export CGO_ENABLED := 0
# Tests, programs and tools share what was compiled once only if it was compiled with the same flags.
export GOFLAGS += -trimpath

VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
# The same source gives the same bytes, wherever it is built.
GOBUILD  := go build -buildvcs=false -ldflags '-s -w -X jindan/cmd/internal/cli.Version=$(VERSION)'
JINDAN   := bin/jindan
LINTER   := bin/golangci-lint
TESTSUM  := bin/gotestsum

INCIDENT  ?= $(firstword $(wildcard fixtures/gpki-2023-11-17/packets.pcap*) fixtures/gpki-2023-11-17/packets.pcapng)
PLATFORMS ?= linux/amd64 linux/arm64 darwin/arm64 windows/amd64
FUZZTIME  ?= 60s

# What the tests and `make bench` run beside Go: program:package. Lists, because the lab's own hosts need them.
PROGRAMS := ip:iproute2 nft:nftables ethtool:ethtool sysctl:procps tcpdump:tcpdump tshark:tshark \
	capinfos:wireshark-common tcptrace:tcptrace nginx:nginx-light unbound:unbound dnsmasq:dnsmasq-base \
	haproxy:haproxy redis-server:redis-server redis-cli:redis-tools psql:postgresql-client nghttpx:nghttp2-proxy mosquitto:mosquitto \
	mosquitto_pub:mosquitto-clients setpriv:util-linux h2load:nghttp2-client curl:curl iperf3:iperf3 rsync:rsync \
	ssh:openssh-client sshd:openssh-server \
	gcc:gcc ld:binutils zstd:zstd git:git shellcheck:shellcheck \
	rsyslogd:rsyslog prometheus-alertmanager:prometheus-alertmanager promtool:prometheus nats-server:nats-server kcat:kcat tmux:tmux \
	chromium:chromium node:nodejs npm:npm
# gcc alone cannot link the race detector's runtime; rsyslog alone speaks no TLS; journald comes with systemd.
# postgresql has its server outside PATH; nginx-light comes without the stream module.
PACKAGES := libc6-dev ca-certificates rsyslog-openssl systemd postgresql libnginx-mod-stream fonts-nanum

# The shell scripts, those of the packages included.
SCRIPTS = $(shell grep -lE '^\#!.*sh$$' .ci/* packaging/* .tools/*)

.PHONY: help
help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: deps
deps: ## install the Debian packages that the tests and benchmarks use, those that are missing
	@.tools/deps $(PROGRAMS) $(PACKAGES)

.PHONY: build
build: go ## build ./bin/jindan
	$(GOBUILD) -o $(JINDAN) ./cmd/jindan

.PHONY: run
run: build ## run the agent on this host; without root it says what it cannot see (Ctrl-C ends with the diagnosis)
	$(JINDAN) run -o text

.PHONY: incident
incident: build ## analyse the bundled recording of the incident of 17 November 2023 (INCIDENT=FILE for another)
	$(JINDAN) analyze -o text $(INCIDENT)

.PHONY: test
test: deps go ## everything that this machine allows: lint, cross-builds, tests, race detector, fuzzing; says what it skipped
	@rm -rf .test && mkdir -p .test
	@$(MAKE) --no-print-directory --keep-going --jobs=2 tests checks && rc=0 || rc=$$?; \
		.tools/skipped $(TESTSUM) .test; exit $$rc

# Tests wait for much of their time, those in namespaces for most of it. What only computes runs beside them, and takes what they leave;
# the race detector comes last, when they are done or nearly so: under it, too, some watch a clock.
.PHONY: tests checks
tests:
	@rc=0; for target in browser test-integration test-unit; do \
		$(MAKE) --no-print-directory $$target || rc=$$?; done; exit $$rc
checks:
	@rc=0; for target in tidy lint cross fuzz-smoke; do \
		nice -n 19 $(MAKE) --no-print-directory $$target || rc=$$?; done; \
		nice -n 5 $(MAKE) --no-print-directory test-race || rc=$$?; exit $$rc

.PHONY: test-unit
test-unit: $(TESTSUM) ## the tests that need no privileges
	@mkdir -p .test
	$(TESTSUM) --format standard-quiet --hide-summary skipped --jsonfile .test/unit.json -- -skip '^TestIntegration' ./...

.PHONY: test-integration
test-integration: $(TESTSUM) ## the tests in network namespaces (root), one package at a time
	@mkdir -p .test
	$(TESTSUM) --format standard-quiet --hide-summary skipped --jsonfile .test/integration.json -- -p 1 -run '^TestIntegration' ./...

# What TestBrowser drives Chromium with; test-unit runs that test from then on.
.PHONY: browser
browser:
	@mkdir -p .test
	@npm ci --silent --prefix cmd/internal/report/browser || echo 'pages in a browser: npm cannot install playwright-core' | tee -a .test/skipped

.PHONY: test-browser
test-browser: go browser ## pages in Chromium: layout, languages, themes, load time, axe (needs node, npm, chromium and fonts-nanum)
	go test -count=1 -v -run '^TestBrowser$$' ./cmd/jindan

.PHONY: pictures
pictures: build browser ## the pictures of the report page in its README, drawn anew (needs what test-browser does)
	$(JINDAN) analyze -o ndjson --report .test/page.html fixtures/gpki-2023-11-17/packets.pcap.zst >.test/page.ndjson
	node cmd/internal/report/browser/pictures.mjs .test/page.html cmd/internal/report/images

.PHONY: conformance
conformance: go ## the stream into an OpenTelemetry Collector, Loki and NATS that are built from their modules (first, some 20 minutes)
	go -C fixtures/receivers build -buildvcs=false -o ../../bin/ ./otelcol tool
	go -C fixtures/receivers/loki build -buildvcs=false -o ../../../bin/ tool
	PATH=$(CURDIR)/bin:$$PATH go test -count=1 -v -run '^(TestConformance|TestIntegrationNATS)' ./cmd/internal/sink/...

.PHONY: test-race
test-race: go ## the unit tests of packages that start goroutines, under the race detector
	@mkdir -p .test
	@.tools/race

.PHONY: lint
lint: $(LINTER) ## go vet, golangci-lint, which also enforces the import rules, and shellcheck
	go vet ./...
	$(LINTER) run
	cd packaging && ../$(LINTER) run --disable forbidigo # its one program is a command
	@if command -v shellcheck >/dev/null; then shellcheck $(SCRIPTS); \
		else mkdir -p .test; echo 'lint of the shell scripts: needs shellcheck' | tee -a .test/skipped; fi

.PHONY: tidy
tidy: go ## fail if go.mod or go.sum is not what the code needs
	go mod tidy -diff
	go mod verify

.PHONY: fuzz
fuzz: go ## each fuzz target for FUZZTIME (60s); JINDAN_CORPUS=DIR adds the captures below DIR as seeds
	.tools/fuzz $(FUZZTIME)

.PHONY: fuzz-smoke
fuzz-smoke: go
	@# A number of inputs, not a time: on a busy machine the end of a short time is at times taken for a failure.
	.tools/fuzz 10000x

.PHONY: nightly
nightly: go ## what takes too long for every change: 10,000 hostile captures through the whole engine, some of a day; then make fuzz. SEED=1 is the first
	JINDAN_HOSTILE=10000 JINDAN_HOSTILE_SEED=$(SEED) go test ./fixtures -run '^TestHostileCaptures$$' -v -timeout 2h
	$(MAKE) --no-print-directory fuzz

# Packages with benchmarks.
BENCHES = $(shell grep -rlE '^func Benchmark' --include='*_test.go' . | xargs -r -n1 dirname | sort -u)

CHURN  ?= 5m
DRILLS ?= all
SEED   ?= 1
RUNS   ?= 1
JOBS   ?= 4

.PHONY: drill
drill: deps build ## every lab scenario live (root), and a table of what was found; DRILLS='S1 N4' SEED=1 RUNS=3 JOBS=4
	$(JINDAN) drill $(DRILLS) --agent --seed $(SEED) --runs $(RUNS) --jobs $(JOBS)

# Ten real programs under the load of every day, and lookups through search lists.
HEALTHY := H1 H2 H3 H4 H5 H6 H7 H8 H9 H10 N16

.PHONY: healthy
healthy: deps build ## healthy load of real programs, 60 s each, live and from the capture (root): nothing may be found; JOBS=4
	$(JINDAN) drill $(HEALTHY) --agent --jobs $(JOBS)

.PHONY: accuracy
accuracy: deps build ## draw RUNS sites and faults from SEED on, run them (root), and say how often the diagnosis is right; AGENT=1 runs the agent, too; KEEP=DIR keeps them
	$(JINDAN) drill sites --seed $(SEED) --runs $(RUNS) --jobs $(JOBS) $(if $(AGENT),--agent) $(if $(KEEP),--keep $(KEEP))

.PHONY: bench
bench: build ## speed beside tshark, tcpdump, capinfos and tcptrace on a capture of 5 million packets, and of several capture points; BENCH_TSHARK_PACKETS=N shortens tshark
	$(GOBUILD) -o bin/bench ./fixtures/bench
	bin/bench capture -o .bench/bench.pcap
	bin/bench compare -jindan $(JINDAN) $(if $(BENCH_TSHARK_PACKETS),-tshark-packets $(BENCH_TSHARK_PACKETS)) .bench/bench.pcap && rc=0 || rc=$$?; \
	bin/bench points -jindan $(JINDAN) .bench/bench.pcap || rc=$$?; \
	bin/bench page -jindan $(JINDAN) .bench/bench.pcap || rc=$$?; \
	bin/bench worst -jindan $(JINDAN) .bench/base.pcap || rc=$$?; \
	JINDAN_BENCH_CAPTURE=$(CURDIR)/.bench/base.pcap go test -run '^$$' -bench . -benchmem $(BENCHES); exit $$rc

.PHONY: bench-agent
bench-agent: build ## what the agent takes on a quiet host, with 20,000 idle sockets and under 500 connections/s for CHURN (5m; root)
	$(GOBUILD) -o bin/bench ./fixtures/bench
	bin/bench agent -jindan $(JINDAN) -churn $(CHURN)

.PHONY: cross
cross: go ## build for every platform of PLATFORMS
	@mkdir -p bin
	@for p in $(PLATFORMS); do os=$${p%/*}; arch=$${p#*/}; \
		out=bin/jindan-$$os-$$arch$$([ $$os = windows ] && echo .exe || true); \
		echo "build $$out"; GOOS=$$os GOARCH=$$arch $(GOBUILD) -o $$out ./cmd/jindan; done

.PHONY: package
package: go ## deb, rpm, tarball, SBOM for linux/amd64 and arm64, and SHA256SUMS, in bin/package; the same commit gives the same bytes
	packaging/build bin/package

.PHONY: test-package
test-package: go ## install, run, upgrade and remove the packages in a Debian tree (root, debootstrap); says what it skipped
	@.tools/deps debootstrap:debootstrap rpm:rpm strace:strace zstdcat:zstd systemd-analyze:systemd
	packaging/test

.PHONY: clean
clean: ## remove what make has made, the benchmark's capture included
	rm -rf bin .bench .test

.PHONY: go
go:
	@command -v go >/dev/null || { echo 'jindan is built with Go 1.26 or newer; no go command is in PATH' >&2; exit 1; }

$(LINTER): TOOL := github.com/golangci/golangci-lint/v2/cmd/golangci-lint
$(TESTSUM): TOOL := gotest.tools/gotestsum
$(LINTER) $(TESTSUM): .tools/go.mod .tools/go.sum | go
	@echo 'building $@; without a build cache this takes a while'
	go -C .tools build -buildvcs=false -o ../bin/ $(TOOL)
	@touch $@
