package postgres

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/upsauth/upsauth/internal/invitation"
	"github.com/upsauth/upsauth/internal/vault/postgres"
	"github.com/upsauth/upsauth/internal/vault/postgres/tablestest"
)

// The rules of invitations are tested over this store with all others, in invitation.

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func newRow() invitation.Row {
	key, _ := invitation.KeyOf(invitation.NewSecret())
	return invitation.Row{RowKey: invitation.RowKey{Part: invitation.Invitations, Key: key}, Invitation: invitation.Invitation{
		ID: key.ID(), CompanyID: "6f1c", Company: "Nord AG", Application: "batch-suite", Environment: "production",
		ClientID: "cid", Made: noon, Expires: noon.Add(time.Hour),
	}}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// All that an invitation can have in it comes back as it was.
func TestRowsAreKeptAsTheyAre(t *testing.T) {
	s, ctx := New(tablestest.New(t).Open(), tablestest.Code), t.Context()
	full, latest := newRow(), newRow()
	full.Invitation.Replaces, full.Invitation.ExpectUser, full.Invitation.AnyUser, full.Invitation.By = "TVK-1", "jane", true, "manager"
	full.Invitation.Note, full.Invitation.ReturnURL = "größer \u2028", "https://x.example/?a=b"
	full.Invitation.Wrong = &invitation.Visit{User: "j\x00e", At: noon}
	full.Invitation.SignIn = &invitation.SignIn{Visit: invitation.Visit{User: "jane", At: noon}, TokenVaultKey: "TVK-2", Home: "shared", Held: true, Doubts: []string{"a", "b"}}
	full.Invitation.End = &invitation.End{Why: invitation.Refused, At: noon, User: "jane"}
	latest.RowKey.Part, latest.Invitation, latest.Latest = invitation.Latest, invitation.Invitation{}, full.Key
	check(t, s.Commit(ctx, []invitation.Row{full, latest}, nil))
	for _, want := range []invitation.Row{full, latest} {
		got, err := s.Get(ctx, want.RowKey)
		check(t, err)
		list, problems, err := s.List(ctx, want.Part)
		if err != nil || len(problems) != 0 || len(list) != 1 || !reflect.DeepEqual(list[0], got) {
			t.Errorf("%+v, %v, %v", list, problems, err)
		}
		if got.Version == "" || got.Place == "" {
			t.Errorf("%+v", got)
		}
		if got.Version, got.Place = "", ""; !reflect.DeepEqual(got, want) {
			t.Errorf("%+v\nis not %+v", got, want)
		}
	}
}

// Of two hosts that change what both have read, one is told.
func TestOneOfTwoIsToldOfTheConflict(t *testing.T) {
	tables, ctx := tablestest.New(t), t.Context()
	stores := []*Store{New(tables.Open(), tablestest.Code), New(tables.Open(), tablestest.Code)}
	// oneOfTwo has both do the same at once: one succeeds, and the other changes nothing.
	oneOfTwo := func(what string, more int, change func(*Store) error) {
		t.Helper()
		before, _, err := stores[0].List(ctx, invitation.Invitations)
		check(t, err)
		var both sync.WaitGroup
		errs := make([]error, 2)
		for i := range errs {
			both.Go(func() { errs[i] = change(stores[i]) })
		}
		both.Wait()
		if errs[0] == nil {
			slices.Reverse(errs)
		}
		if errs[1] != nil || !errors.As(errs[0], new(*invitation.ConflictError)) {
			t.Fatalf("%s: %v", what, errs)
		}
		after, _, err := stores[0].List(ctx, invitation.Invitations)
		check(t, err)
		if len(after) != len(before)+more {
			t.Errorf("%s: there were %d rows, and are %d", what, len(before), len(after))
		}
	}
	for range 20 {
		row := newRow()
		oneOfTwo("insert", 2, func(s *Store) error { return s.Commit(ctx, []invitation.Row{newRow(), row}, nil) })
		row, err := stores[0].Get(ctx, row.RowKey)
		check(t, err)
		oneOfTwo("change", 1, func(s *Store) error { return s.Commit(ctx, []invitation.Row{newRow(), row}, nil) })
		row, err = stores[0].Get(ctx, row.RowKey)
		check(t, err)
		oneOfTwo("remove", 0, func(s *Store) error { return s.Commit(ctx, []invitation.Row{newRow()}, []invitation.Row{row}) })
	}
}

// What can't be used is a problem of its row, and the reading tells of every change.
func TestWhatCantBeReadIsNotNothing(t *testing.T) {
	tables, ctx := tablestest.New(t), t.Context()
	s := New(tables.Open(), tablestest.Code)
	if some, err := s.Any(ctx); some || err != nil {
		t.Errorf("%t, %v", some, err)
	}
	good := newRow()
	check(t, s.Commit(ctx, []invitation.Row{good}, nil))
	for name, text := range map[string]string{
		"empty": `{}`, "a list": `[]`, "newer": `{"version":2}`, "an unknown member": `{"version":1,"limit":1}`,
		"a member twice": `{"version":1,"version":1}`, "of another part": `{"version":1,"latest":"` + string(good.Key) + `"}`,
	} {
		before, err := s.Reading(ctx)
		check(t, err)
		bad := newRow()
		tables.SQL("INSERT INTO upsauth.invitations VALUES ('invitation', '" + string(bad.Key) + "', 5, '" + text + "', sha256(''))")
		after, err := s.Reading(ctx)
		if err != nil || after == before || after == 0 {
			t.Errorf("%s: the reading was %d and is %d, %v", name, before, after, err)
		}
		var file *invitation.FileError
		if _, err := s.Get(ctx, bad.RowKey); !errors.As(err, &file) || file.Damaged == (name == "newer") || file.Path == "" {
			t.Errorf("%s: %v", name, err)
		}
		if err := s.Commit(ctx, []invitation.Row{newRow(), bad}, nil); !errors.As(err, new(*invitation.FileError)) {
			t.Errorf("%s is replaced: %v", name, err)
		}
		rows, problems, err := s.List(ctx, invitation.Invitations)
		if err != nil || len(rows) != 1 || len(problems) != 1 {
			t.Errorf("%s: %+v, %v, %v", name, rows, problems, err)
		}
		tables.SQL("DELETE FROM upsauth.invitations WHERE key = '" + string(bad.Key) + "'")
	}
	if some, err := s.Any(ctx); !some || err != nil {
		t.Errorf("%t, %v", some, err)
	}
}

// A row that somebody else wrote is used by nobody, and gets no code by a change.
func TestRowWithoutItsCode(t *testing.T) {
	tables, ctx := tablestest.New(t), t.Context()
	s := New(tables.Open(), tablestest.Code)
	for name, forge := range map[string]string{
		"another text":        "invitation = replace(invitation::text, '\"client_id\":\"', '\"client_id\":\"not ')::json",
		"an address of one's": "key = '" + string(newRow().Key) + "'",
		"no code":             "mac = sha256('')",
	} {
		row := newRow()
		check(t, s.Commit(ctx, []invitation.Row{row}, nil))
		key := tables.SQL("UPDATE upsauth.invitations SET " + forge + " RETURNING key")[0][0]
		row.Key = invitation.Key(key)
		var file *invitation.FileError
		if got, err := s.Get(ctx, row.RowKey); !errors.As(err, &file) || !strings.Contains(err.Error(), "not what upsauth put there") {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
		// As who has read an earlier version of it.
		if err := s.Commit(ctx, []invitation.Row{row}, nil); !errors.As(err, &file) {
			t.Errorf("%s: whoever changes it is told %v", name, err)
		}
		tables.SQL("DELETE FROM upsauth.invitations")
	}
}

// A database that is away is no list without invitations.
func TestDatabaseThatIsAway(t *testing.T) {
	tables, ctx := tablestest.New(t), t.Context()
	s := New(tables.Away(), tablestest.Code)
	_, getErr := s.Get(ctx, newRow().RowKey)
	_, _, listErr := s.List(ctx, invitation.Invitations)
	_, anyErr := s.Any(ctx)
	_, readingErr := s.Reading(ctx)
	for what, err := range map[string]error{
		"get": getErr, "list": listErr, "any": anyErr, "reading": readingErr, "commit": s.Commit(ctx, []invitation.Row{newRow()}, nil),
	} {
		var away *postgres.Error
		if !errors.As(err, &away) || away.Reason != postgres.Away {
			t.Errorf("%s: %v", what, err)
		}
	}
}
