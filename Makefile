# make test does everything that a change has to pass. On Debian as root it
# installs what it lacks; elsewhere, tests whose real part is missing skip.
GO ?= go
GOLANGCI_LINT = github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0

.PHONY: build test demo lint bench fuzz soak

build:
	$(GO) build -trimpath -o upsauth ./cmd/upsauth

test:
	@./.ci/test

demo:
	$(GO) run ./cmd/upsauth demo

lint:
	$(GO) run $(GOLANGCI_LINT) run

# Kills N processes in each operation; the table says what was lost.
N ?= 2000
soak:
	$(GO) test ./internal/soak -count=1 -timeout 0 -v -soak.n=$(N)

bench:
	$(GO) test -run '^$$' -bench . -benchmem ./...

fuzz:
	@./.ci/fuzz
