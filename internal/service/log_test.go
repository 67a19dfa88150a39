package service

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/session"
	"github.com/upsauth/upsauth/internal/ups"
	"github.com/upsauth/upsauth/internal/vault"
)

func TestLogTellsTroubleOnce(t *testing.T) {
	var out bytes.Buffer
	now := time.Date(2026, 11, 21, 16, 5, 3, 0, time.FixedZone("CET", 3600))
	l := NewLog(&out, func() time.Time { return now }, false, false)
	said := func() []string {
		l.roundEnds()
		now = now.Add(time.Hour)
		lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
		out.Reset()
		for i := range lines {
			_, lines[i], _ = strings.Cut(lines[i], " ")
		}
		return lines
	}
	for i, step := range []struct {
		trouble [][2]string // what it is about, what it is
		want    string
	}{
		{[][2]string{{"a", "down"}, {"b", "down"}, {"a", "down"}}, "a down,b down"},
		{[][2]string{{"a", "down"}, {"b", "down"}}, ""},
		{[][2]string{{"a", "void"}, {"b", ""}}, "a void"},
		{[][2]string{{"b", "down"}}, ""},
		{[][2]string{{"a", "void"}, {"b", "down"}}, "a void"}, // it was well meanwhile
		{nil, ""},
		{[][2]string{{"b", ""}}, "b "},
	} {
		for _, trouble := range step.trouble {
			l.Trouble(trouble[0], trouble[1], trouble[0]+" "+trouble[1])
		}
		if got := strings.Join(said(), ","); strings.TrimSpace(got) != strings.TrimSpace(step.want) {
			t.Errorf("round %d: %q, want %q", i, got, step.want)
		}
	}
	// Once a day it is told again.
	told := 0
	for range 72 {
		l.Trouble("a", "void", "a void")
		told += strings.Count(strings.Join(said(), ","), "void")
	}
	if told != 3 {
		t.Errorf("in three days it was told %d times", told)
	}
	if len(l.heard) != 1 {
		t.Errorf("it remembers %v", l.heard)
	}
}

// Whatever names and UPS's answers have in them, an event is one line.
func TestLogBreaksNoLine(t *testing.T) {
	now := time.Date(2026, 11, 21, 17, 5, 3, 999, time.FixedZone("CET", 3600))
	for _, test := range []struct {
		journal bool
		write   func(*Log)
		want    string
	}{
		{false, func(l *Log) { l.Event("refreshed: %s", "A\nB\r\x1b[31m\u2028C\u202eD\x00") }, "2026-11-21T16:05:03Z refreshed: A B[31m CD\n"},
		{true, func(l *Log) { l.Event("refreshed: %s", "<0>A\n<0>B") }, "<6>refreshed: <0>A <0>B\n"},
		{true, func(l *Log) { l.Trouble("a", "b", "failed\n  Run: this\n\n") }, "<4>failed Run: this\n"},
		{false, func(l *Log) { fmt.Fprintf(l, "Warning: %s\n", "50% of it") }, "2026-11-21T16:05:03Z Warning: 50% of it\n"},
		{false, func(l *Log) { fmt.Fprint(l, "\n") }, ""},
		{false, func(l *Log) { fmt.Fprintln(l, "same"); fmt.Fprintln(l, "same") }, "2026-11-21T16:05:03Z same\n"},
	} {
		var out bytes.Buffer
		test.write(NewLog(&out, func() time.Time { return now }, test.journal, false))
		if out.String() != test.want {
			t.Errorf("the line is %q, want %q", out.String(), test.want)
		}
	}
}

// Trouble is told again where it is another one, and not where only its figures are
// others.
func TestKindsOfTrouble(t *testing.T) {
	refused := func(port int) error {
		return fmt.Errorf("a request to 127.0.0.1:%d: %w", port, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED})
	}
	for _, test := range []struct {
		a, b error
		same bool
	}{
		{refused(4711), refused(4712), true},
		{errors.New("one"), errors.New("two"), false},
		{&fs.PathError{Op: "open", Path: "/company 1", Err: syscall.EACCES}, &fs.PathError{Op: "open", Path: "/company 2", Err: syscall.EACCES}, false},
		{&ups.Error{Kind: ups.Down, Status: 503}, &ups.Error{Kind: ups.Down, Status: 503, RetryAfter: time.Minute}, true},
		{&ups.Error{Kind: ups.Down, Status: 503}, &ups.Error{Kind: ups.Unknown, Status: 400}, false},
		{&vault.HomeError{Home: "keychain", What: "It can't be asked about KEY1."}, &vault.HomeError{Home: "keychain", What: "It can't be asked about KEY2."}, true},
		{&vault.HomeError{Home: "keychain"}, &vault.HomeError{Home: "keychain", TimedOut: true}, false},
		{&vault.HomeError{Home: "file", Advice: "Set a passphrase."}, &vault.HomeError{Home: "file", Advice: "Name an identity."}, false},
		{&config.Error{Path: "c", Err: typed("line 1")}, &config.Error{Path: "c", Err: typed("line 2")}, false},
		{errors.Join(errors.New("one"), errors.New("two")), errors.Join(errors.New("one"), errors.New("three")), false},
		{nil, errors.New("one"), false},
	} {
		if same := kindOf(test.a) == kindOf(test.b); same != test.same {
			t.Errorf("%v and %v: %q and %q", test.a, test.b, kindOf(test.a), kindOf(test.b))
		}
	}
}

// A warning that says another figure each time is one trouble; one about another
// grant is another.
func TestNoticesAreToldOnce(t *testing.T) {
	var out bytes.Buffer
	l := NewLog(&out, time.Now, true, false)
	tell := func(company, wait string) {
		l.Notice(t.Context(), session.Notice{Kind: session.Warning, ID: grant.ID{Company: company}, About: "too many requests; upsauth continues in %s"}, "too many requests; upsauth continues in "+wait)
	}
	tell("A 1", "3s")
	tell("A 1", "4s")
	tell("A 2", "5s")
	l.Notice(t.Context(), session.Notice{Kind: session.Step}, "a step")
	if want := "<4>too many requests; upsauth continues in 3s\n<4>too many requests; upsauth continues in 5s\n"; out.String() != want {
		t.Errorf("%q", out.String())
	}
}

// typed is an error whose type says nothing of what happened.
type typed string

func (t typed) Error() string { return string(t) }
