package events

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/upsauth/upsauth/internal/grant"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

func record(company, key string, ends time.Time) grant.Record {
	var r grant.Record
	r.ID, r.TokenVaultKey = grant.ID{Company: company, Application: "rating", Environment: "lab"}, key
	r.RefreshTokenExpires, r.RefreshUntil = ends, ends
	return r
}

// queue is a queue on a clock that goes on as somebody waits for it.
type queue struct {
	*Queue
	t    *testing.T
	now  time.Time
	told []Event
	ids  map[string]int
	fail func(Event) error
}

func open(t *testing.T, path string, now time.Time) *queue {
	t.Helper()
	q := &queue{t: t, now: now, ids: map[string]int{}, fail: func(Event) error { return nil }}
	var err error
	q.Queue, err = Open(Options{
		Path: path, Now: func() time.Time { return q.now }, Log: t.Logf,
		Tell: func(_ context.Context, text []byte) error {
			var e Event
			if err := json.Unmarshal(text, &e); err != nil {
				t.Error(err)
			}
			q.ids[e.ID]++
			if err := q.fail(e); err != nil {
				return err
			}
			q.told = append(q.told, e)
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return q
}

// run tells all that is due until a time.
func (q *queue) run(until time.Time) {
	ctx, stop := context.WithCancel(q.t.Context())
	q.After = func(d time.Duration) <-chan time.Time {
		c := make(chan time.Time, 1)
		c <- q.now
		if q.now = q.now.Add(d); !q.now.Before(until) {
			q.now = until
			stop()
		}
		return c
	}
	q.Run(ctx)
}

func (q *queue) look(records ...grant.Record) {
	q.t.Helper()
	if err := q.Look(records); err != nil {
		q.t.Fatal(err)
	}
}

func (q *queue) want(what string, want ...string) {
	q.t.Helper()
	q.run(q.now.Add(time.Minute))
	var got []string
	for _, e := range q.told {
		text := e.Company + " " + string(e.Event)
		if e.Days > 0 {
			text += fmt.Sprintf(" %d", e.Days)
		}
		got = append(got, text)
	}
	if !slices.Equal(got, want) {
		q.t.Errorf("%s: told %q, want %q", what, got, want)
	}
	q.told = nil
}

func TestWhatIsToldOfAGrant(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events.json")
	q := open(t, path, noon)
	a, b := record("A", "K1", noon.Add(60*day)), record("B", "K2", noon.Add(60*day))
	b.Void = true
	q.look(a, b)
	q.want("first look", "B void")
	q.look(a, b)
	q.want("nothing new")
	q = open(t, path, q.now) // another service
	q.look(a, b)
	q.want("nothing new after a restart")
	b = record("B", "K3", noon.Add(60*day))
	q.look(a, b)
	q.want("authorized again", "B authorized")
	a.Company = "A renamed"
	q.look(a, b)
	q.want("renamed")
	for _, step := range []struct {
		days float64
		want []string
	}{
		{45.9, nil}, {46, []string{"A renamed expiring 14", "B expiring 14"}}, {50, nil}, {53.5, []string{"A renamed expiring 7", "B expiring 7"}},
		{59.5, []string{"A renamed expiring 1", "B expiring 1"}}, {59.9, nil}, {61, []string{"A renamed expired", "B expired"}}, {62, nil},
	} {
		q.now = noon.Add(time.Duration(step.days * float64(day)))
		q.look(a, b)
		q.want(fmt.Sprintf("after %g days", step.days), step.want...)
	}
	a.RefreshUntil, a.RefreshTokenExpires = q.now.Add(60*day), q.now.Add(60*day)
	q.look(a, b)
	q.want("refreshed after all", "A renamed recovered")
	a.LastError = &grant.LastError{Code: "10401", Message: "no"}
	q.look(a, b)
	q.want("client", "A renamed refused_client")
	a.LastError = nil
	q.look(a)
	q.want("client again", "A renamed recovered")
	// One that a listing missed is not new.
	q.look(a, b)
	q.want("missed once")
}

// A command that fails gets everything afterwards, in order for each company, each event
// with one id; a company whose event it does not take keeps no other one waiting.
func TestAFailingCommandGetsAllAfterwards(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events.json")
	q := open(t, path, noon)
	q.look()
	broken := errors.New("no")
	q.fail = func(Event) error { return broken }
	far := noon.Add(60 * day)
	q.look(record("A", "K1", far), record("B", "K2", far))
	q.run(q.now.Add(30 * time.Minute))
	void := record("A", "K1", far)
	void.Void = true
	q.look(void, record("B", "K2", far))
	q.run(noon.Add(time.Hour))
	if len(q.told) != 0 {
		t.Fatalf("told %v", q.told)
	}
	tried := len(q.ids)
	again := open(t, path, q.now)
	again.fail = func(e Event) error {
		if e.Company == "A" && again.now.Before(noon.Add(2*time.Hour)) {
			return broken
		}
		return nil
	}
	again.run(noon.Add(90 * time.Minute))
	if len(again.told) != 1 || again.told[0].Company != "B" {
		t.Errorf("B alone is taken, told %v", again.told)
	}
	again.run(noon.Add(3 * time.Hour))
	again.want("all", "B authorized", "A authorized", "A void")
	for id := range again.ids {
		if id == "" || again.ids[id] == 0 {
			t.Errorf("the id %q", id)
		}
	}
	if tried != 2 || len(again.ids) != 3 {
		t.Errorf("%d ids before and %d afterwards", tried, len(again.ids))
	}
	// After a day it is given up.
	last := open(t, path, again.now)
	last.fail = func(Event) error { return broken }
	last.look(record("A", "K1", far), record("B", "K2", far))
	last.run(again.now.Add(25 * time.Hour))
	if n := len(last.state.Pending); n != 0 {
		t.Errorf("%d are left", n)
	}
	for id, n := range last.ids {
		if n < 50 || n > 200 {
			t.Errorf("%s was tried %d times", id, n)
		}
	}
}

func TestADamagedFileIsSaid(t *testing.T) {
	for _, text := range []string{"", "{", `{"version":2}`, "[]"} {
		path := filepath.Join(t.TempDir(), "events.json")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(Options{Path: path}); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%q: %v", text, err)
		}
	}
}
