package vault_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/vault"
)

// listing is a keychain that lists what a test says.
type listing struct {
	vault.Home
	accounts []string
	err      error
}

func (listing) Name() string { return "keychain" }

func (l listing) Accounts(context.Context) ([]string, error) { return l.accounts, l.err }

func wantOrphans(t *testing.T, v *vault.Vault, want ...grant.Place) {
	t.Helper()
	orphans, problems, err := orphansOf(t, v)
	if err != nil || len(problems) != 0 || !slices.Equal(orphans, want) {
		t.Errorf("%+v, %v, %v; want %+v", orphans, problems, err, want)
	}
}

// What a record or a journal speaks of is no orphan, and neither are client
// secrets.
func TestOrphans(t *testing.T) {
	w := newWorld(t)
	v := w.open()
	authorize(t, v, grantOf(acme, keyA, 1))
	j := login(apex, keyB)
	check(t, v.Claim(t.Context(), &j))
	check(t, v.PutSecret(t.Context(), "file", "app/production/x", "s3cret"))
	wantOrphans(t, v)
	check(t, w.home().Put(t.Context(), keyC+"/journal", 0, []byte(`{}`)))
	check(t, w.home().Put(t.Context(), keyC, 1, []byte(`{}`)))
	inFile := grant.Place{TokenVaultKey: keyC, Home: "file"}
	wantOrphans(t, v, inFile)

	// Each home is told, and each once however many items and parts it has.
	keychain := listing{accounts: []string{
		keyA, keyA + "/journal", keyB + "/g2/1", "app/production/x", "not upsauth's",
		keyC, keyC + "/g7/1", keyC + "/g7/2", keyC + "/journal",
	}}
	// A's record says that it is in the file home, so this is a copy that a
	// refresh would not reach.
	copied := grant.Place{TokenVaultKey: keyA, Home: "keychain"}
	wantOrphans(t, w.open(keychain, w.home()), copied, grant.Place{TokenVaultKey: keyC, Home: "keychain"}, inFile)
	if orphans, _, err := orphansOf(t, w.open(keychain, w.home()), "file"); err != nil || !slices.Equal(orphans, []grant.Place{inFile}) {
		t.Errorf("in the file home alone: %+v, %v", orphans, err)
	}

	// A refresh that was cut off speaks of no record that is gone.
	cut := refreshing(grantOf(acme, keyA, 1))
	check(t, v.Claim(t.Context(), &cut))
	w.damageRecord(acme)
	wantOrphans(t, v, grant.Place{TokenVaultKey: keyA, Home: "file"}, inFile)
}

// What one home has is told whatever is the matter with another.
func TestOrphansWhereAHomeCantBeListed(t *testing.T) {
	w := newWorld(t)
	check(t, w.home().Put(t.Context(), keyC, 1, []byte(`{}`)))
	inFile := grant.Place{TokenVaultKey: keyC, Home: "file"}
	wantOrphans(t, w.open(listing{err: vault.ErrNoList}, w.home()), inFile)

	absent := &vault.HomeError{Home: "keychain", What: "There is no keychain here."}
	orphans, problems, err := orphansOf(t, w.open(listing{err: absent}, w.home()))
	if err != nil || !slices.Equal(orphans, []grant.Place{inFile}) || !slices.Equal(problems, []error{absent}) {
		t.Errorf("%+v, %v, %v", orphans, problems, err)
	}
}

// doctor says that orphans may be deleted: no living grant may be called one,
// wherever the state directory is and whoever wrote the record.
func TestLivingGrantsAreNoOrphans(t *testing.T) {
	w := newWorld(t)
	w.dir += oddName
	v := w.open()
	authorize(t, v, grantOf(acme, keyA, 1))
	j := login(acme, keyB)
	check(t, v.Claim(t.Context(), &j))
	wantOrphans(t, v)
}

func TestRename(t *testing.T) {
	w := newWorld(t)
	v := w.open()
	g := authorize(t, v, grantOf(acme, keyA, 1))
	other := acme
	other.Company = "Other"
	authorize(t, v, grantOf(other, keyB, 1))

	var taken *vault.TakenError
	if err := v.Rename(t.Context(), acme, other); !errors.As(err, &taken) || taken.ID != other {
		t.Errorf("onto another company: %v", err)
	}
	zeta := acme
	zeta.Company = "Zeta"
	check(t, v.Rename(t.Context(), acme, zeta))
	if _, err := v.Record(t.Context(), acme); !errors.Is(err, grant.ErrNoGrant) {
		t.Errorf("the old name: %v", err)
	}
	if got := mustGet(t, w.open(), zeta); got.RefreshToken != g.RefreshToken || got.Company != "Zeta" {
		t.Errorf("under the new name: %+v", got.Record)
	}
	louder := zeta
	louder.Company = "ZETA"
	check(t, v.Rename(t.Context(), zeta, louder))
	if record, err := v.Record(t.Context(), zeta); err != nil || record.Company != "ZETA" || record.Was != "" {
		t.Errorf("%+v, %v", record, err)
	}
	if err := v.Rename(t.Context(), acme, zeta); !errors.Is(err, grant.ErrNoGrant) {
		t.Errorf("a name that is gone: %v", err)
	}
}

// An answer that nobody could use yet belongs to its grant, whatever that is
// called now.
func TestRenameTakesUnreadAnswersAlong(t *testing.T) {
	w := newWorld(t)
	v := w.open()
	g := authorize(t, v, grantOf(acme, keyA, 1))
	j := refreshing(g)
	check(t, v.Claim(t.Context(), &j))
	check(t, v.Seal(t.Context(), &j, &g, []byte(answer)))
	over(t, v, j)
	zeta := acme
	zeta.Company = "Zeta"
	check(t, v.Rename(t.Context(), acme, zeta))
	w.wantFiles("journals/open", zeta.Slot()+"."+keyA)
	if kept, problems, err := v.Kept(t.Context()); err != nil || len(problems) > 0 || len(kept) != 1 || kept[0].ID != zeta {
		t.Errorf("kept are %+v, %v, %v", kept, problems, err)
	}
	check(t, v.Delete(t.Context(), zeta))
	w.wantNothing()
}

// orphansOf looks for orphans as a command does: with the records that it read
// before.
func orphansOf(t testing.TB, v *vault.Vault, among ...string) ([]grant.Place, []error, error) {
	t.Helper()
	survey, err := v.Survey(t.Context(), "")
	check(t, err)
	listing := v.ListHomes(t.Context(), among...)
	orphans, err := v.Orphans(t.Context(), listing, survey.Records)
	return orphans, listing.Problems, err
}
