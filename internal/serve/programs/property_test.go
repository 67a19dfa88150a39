package programs

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/company"
	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/keeper"
	"github.com/upsauth/upsauth/internal/render"
	"github.com/upsauth/upsauth/internal/session"
)

// truth is what a command would answer that begins now, which has nothing in memory.
func (w *world) truth(t session.Target, minValid time.Duration) (status int, body string) {
	w.Helper()
	s := w.open()
	defer s.Close()
	record, err := s.Pick(w.Context(), t)
	if err == nil {
		var g grant.Grant
		if g, err = s.Token(w.Context(), record, minValid); err == nil {
			var text bytes.Buffer
			if err := render.JSON(&text, render.NewToken(g)); err != nil {
				w.Fatal(err)
			}
			return http.StatusOK, text.String()
		}
	}
	a := failure(err)
	return a.status, string(a.body)
}

// deed is something that a person or a program does to the same files.
type deed struct {
	name string
	do   func(ctx context.Context, s *session.Session) error
}

// random is what happens next.
func (w *world) random(r *rand.Rand, names []string) deed {
	name, other := names[r.IntN(len(names))], names[r.IntN(len(names))]
	id := grant.ID{Company: name, Application: []string{"rating", "batch"}[r.IntN(2)], Environment: []string{"lab", "lab2"}[r.IntN(2)]}
	of := func(ctx context.Context, s *session.Session) []grant.Record {
		list, _ := s.Known(ctx, name)
		return session.Authorized(list.Records)
	}
	switch r.IntN(11) {
	case 0, 1, 2:
		return deed{"authorize " + id.String(), func(ctx context.Context, s *session.Session) error { return authorize(ctx, s, id, w.home) }}
	case 3:
		return deed{"refresh " + id.String(), func(ctx context.Context, s *session.Session) error {
			_, err := s.Keeper.Refresh(ctx, id, keeper.Need{Always: true})
			return err
		}}
	case 4:
		return deed{"revoke " + id.String(), func(ctx context.Context, s *session.Session) error { return s.Keeper.Revoke(ctx, id) }}
	case 5:
		return deed{fmt.Sprintf("rename %s to %s", name, other), func(ctx context.Context, s *session.Session) error {
			grants := of(ctx, s)
			list, _ := s.Known(ctx, other)
			if err := session.Clash(grants, session.Authorized(list.Records)); err != nil {
				return err
			}
			return s.Rename(ctx, name, grants, other)
		}}
	case 6:
		return deed{"remove " + name, func(ctx context.Context, s *session.Session) error { return s.Forget(ctx, name, of(ctx, s), nil) }}
	case 7:
		return deed{"default " + id.Application + " " + id.Environment, func(ctx context.Context, s *session.Session) error {
			return s.UpdateApplications(ctx, func(a *config.Applications) {
				a.Default = &config.Default{Application: id.Application, Environment: id.Environment}
			})
		}}
	case 8:
		return deed{"no default", func(ctx context.Context, s *session.Session) error {
			return s.UpdateApplications(ctx, func(a *config.Applications) { a.Default = nil })
		}}
	case 9:
		return deed{"void " + id.String(), func(ctx context.Context, s *session.Session) error {
			unlock, err := s.Vault.Lock(ctx, id)
			if err != nil {
				return err
			}
			defer unlock()
			return s.Vault.Note(ctx, id, func(l *grant.Local) { l.Void = true })
		}}
	}
	return deed{"40 minutes later", func(context.Context, *session.Session) error { w.Advance(40 * time.Minute); return nil }}
}

// After whatever other processes did, the next answer is the one of a command that begins
// then, whatever was in memory before.
func TestAnswersAreThoseOfACommand(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			w := newWorld(t)
			r := rand.New(rand.NewPCG(seed, 7))
			names := []string{"Acme", "Apex", "Ümlaut & Söhne"}
			steps, done := 40, []string{}
			if testing.Short() {
				steps = 20
			}
			// Others ask all the time, so that memory is filled at every moment.
			stop := make(chan struct{})
			var askers sync.WaitGroup
			defer askers.Wait()
			defer close(stop)
			askers.Go(func() {
				for i := 0; ; i++ {
					select {
					case <-stop:
						return
					default:
						// Whatever the answer is: what is asked for may be under way.
						request, _ := http.NewRequest(http.MethodGet, "http://x/v1/token?min_valid=0s&company="+url.QueryEscape(names[i%len(names)]), nil)
						_, _ = w.programs.serve(request, false)
					}
				}
			})
			for range steps {
				next := w.random(r, names)
				other := w.open()
				err := next.do(t.Context(), other)
				other.Close()
				done = append(done, fmt.Sprintf("%s: %v", next.name, err))
				// At times so many that the directories are read no more.
				until := time.Now()
				if r.IntN(6) == 0 {
					until = until.Add(130 * time.Millisecond)
				}
				for first := true; first || time.Now().Before(until); first = false {
					for _, target := range []session.Target{
						{Company: names[r.IntN(len(names))]},
						{Company: names[r.IntN(len(names))], Application: "rating"},
						{Company: names[r.IntN(len(names))], Environment: "lab2"},
						{Company: names[r.IntN(len(names))], Application: "batch", Environment: "lab"},
					} {
						query := url.Values{"company": {target.Company}, "min_valid": {"1m"}}
						if target.Application != "" {
							query.Set("app", target.Application)
						}
						if target.Environment != "" {
							query.Set("env", target.Environment)
						}
						got := w.ask("", http.MethodGet, "/v1/token?"+query.Encode())
						status, body := w.truth(target, time.Minute)
						if got.Code != status || got.Body.String() != body {
							t.Fatalf("%+v: answered %d %s\na command answers %d %s\nafter %q", target, got.Code, got.Body, status, body, done)
						}
					}
				}
			}
		})
	}
}

// A session of another configuration knows nothing of what was remembered with the one
// before.
func TestNextRequestSeesTheConfiguration(t *testing.T) {
	var mu sync.Mutex
	var w *world
	w = newWorld(t, func(o *Options) {
		o.Session = func(context.Context) (*session.Session, error) {
			mu.Lock()
			defer mu.Unlock()
			return w.s, nil
		}
	})
	w.authorize("Acme", "rating", "lab")
	if a := w.token("Acme"); a.Code != 200 {
		t.Fatalf("%d %s", a.Code, a.Body)
	}
	if err := os.Rename(w.dir+"/identity.txt", w.dir+"/identity-away.txt"); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	w.s = w.open()
	mu.Unlock()
	if a := w.token("Acme"); a.Code != 503 || a.Error.ExitCode != 5 || a.Error.Class != "vault" {
		t.Errorf("%d %s", a.Code, a.Body)
	}
}

// What is added and described changes nothing of a token.
func TestNotesOfACompanyLeaveItsToken(t *testing.T) {
	w := newWorld(t)
	w.authorize("Acme", "rating", "lab")
	first := w.token("Acme")
	contact := "Jane"
	if err := w.open().AddCompanies(t.Context(), []company.New{{Name: "Acme", Contact: &contact}}, func(string, session.Outcome) {}); err != nil {
		t.Fatal(err)
	}
	if a := w.token("Acme"); a.Body.String() != first.Body.String() {
		t.Errorf("%d %s", a.Code, a.Body)
	}
}
