package config

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/upsauth/upsauth/internal/legible"
	"github.com/upsauth/upsauth/internal/vault/ledger"
	"github.com/upsauth/upsauth/internal/vault/postgres"
)

// EnvDatabaseURL has the address of the database that hosts share. It counts before
// config.toml, and a password may be in it.
const EnvDatabaseURL = "UPSAUTH_DATABASE_URL"

// Shared is the vault that several hosts share.
type Shared struct {
	// URL is the database's address. What it leaves out comes from libpq's variables and
	// files; empty leaves out everything.
	URL string
	// Private says that the URL is the environment's.
	Private bool
	// Host is what people read of this machine.
	Host string
	// TakeOverAfter is how long another host's open claim is respected. Never says that
	// only a person takes over.
	TakeOverAfter time.Duration
	Never         bool
}

// shared is the table [shared] of config.toml.
type shared struct {
	URL           string `toml:"url"`
	Host          string `toml:"host"`
	TakeOverAfter string `toml:"take_over_after"`
}

const (
	usualTakeOver = 10 * time.Minute
	// maxHost is how long a host's name may be, in characters: what DNS allows is shorter.
	maxHost = 200
)

// parse reads the table. The host's name is empty where the table has none.
func (s shared) parse() (Shared, error) {
	parsed := Shared{URL: s.URL, TakeOverAfter: usualTakeOver}
	if err := checkDatabase(s.URL); err != nil {
		return Shared{}, fmt.Errorf("url of [shared]: %w", err)
	}
	if postgres.HasPassword(s.URL) {
		return Shared{}, fmt.Errorf("url of [shared]: it has a password in it, and other programs read this file. Put the password into ~/.pgpass, or the whole address into %s", EnvDatabaseURL)
	}
	if s.Host != "" {
		var err error
		if parsed.Host, err = cleanHost(s.Host); err != nil {
			return Shared{}, fmt.Errorf("host of [shared]: %w", err)
		}
	}
	switch s.TakeOverAfter {
	case "":
		return parsed, nil
	case "never":
		parsed.Never = true
		return parsed, nil
	}
	after, err := time.ParseDuration(s.TakeOverAfter)
	if err != nil {
		return Shared{}, fmt.Errorf("take_over_after = %q is not a duration such as \"10m\", and not \"never\"", s.TakeOverAfter)
	}
	if after < ledger.CallEnds {
		return Shared{}, fmt.Errorf("take_over_after = %q is shorter than %s: a call to UPS that began in time can last so long, and its answer would be lost", s.TakeOverAfter, legible.Duration(ledger.CallEnds))
	}
	parsed.TakeOverAfter = after
	return parsed, nil
}

// checkDatabase refuses what can be no address of a database. It quotes nothing of it, as
// there may be a password in it.
func checkDatabase(address string) error {
	scheme, _, isURL := strings.Cut(address, "://")
	switch {
	case address == "":
	case strings.ContainsFunc(address, isControl) || !utf8.ValidString(address):
		return errors.New("it is not one line of text")
	case isURL && (scheme == "postgres" || scheme == "postgresql"), strings.Contains(address, "=") && !strings.HasPrefix(address, "="):
	default:
		return errors.New("it is not an address such as postgres://upsauth@db.example/upsauth?sslmode=verify-full")
	}
	return nil
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }

// cleanHost returns the name of a host as people read it.
func cleanHost(name string) (string, error) {
	if err := checkLine(name); err != nil {
		return "", err
	}
	clean := legible.Name(name)
	switch {
	case clean == "":
		return "", errors.New("there is nothing in the name that anybody sees")
	case utf8.RuneCountInString(clean) > maxHost:
		return "", fmt.Errorf("the name has more than %d characters", maxHost)
	}
	return clean, nil
}

// fill adds what the environment and the machine say to what the file at path says. The
// machine's name is needed where the vault is shared. Errors are *Error.
func (s *Shared) fill(getenv func(string) string, path string, needed bool) error {
	if text := getenv(EnvDatabaseURL); text != "" {
		address, err := legible.Value(text)
		if err == nil {
			err = checkDatabase(address)
		}
		if err != nil {
			return &Error{Path: EnvDatabaseURL, Err: err}
		}
		s.URL, s.Private = address, true
	}
	if s.Host != "" {
		return nil
	}
	name, err := os.Hostname()
	if err == nil {
		s.Host, err = cleanHost(name)
	}
	if err != nil && needed {
		return &Error{Path: path, Err: fmt.Errorf("host of [shared] is missing, and this machine has no name that can be taken: %w", err)}
	}
	return nil
}
