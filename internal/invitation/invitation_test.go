package invitation_test

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/invitation"
	"github.com/upsauth/upsauth/internal/invitation/files"
	"github.com/upsauth/upsauth/internal/invitation/invitationtest"
	"github.com/upsauth/upsauth/internal/invitation/postgres"
	"github.com/upsauth/upsauth/internal/safefile"
	"github.com/upsauth/upsauth/internal/vault/postgres/tablestest"
)

var now = time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)

// overStores runs a test of the rules over each store.
func overStores(t *testing.T, test func(*testing.T, *invitation.Book)) {
	t.Helper()
	t.Run("files", func(t *testing.T) {
		test(t, invitation.Open(files.New(filepath.Join(t.TempDir(), "invitations"), &safefile.Places{})))
	})
	t.Run("memory", func(t *testing.T) { test(t, invitation.Open(invitationtest.New())) })
	t.Run("database", func(t *testing.T) { test(t, invitation.Open(postgres.New(tablestest.New(t).Open(), tablestest.Code))) })
}

func draft() invitation.Draft {
	return invitation.Draft{
		CompanyID: "6f1c", Company: "Nord AG", Application: "batch-suite", Environment: "production",
		ClientID: "cid", Replaces: "TVK-1", Note: "  Call us\nfirst ", Lasts: 7 * 24 * time.Hour,
	}
}

func mustMake(t *testing.T, b *invitation.Book, d invitation.Draft) (invitation.Invitation, invitation.Key) {
	t.Helper()
	made, secret, err := b.Make(t.Context(), d, now)
	if err != nil {
		t.Fatal(err)
	}
	key, ok := invitation.KeyOf(secret)
	if !ok {
		t.Fatalf("%q is no secret", secret)
	}
	return made, key
}

func TestWhatIsMadeIsFound(t *testing.T) {
	overStores(t, func(t *testing.T, b *invitation.Book) {
		made, key := mustMake(t, b, draft())
		if made.Note != "Call us first" || !made.Expires.Equal(now.Add(7*24*time.Hour)) || len(made.ID) != 10 {
			t.Errorf("made %+v", made)
		}
		got, err := b.Get(t.Context(), key)
		if err != nil || !reflect.DeepEqual(got, made) {
			t.Errorf("%+v, %v\nis not %+v", got, err, made)
		}
		found, err := b.Find(t.Context(), strings.ToUpper(made.ID[:4]))
		if err != nil || found.Key != key || !reflect.DeepEqual(found.Invitation, made) {
			t.Errorf("%+v, %v", found, err)
		}
		other, _ := invitation.KeyOf(invitation.NewSecret())
		if _, err := b.Get(t.Context(), other); !errors.Is(err, invitation.ErrUnknown) {
			t.Errorf("another secret: %v", err)
		}
		if _, err := b.Find(t.Context(), ""); !errors.Is(err, invitation.ErrUnknown) {
			t.Errorf("no ID: %v", err)
		}
	})
}

// A grant has one open invitation, whoever makes several at once.
func TestOneOpenInvitationAGrant(t *testing.T) {
	overStores(t, func(t *testing.T, b *invitation.Book) {
		const many = 8
		keys := make([]invitation.Key, many)
		var all sync.WaitGroup
		for n := range many {
			all.Go(func() {
				_, secret, err := b.Make(t.Context(), draft(), now)
				if err != nil {
					t.Error(err)
				}
				keys[n], _ = invitation.KeyOf(secret)
			})
		}
		all.Wait()
		other := draft()
		other.Application = "intelligent-rating"
		mustMake(t, b, other)
		open := 0
		for _, key := range keys {
			i, err := b.Get(t.Context(), key)
			if err != nil {
				t.Fatal(err)
			}
			if i.Open(now) {
				open++
			} else if i.End == nil || i.End.Why != invitation.Replaced {
				t.Errorf("one that is not open ended as %+v", i.End)
			} else if _, err := b.Close(t.Context(), key, invitation.End{Why: invitation.Withdrawn, At: now}); !errors.As(err, new(*invitation.OverError)) {
				t.Errorf("one that was replaced is withdrawn: %v", err)
			}
		}
		if open != 1 {
			t.Errorf("%d of them are open", open)
		}
		list, problems, err := b.List(t.Context())
		if err != nil || len(problems) > 0 || len(list) != many+1 {
			t.Fatalf("%d, %v, %v", len(list), problems, err)
		}
		open = 0
		for _, l := range list {
			if l.Open(now) {
				open++
			}
		}
		if open != 2 {
			t.Errorf("%d in the list are open", open)
		}
	})
}

// One that is replaced ended when the newer one was made.
func TestWhenItWasReplaced(t *testing.T) {
	overStores(t, func(t *testing.T, b *invitation.Book) {
		_, key := mustMake(t, b, draft())
		later := now.Add(time.Hour)
		if _, _, err := b.Make(t.Context(), draft(), later); err != nil {
			t.Fatal(err)
		}
		list, _, err := b.List(t.Context())
		if err != nil || len(list) != 2 {
			t.Fatalf("%d, %v", len(list), err)
		}
		i, err := b.Get(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		for name, end := range map[string]*invitation.End{"by itself": i.End, "in the list": list[1].End} {
			if end == nil || end.Why != invitation.Replaced || !end.At.Equal(later) {
				t.Errorf("%s: %+v", name, end)
			}
		}
	})
}

// One that is just being made is not taken for one that was replaced: its file comes before
// the one that says which is the latest.
func TestOneThatIsBeingMade(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "invitations")
	b := invitation.Open(files.New(dir, &safefile.Places{}))
	latest := func() string {
		t.Helper()
		found, err := filepath.Glob(filepath.Join(dir, "*.latest"))
		if err != nil || len(found) != 1 {
			t.Fatalf("%v, %v", found, err)
		}
		return found[0]
	}
	want := func(keys ...invitation.Key) {
		t.Helper()
		list, problems, err := b.List(t.Context())
		if err != nil || len(problems) > 0 || len(list) != len(keys) {
			t.Fatalf("%+v, %v, %v", list, problems, err)
		}
		for n, l := range list {
			if l.Key != keys[n] || l.End != nil {
				t.Errorf("%+v", l)
			}
		}
	}
	_, key := mustMake(t, b, draft())
	want(key)
	before, err := os.ReadFile(latest())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(latest()); err != nil {
		t.Fatal(err)
	}
	want()
	if _, _, err := b.Make(t.Context(), draft(), now.Add(time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(latest(), before, 0o600); err != nil {
		t.Fatal(err)
	}
	want(key)
}

// Of several ends at once one counts.
func TestOneEnd(t *testing.T) {
	overStores(t, func(t *testing.T, b *invitation.Book) {
		_, key := mustMake(t, b, draft())
		ends := []invitation.Why{invitation.Completed, invitation.Withdrawn, invitation.Refused, invitation.Overtaken}
		failed := make([]error, len(ends))
		var all sync.WaitGroup
		for n, why := range ends {
			all.Go(func() { _, failed[n] = b.Close(t.Context(), key, invitation.End{Why: why, At: now, User: "jane"}) })
		}
		all.Wait()
		i, err := b.Get(t.Context(), key)
		if err != nil || i.End == nil {
			t.Fatalf("%+v, %v", i, err)
		}
		for n, err := range failed {
			if won := ends[n] == i.End.Why; won != (err == nil) || !won && !errors.As(err, new(*invitation.OverError)) {
				t.Errorf("%s: %v, and it ended as %s", ends[n], err, i.End.Why)
			}
		}
	})
}

func TestStates(t *testing.T) {
	around := invitation.Around{Company: "Nord AG", ClientID: "cid", TokenVaultKey: "TVK-1"}
	sealed := &invitation.SignIn{Visit: invitation.Visit{User: "jane", At: now}, TokenVaultKey: "TVK-2"}
	held := &invitation.SignIn{Visit: invitation.Visit{User: "jane", At: now}, TokenVaultKey: "TVK-2", Held: true}
	late := now.Add(8 * 24 * time.Hour)
	for name, test := range map[string]struct {
		change func(*invitation.Invitation, *invitation.Around)
		at     time.Time
		state  invitation.State
		why    invitation.Why
	}{
		"open":       {nil, now, invitation.StateOpen, ""},
		"at its end": {nil, now.Add(7 * 24 * time.Hour), invitation.StateEnded, invitation.Expired},
		"wrong user": {func(i *invitation.Invitation, _ *invitation.Around) {
			i.Wrong = &invitation.Visit{User: "joe", At: now}
		}, now, invitation.StateWrongUser, ""},
		"held":                     {func(i *invitation.Invitation, _ *invitation.Around) { i.SignIn = held }, now, invitation.StateHeld, ""},
		"held, long after its end": {func(i *invitation.Invitation, _ *invitation.Around) { i.SignIn = held }, late, invitation.StateHeld, ""},
		"granted, not in place":    {func(i *invitation.Invitation, _ *invitation.Around) { i.SignIn = sealed }, now, invitation.StateOpen, ""},
		"in place, not noted": {func(i *invitation.Invitation, a *invitation.Around) { i.SignIn, a.TokenVaultKey = sealed, "TVK-2" }, late,
			invitation.StateCompleted, invitation.Completed},
		"a rename":            {func(_ *invitation.Invitation, a *invitation.Around) { a.Company = "Nord GmbH" }, now, invitation.StateOpen, ""},
		"a revoke":            {func(_ *invitation.Invitation, a *invitation.Around) { a.TokenVaultKey = "" }, now, invitation.StateOpen, ""},
		"another sign-in":     {func(_ *invitation.Invitation, a *invitation.Around) { a.TokenVaultKey = "TVK-9" }, now, invitation.StateEnded, invitation.Overtaken},
		"held, another came":  {func(i *invitation.Invitation, a *invitation.Around) { i.SignIn, a.TokenVaultKey = held, "TVK-9" }, now, invitation.StateEnded, invitation.Overtaken},
		"company removed":     {func(_ *invitation.Invitation, a *invitation.Around) { a.Company = "" }, now, invitation.StateEnded, invitation.CompanyRemoved},
		"application removed": {func(_ *invitation.Invitation, a *invitation.Around) { a.ClientID = "" }, now, invitation.StateEnded, invitation.ApplicationRemoved},
		"another client ID":   {func(_ *invitation.Invitation, a *invitation.Around) { a.ClientID = "other" }, now, invitation.StateEnded, invitation.ClientChanged},
		"noted, then whatever": {func(i *invitation.Invitation, a *invitation.Around) {
			i.End = &invitation.End{Why: invitation.Withdrawn, At: now}
			*a = invitation.Around{}
		}, late, invitation.StateEnded, invitation.Withdrawn},
	} {
		t.Run(name, func(t *testing.T) {
			i := invitation.Invitation{ClientID: "cid", Replaces: "TVK-1", Made: now, Expires: now.Add(7 * 24 * time.Hour)}
			a := around
			if test.change != nil {
				test.change(&i, &a)
			}
			got := i.Judged(test.at, a)
			why := invitation.Why("")
			if got.End != nil {
				why = got.End.Why
			}
			if got.State(test.at) != test.state || why != test.why {
				t.Errorf("%s, %q", got.State(test.at), why)
			}
		})
	}
}

// What mail programs and people do to the end of an address.
func TestSecretsOutOfMails(t *testing.T) {
	secret := invitation.NewSecret()
	want, ok := invitation.KeyOf(secret)
	if !ok || !want.Valid() || len(secret) != 32 {
		t.Fatalf("%q, %v", want, ok)
	}
	for _, text := range []string{
		strings.ToUpper(secret), secret + ".", secret + ">", secret + "),", secret + "/", secret + "\u00a0", secret + "…",
		secret[:20] + "=\r\n" + secret[20:], secret[:7] + "\u200b" + secret[7:], " " + secret + "\n",
		"<" + secret + ">", "/" + secret, secret + ".html", secret + "?utm_source=mail", secret + "&fbclid=x", secret + "\" target=_blank",
	} {
		if got, ok := invitation.KeyOf(text); !ok || got != want {
			t.Errorf("%q is not taken for the secret", text)
		}
	}
	for _, text := range []string{"", secret[:31], secret + "a", secret[:31] + "1", secret + "é", "x" + secret, "é" + secret[:31], strings.Repeat("é", 32)} {
		if got, ok := invitation.KeyOf(text); ok && got == want {
			t.Errorf("%q is taken for the secret", text)
		} else if ok {
			t.Errorf("%q is taken for a secret", text)
		}
	}
}

func TestSweep(t *testing.T) {
	overStores(t, func(t *testing.T, b *invitation.Book) {
		_, key := mustMake(t, b, draft())
		for _, days := range []int{7, 186} {
			if err := b.Sweep(t.Context(), now.Add(time.Duration(days)*24*time.Hour)); err != nil {
				t.Fatal(err)
			}
			if _, err := b.Get(t.Context(), key); err != nil {
				t.Errorf("after %d days: %v", days, err)
			}
		}
		if err := b.Sweep(t.Context(), now.Add(188*24*time.Hour)); err != nil {
			t.Fatal(err)
		}
		if _, err := b.Get(t.Context(), key); !errors.Is(err, invitation.ErrUnknown) {
			t.Errorf("it is not forgotten: %v", err)
		}
	})
}
