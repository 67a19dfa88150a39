# make alone builds the program; make help lists the rest. A target's line in the list
# is what follows its "##".
GO ?= go
GORELEASER = github.com/goreleaser/goreleaser/v2@v2.16.0
GOLANGCI_LINT = github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
SYFT = github.com/anchore/syft/cmd/syft@v1.50.0
COSIGN = github.com/sigstore/cosign/v3/cmd/cosign@v3.1.3

.PHONY: build help package release test test-quick wine demo docs lint bench bench-go fuzz soak powerloss screenshots pictures

build: ## the program, ./upsauth; what make alone does
	$(GO) build -trimpath -o upsauth ./cmd/upsauth

help: ## this list
	@awk -F ': ## ' '/^[a-z-]+: ## / { printf "make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

# Nothing is published. A tag that is checked out gives the files of its release,
# anything else a snapshot. Without syft there is no list of what each archive contains;
# images and signatures are made by the release workflow alone.
package: ## everything that a release has, in dist/; .ci/package tests it
	$(GO) run $(GORELEASER) check
	$(GO) run $(GORELEASER) release --clean \
		$$(git describe --exact-match --tags >/dev/null 2>&1 || echo --snapshot) \
		--skip=announce,publish,sign,docker$$(command -v syft >/dev/null || echo ,sbom)

release: ## publishes the tag that is checked out: the release workflow's part
	$(GO) install $(SYFT)
	$(GO) install $(COSIGN)
	PATH="$$($(GO) env GOPATH)/bin:$$PATH" $(GO) run $(GORELEASER) release --clean

# On Debian as root it installs what it lacks; elsewhere, tests whose real part is
# missing skip.
test: ## everything a change has to pass
	@./.ci/test

# Installs nothing; for the time between two changes.
test-quick: ## while you work: the tests that need no browser, keychain or network
	@./.ci/test quick

wine: ## the Windows build's tests under wine; RUN=./internal/vault for one package
	@./.ci/wine

demo: ## the main job, as a user sees it
	$(GO) run ./cmd/upsauth demo

docs: ## docs/reference and docs/man, after a change to a command or its help
	$(GO) run ./internal/gendocs docs

lint: ## golangci-lint, stricter than make test
	$(GO) run $(GOLANGCI_LINT) run

# The table says what was lost.
N ?= 2000
soak: ## kills N processes in each operation (N=2000), N faults among hosts that share a vault: no token may be lost; 1000 invitations
	$(GO) test ./internal/soak -count=1 -timeout 0 -v -soak.n=$(N) -soak.cuts
	$(GO) test ./internal/serve/public -count=1 -timeout 0 -v -run ManyInvitations -invitations.n=1000

# About eight minutes on two cores. -powerloss.syncs tells which syncs nobody would miss.
powerloss: ## every state in which a loss of power can leave the disk (about 4700)
	$(GO) test ./internal/powerloss -count=1 -timeout 0 -v -run 'PowerLoss|TakenOver' -powerloss.all

# The built program against programs that do nothing or the least; the figures
# go into docs/performance.md. About eight minutes; quicker: make bench BENCH="-runs 5".
BENCH ?= -write docs/performance.md
bench: ## the program as it is used, into docs/performance.md
	$(GO) run ./internal/bench $(BENCH)

bench-go: ## benchmarks of single parts
	$(GO) test -run '^$$' -bench . -benchmem ./...

fuzz: ## every fuzz target for 30 s; FUZZTIME=5m for longer
	@./.ci/fuzz

pictures: ## the pictures of docs/coming-from.md
	rm -rf docs/pictures
	mkdir docs/pictures
	$(GO) test ./internal/cli/chromiumtest -count=1 -run TestPicturesOfTheManuals -artifacts -outputdir '$(CURDIR)/docs/pictures'
	find docs/pictures/_artifacts -name '*.png' -exec mv {} docs/pictures/ \;
	rm -r docs/pictures/_artifacts

screenshots: ## every page of the sign-in, of the company manager and for customers, at two widths, light and dark, in ./screenshots
	rm -rf screenshots
	mkdir screenshots
	$(GO) test ./internal/cli/chromiumtest -count=1 -run 'TestPages|TestManagerPages|TestCustomersPages' -artifacts -outputdir '$(CURDIR)/screenshots'
	find screenshots/_artifacts -name '*.png' -exec mv {} screenshots/ \;
	rm -r screenshots/_artifacts
