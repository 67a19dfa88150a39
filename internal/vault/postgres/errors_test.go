package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"unicode"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Who takes an unknown commit for one that failed, or for one that was made, sends a token
// twice or never.
func TestWhatBecameOfACommit(t *testing.T) {
	said := func(severity, code string) error {
		return fmt.Errorf("commit: %w", &pgconn.PgError{Severity: "FEHLER", SeverityUnlocalized: severity, Code: code, Message: "said"})
	}
	for name, test := range map[string]struct {
		err     error
		warning *pgconn.Notice
		want    Fate
	}{
		"well":                       {nil, nil, Committed},
		"with a warning":             {nil, &pgconn.Notice{Code: "01000", Message: "canceling wait for synchronous replication due to user request"}, Unknown},
		"with a warning of another":  {nil, &pgconn.Notice{Code: "57P01", Message: "Warten abgebrochen"}, Unknown},
		"rolled back":                {pgx.ErrTxCommitRollback, nil, NotCommitted},
		"a constraint":               {said("ERROR", "23503"), nil, NotCommitted},
		"a conflict":                 {said("ERROR", "40001"), nil, NotCommitted},
		"completion unknown":         {said("ERROR", "40003"), nil, Unknown},
		"cancelled":                  {said("ERROR", "57014"), nil, Unknown},
		"disk full":                  {said("ERROR", "53100"), nil, Unknown},
		"shut down":                  {said("FATAL", "57P01"), nil, Unknown},
		"a conflict that is fatal":   {said("FATAL", "40001"), nil, Unknown},
		"the pooler lost its server": {said("FATAL", "08P01"), nil, Unknown},
		"cut off":                    {io.ErrUnexpectedEOF, nil, Unknown},
		"too late":                   {context.DeadlineExceeded, nil, Unknown},
	} {
		if got := FateOf(ofCommit(test.err, test.warning)); got != test.want {
			t.Errorf("%s: %d, want %d", name, got, test.want)
		}
	}
}

func TestWhatEndsAllConnections(t *testing.T) {
	for code, want := range map[string]bool{
		"25006": true, "57P01": true, "57P02": true, "57P03": true, "57P05": true, "08006": true, "08P01": true, "28P01": true,
		"23505": false, "40001": false, "57014": false, "55P03": false, "42501": false,
	} {
		if got := endsAll(fmt.Errorf("said: %w", &pgconn.PgError{Code: code})); got != want {
			t.Errorf("%s: %t", code, got)
		}
	}
	if !endsAll(io.ErrUnexpectedEOF) || endsAll(context.Canceled) || endsAll(errors.New("other")) {
		t.Error("errors of the network are told wrong")
	}
}

// A server may say anything, and write what it says on several lines of a terminal.
func TestWhatAServerSaysIsOneLine(t *testing.T) {
	const says = "no\r\nupsauth: all is well\x1b[2K\u202e"
	said := &pgconn.PgError{Severity: "ERROR", Code: "XX000", Message: says}
	for what, err := range map[string]error{
		"a connect":         Settings{}.cannotConnect(t.Context(), &pgx.ConnConfig{}, said),
		"a beginning":       Settings{}.cannotBegin(t.Context(), said),
		"a statement":       Settings{}.typed(t.Context(), said),
		"a commit":          ofCommit(said, nil),
		"a warning with it": ofCommit(nil, &pgconn.Notice{Message: says}),
		"who it is":         cannotIdentify(&pgconn.PgError{Code: "42501", Message: says}),
	} {
		if strings.ContainsFunc(err.Error(), func(r rune) bool { return unicode.IsControl(r) || r == '\u202e' }) {
			t.Errorf("%s: %q", what, err)
		}
	}
}
