package company_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/upsauth/upsauth/internal/company"
	"github.com/upsauth/upsauth/internal/grant"
)

func identify(t testing.TB, b shelf, name string) string {
	t.Helper()
	id, err := b.Identify(t.Context(), name, noon)
	check(t, err)
	if id == "" {
		t.Fatalf("%s has no identity", name)
	}
	return id
}

func identified(t testing.TB, b shelf) *company.Identified {
	t.Helper()
	all, err := b.Identified(t.Context())
	check(t, err)
	return all
}

// The identity of a company is that of what was added, and not of a name.
func TestIdentityFollowsTheCompany(t *testing.T) {
	eachStore(t, func(t *testing.T, b shelf) {
		ctx := t.Context()
		acme := identify(t, b, "Acme")
		if again := identify(t, b, "ACME"); again != acme {
			t.Errorf("%s, then %s", acme, again)
		}
		apex := identify(t, b, "Apex")
		if apex == acme {
			t.Error("two companies have one identity")
		}
		is := func(name string, ids ...string) {
			t.Helper()
			for _, id := range []string{acme, apex} {
				want := slices.Contains(ids, id)
				if all := identified(t, b); all.Has(name, []string{id}) != want || all.Is(name, []string{id}) != want {
					t.Errorf("%s: has %t, is %t, want %t", name, all.Has(name, []string{id}), all.Is(name, []string{id}), want)
				}
			}
		}
		is("acme", acme)
		is("Apex", apex)
		is("Other")
		_, err := b.Describe(ctx, "Acme", noon, func(d *company.Details) { d.Contact = "Jane" })
		check(t, err)
		is("Acme", acme)
		check(t, b.Rename(ctx, "Acme", "acme", noon)) // spelled in another way
		is("Acme", acme)
		check(t, b.Rename(ctx, "acme", "Globex", noon))
		is("Acme")
		is("Globex", acme)
		if name := identified(t, b).Name(acme); name != "Globex" {
			t.Errorf("it is called %q", name)
		}
		_, err = b.Add(ctx, "Acme", noon)
		check(t, err)
		is("Acme")
		check(t, b.Rename(ctx, "Globex", "Apex", noon))
		is("Globex")
		is("Apex", acme, apex)
		check(t, b.Remove(ctx, "Apex"))
		is("Apex")
		if name := identified(t, b).Name(acme); name != "" {
			t.Errorf("it was removed and is called %q", name)
		}
		_, err = b.Add(ctx, "Apex", noon)
		check(t, err)
		is("Apex")
		if anew := identify(t, b, "Apex"); anew == acme || anew == apex {
			t.Error("a company that is made anew has the identity of the one that was removed")
		}
	})
}

// What can't be read has no identity, and gets none.
func TestIdentityOfWhatIsDamaged(t *testing.T) {
	eachStore(t, func(t *testing.T, b shelf) {
		id := identify(t, b, "Acme")
		other := identify(t, b, "Other")
		b.damage("Acme", company.Added)
		all := identified(t, b)
		if all.Has("Acme", []string{id}) || !all.Has("Other", []string{other}) {
			t.Error("a damaged company has an identity, or does harm to others")
		}
		if anew := identify(t, b, "Acme"); anew == id {
			t.Error("it came back")
		}
		b.breakRow("Acme", company.Added)
		if id, err := b.Identify(t.Context(), "Acme", noon); !errors.As(err, new(*company.FileError)) {
			t.Errorf("%q, %v", id, err)
		}
	})
}

// Many that need an identity at once get the same.
func TestOneIdentityForAll(t *testing.T) {
	eachStore(t, func(t *testing.T, b shelf) {
		var mu sync.Mutex
		ids := map[string]bool{}
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				id, err := company.Open(b.again()).Identify(t.Context(), "Acme", noon)
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				ids[id] = true
			})
		}
		all.Wait()
		if len(ids) != 1 {
			t.Errorf("%d identities", len(ids))
		}
	})
}

// Whatever another process does with companies, this one sees it at once, and no identity
// is ever with two companies or comes back.
func TestIdentitiesAreSeenAtOnce(t *testing.T) {
	eachStore(t, func(t *testing.T, b shelf) {
		other := company.Open(b.again())
		names := []string{"a", "b", "c", "d"}
		model := map[string][]string{} // the identities by company
		r := rand.New(rand.NewPCG(3, 4))
		var done []string
		for i := range 300 {
			name, to := names[r.IntN(len(names))], names[r.IntN(len(names))]
			var err error
			switch r.IntN(4) {
			case 0, 1:
				var id string
				id, err = other.Identify(t.Context(), name, noon)
				if len(model[name]) == 0 {
					model[name] = []string{id}
				}
				done = append(done, "identify "+name)
			case 2:
				err = other.Rename(t.Context(), name, to, noon)
				if name != to {
					model[to] = append(model[to], model[name]...)
					delete(model, name)
				}
				done = append(done, "rename "+name+" "+to)
			default:
				err = other.Remove(t.Context(), name)
				delete(model, name)
				done = append(done, "remove "+name)
			}
			check(t, err)
			all := identified(t, b)
			for _, name := range names {
				for _, owner := range names {
					for _, id := range model[owner] {
						if got, want := all.Has(name, []string{id}), owner == name; got != want {
							t.Fatalf("step %d: %s has an identity of %s: %t, after %s", i, name, owner, got, strings.Join(done, ", "))
						}
					}
				}
			}
		}
	})
}

// Companies of earlier versions that look the same are told apart.
func TestIdentityOfTwins(t *testing.T) {
	b := fileShelf(t)
	odd := "Ac\u200bme"
	id := identify(t, b, odd)
	all := identified(t, b)
	if !all.Has("Acme", []string{id}) || all.Is("Acme", []string{id}) || !all.Is(odd, []string{id}) {
		t.Error(fmt.Sprint(all.Has("Acme", []string{id}), all.Is("Acme", []string{id}), all.Is(odd, []string{id})), grant.CompanySlot(odd))
	}
}
