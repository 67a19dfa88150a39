package events

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base32"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/invitation"
)

// TestMain makes this test binary the service that a test kills, too.
func TestMain(m *testing.M) {
	if os.Getenv("EVENTS_CHILD") != "" {
		child()
		return
	}
	goleak.VerifyTestMain(m)
}

var (
	noon   = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	errNo  = errors.New("exit status 1")
	teller = []string{"/bin/tell"}
)

// key is a Token Vault Key.
func key(n int) string { return fmt.Sprintf("00000000-0000-0000-0000-%012d", n) }

func record(company string, n int, ends time.Time) grant.Record {
	var r grant.Record
	r.ID, r.TokenVaultKey, r.Generation = grant.ID{Company: company, Application: "rating", Environment: "lab"}, key(n), 1
	r.RefreshTokenExpires, r.RefreshUntil, r.AccessUntil = ends, ends, noon.Add(1e6*time.Hour)
	r.Requested = noon.Add(-time.Hour)
	return r
}

func void(r grant.Record) grant.Record {
	r.Void, r.LastError = true, &grant.LastError{Code: "10400", Message: "no", Time: noon}
	return r
}

// event is what the command gets to see.
type event struct {
	Header
	grant.ID
	State      string `json:"state"`
	Invitation struct {
		Key  string
		User string
		Why  invitation.Why
	} `json:"invitation"`
}

// invite is an invitation that is open for a week from noon.
func invite(company string, n int) invitation.Listed {
	sum := sha256.Sum256(fmt.Append(nil, n))
	key := invitation.Key(strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(sum[:])))
	return invitation.Listed{Key: key, Invitation: invitation.Invitation{
		ID: key.ID(), CompanyID: "id of " + strings.ToLower(company), Company: company, Application: "rating", Environment: "lab", ClientID: "cid",
		Made: noon, Expires: noon.Add(7 * day),
	}}
}

func wrong(l invitation.Listed, user string, at time.Time) invitation.Listed {
	l.Wrong = &invitation.Visit{User: user, At: at}
	return l
}

func held(l invitation.Listed, user string, at time.Time) invitation.Listed {
	l.SignIn = &invitation.SignIn{Visit: invitation.Visit{User: user, At: at}, TokenVaultKey: key(9), Held: true}
	return l
}

func ended(l invitation.Listed, why invitation.Why, at time.Time) invitation.Listed {
	l.End = &invitation.End{Why: why, At: at}
	return l
}

func invitedFacts(i invitation.Invitation, _ time.Time) ([]byte, error) {
	var e event
	e.ID = grant.ID{Company: i.Company, Application: i.Application, Environment: i.Environment}
	e.Invitation.Key = i.ID
	if i.Wrong != nil {
		e.Invitation.User = i.Wrong.User
	}
	if i.SignIn != nil {
		e.Invitation.User = i.SignIn.User
	}
	if i.End != nil {
		e.Invitation.Why = i.End.Why
	}
	return json.Marshal(struct {
		grant.ID
		Invitation any `json:"invitation"`
	}{e.ID, e.Invitation})
}

func (e event) String() string {
	text := e.Company + " " + string(e.Event)
	if e.Days != 0 {
		text += fmt.Sprintf(" %d", e.Days)
	}
	if e.After != "" {
		text += " after " + string(e.After)
	}
	if i := e.Invitation; i.User != "" {
		text += " " + i.User
	}
	if i := e.Invitation; i.Why != "" {
		text += " " + string(i.Why)
	}
	return text
}

// desk is a queue on a clock that goes on as somebody waits for it.
type desk struct {
	*Queue
	files *Files
	t     *testing.T
	dir   string
	now   time.Time
	log   bytes.Buffer
	told  []event
	// tried has how often each ID was.
	tried map[string]int
	fail  func(event) error
	// invitations are those that there are at the next look.
	invitations []invitation.Listed
}

func facts(r grant.Record, now time.Time) ([]byte, error) {
	return json.Marshal(struct {
		grant.ID
		State grant.State `json:"state"`
	}{r.ID, r.StateAt(now)})
}

func open(t *testing.T, dir string, now time.Time) *desk {
	d := &desk{t: t, dir: dir, now: now, tried: map[string]int{}, fail: func(event) error { return nil }}
	d.files = NewFiles(dir, func() time.Time { return d.now })
	d.Queue = New(Options{
		Store: d.files, Now: func() time.Time { return d.now }, Facts: facts, Invited: invitedFacts,
		Event:   func(format string, args ...any) { fmt.Fprintf(&d.log, format+"\n", args...) },
		Trouble: func(_, _, text string) { fmt.Fprintln(&d.log, text) },
		Run: func(_ context.Context, command []string, text []byte) (string, error) {
			var e event
			if err := json.Unmarshal(text, &e); err != nil || !bytes.HasSuffix(text, []byte("}\n")) || bytes.Count(text, []byte("\n")) != 1 {
				t.Errorf("told %q: %v", text, err)
			}
			d.tried[e.Header.ID]++
			if err := d.fail(e); err != nil {
				return "", err
			}
			d.told = append(d.told, e)
			return "", nil
		},
	})
	return d
}

func (d *desk) look(records ...grant.Record) {
	d.t.Helper()
	if err := d.Look(context.Background(), Known{Records: records, Complete: true, Invitations: d.invitations, AllInvitations: true}, teller); err != nil {
		d.t.Fatal(err)
	}
}

// work does what Work does until a time.
func (d *desk) work(until time.Time) {
	for d.now.Before(until) {
		one, wait := d.due(context.Background())
		switch {
		case one != nil:
			d.tell(d.t.Context(), *one)
		case wait == 0: // nothing waits
			d.now = until
		default:
			d.now = d.now.Add(min(wait, step))
		}
	}
	d.now = until
}

// want is what was told since the last time.
func (d *desk) want(what string, want ...string) {
	d.t.Helper()
	d.work(d.now.Add(time.Minute))
	var got []string
	for _, e := range d.told {
		got = append(got, e.String())
	}
	if strings.Join(got, ", ") != strings.Join(want, ", ") {
		d.t.Errorf("%s: told %q, want %q", what, got, want)
	}
	d.told = nil
}

func self(t *testing.T, env ...string) *exec.Cmd {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(program)
	c.Env = append(os.Environ(), env...)
	return c
}
