# make test does everything that a change has to pass. On Debian as root it
# installs what it lacks; elsewhere, tests whose real part is missing skip.
# make test-quick installs nothing, and is for the time between two changes.
GO ?= go
GORELEASER = github.com/goreleaser/goreleaser/v2@v2.16.0
GOLANGCI_LINT = github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0

SYFT = github.com/anchore/syft/cmd/syft@v1.50.0
COSIGN = github.com/sigstore/cosign/v3/cmd/cosign@v3.1.3

.PHONY: build package release test test-quick wine demo docs lint bench bench-go fuzz soak screenshots

build:
	$(GO) build -trimpath -o upsauth ./cmd/upsauth

# Everything that a release has, in dist/; nothing is published. A tag that is checked
# out gives the files of its release, anything else a snapshot. Without syft there is
# no list of what each archive contains; images and signatures are made by the release
# workflow alone.
package:
	$(GO) run $(GORELEASER) check
	$(GO) run $(GORELEASER) release --clean \
		$$(git describe --exact-match --tags >/dev/null 2>&1 || echo --snapshot) \
		--skip=announce,publish,sign,docker$$(command -v syft >/dev/null || echo ,sbom)

# Publishes the tag that is checked out: the release workflow's part.
release:
	$(GO) install $(SYFT)
	$(GO) install $(COSIGN)
	PATH="$$($(GO) env GOPATH)/bin:$$PATH" $(GO) run $(GORELEASER) release --clean

test:
	@./.ci/test

test-quick:
	@./.ci/test quick

# The Windows build's tests under wine; RUN=./internal/vault for one package.
wine:
	@./.ci/wine

demo:
	$(GO) run ./cmd/upsauth demo

# The reference and the man pages, from the command tree.
docs:
	$(GO) run ./internal/gendocs docs

lint:
	$(GO) run $(GOLANGCI_LINT) run

# Kills N processes in each operation; the table says what was lost.
N ?= 2000
soak:
	$(GO) test ./internal/soak -count=1 -timeout 0 -v -soak.n=$(N) -soak.cuts

# The built program against programs that do nothing or the least; the figures
# go into docs/performance.md. About five minutes; quicker: make bench BENCH="-runs 5".
BENCH ?= -write docs/performance.md
bench:
	$(GO) run ./internal/bench $(BENCH)

# Benchmarks of single parts.
bench-go:
	$(GO) test -run '^$$' -bench . -benchmem ./...

fuzz:
	@./.ci/fuzz

# Pictures of every page that a browser shows, in ./screenshots.
screenshots:
	rm -rf screenshots
	mkdir screenshots
	$(GO) test ./internal/cli/chromiumtest -count=1 -run TestPages -artifacts -outputdir '$(CURDIR)/screenshots'
	find screenshots/_artifacts -name '*.png' -exec mv {} screenshots/ \;
	rm -r screenshots/_artifacts
