package keychain

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/upsauth/upsauth/internal/vault"
)

// secretOf makes a grant's JSON of exactly size bytes, filled with a text.
func secretOf(generation int64, size int, fill string) string {
	start, end := fmt.Sprintf(`{"generation":%d,"access_token":"`, generation), `"}`
	room := size - len(start) - len(end)
	text := strings.Repeat(fill, max(room, 0)/len(fill))
	return start + text + strings.Repeat("x", max(room-len(text), 0)) + end
}

func generationOf(t *testing.T, secret string) int64 {
	t.Helper()
	var g struct{ Generation int64 }
	if err := json.Unmarshal([]byte(secret), &g); err != nil {
		t.Fatal(err)
	}
	return g.Generation
}

func TestLimits(t *testing.T) {
	for goos, want := range map[string]int{"windows": windowsLimit, "darwin": darwinLimit, "ios": darwinLimit, "linux": 0, "freebsd": 0, "": 0} {
		if got := Limit(goos); got != want {
			t.Errorf("the limit on %q is %d, want %d", goos, got, want)
		}
	}
}

// Windows refuses an item over its limit and macOS garbles one: no item may
// ever be larger, and none may end within a character.
func TestEveryItemKeepsToTheLimit(t *testing.T) {
	for _, limit := range []int{windowsLimit, darwinLimit} {
		for _, fill := range []string{"a", "é", "€", "😀", "aé€😀", "\x80", "\xf0\x9f"} {
			for _, size := range []int{40, limit - 1, limit, limit + 1, limit + 2, limit + 3, 2*limit - 1, 2 * limit, 2*limit + 1, 8 << 10, 20 << 10} {
				t.Run(fmt.Sprintf("limit %d, %d bytes of %+q", limit, size, fill), func(t *testing.T) {
					r := newRing()
					h := New(r, limit, 0, nil)
					secret := secretOf(7, size, fill)
					mustPut(t, h, key, 7, secret)
					if mustGet(t, h, key) != secret {
						t.Fatal("it does not come back as it was")
					}
					for account, item := range r.items {
						if len(item) > limit {
							t.Errorf("%s has %d bytes", account, len(item))
						}
						if utf8.ValidString(secret) && !utf8.ValidString(item) {
							t.Errorf("%s ends within a character", account)
						}
					}
					if len(secret) <= limit && r.items[key] != secret {
						t.Errorf("a secret that fits is kept as %q", r.items[key])
					}
				})
			}
		}
	}
}

func TestPartsAreWrittenBeforeTheHeadAndOldOnesGoLast(t *testing.T) {
	r := newRing()
	h := New(r, windowsLimit, 0, nil)
	mustPut(t, h, key, 1, secretOf(1, 3*windowsLimit, "old"))
	r.calls = nil
	mustPut(t, h, key, 2, secretOf(2, 2*windowsLimit, "new"))

	var changes []string
	for _, call := range r.calls {
		if !strings.HasPrefix(call, "get ") {
			changes = append(changes, strings.Replace(call, key, "KEY", 1))
		}
	}
	want := []string{"set KEY/g2/1", "set KEY/g2/2", "set KEY", "delete KEY/g1/3", "delete KEY/g1/2", "delete KEY/g1/1"}
	if !slices.Equal(changes, want) {
		t.Errorf("changes: %q\nwant:    %q", changes, want)
	}
	if want := []string{key, key + "/g2/1", key + "/g2/2"}; !slices.Equal(r.accounts(), want) {
		t.Errorf("there are %q, want %q", r.accounts(), want)
	}
}

func TestUnlimitedKeychainGetsOneItem(t *testing.T) {
	r := newRing()
	h := New(r, 0, 0, nil)
	secret := secretOf(1, 100_000, "a")
	mustPut(t, h, key, 1, secret)
	if mustGet(t, h, key) != secret || !slices.Equal(r.accounts(), []string{key}) {
		t.Errorf("there are %q", r.accounts())
	}
	if err := h.Delete(t.Context(), key); err != nil || len(r.items) != 0 {
		t.Errorf("%v; left: %q", err, r.accounts())
	}
}

func TestMissingItem(t *testing.T) {
	for _, limit := range []int{0, windowsLimit} {
		h := New(newRing(), limit, 0, nil)
		if got, err := h.Get(t.Context(), key); !errors.Is(err, vault.ErrNoItem) {
			t.Errorf("Get: %q, %v", got, err)
		}
		if err := h.Delete(t.Context(), key); err != nil {
			t.Errorf("Delete: %v", err)
		}
	}
}

func TestAccounts(t *testing.T) {
	r := newRing()
	h := New(lister{r}, windowsLimit, 0, nil)
	if got, err := h.Accounts(t.Context()); err != nil || len(got) != 0 {
		t.Errorf("an empty keychain has %q, %v", got, err)
	}
	mustPut(t, h, key, 3, secretOf(3, windowsLimit+1, "a"))
	mustPut(t, h, key+"/journal", 0, "{}")
	want := []string{key, key + "/g3/1", key + "/g3/2", key + "/journal"}
	if got, err := h.Accounts(t.Context()); err != nil || !slices.Equal(got, want) {
		t.Errorf("there are %q, %v; want %q", got, err, want)
	}
	cause := errors.New("the moon is in the wrong phase")
	r.before = func(string, string) error { return cause }
	got, err := h.Accounts(t.Context())
	if e := homeError(t, err); got != nil || !errors.Is(err, cause) || !strings.Contains(e.What, "can't be listed") {
		t.Errorf("%q, %+v", got, e)
	}
}

func TestRingThatCantList(t *testing.T) {
	r := newRing()
	if got, err := New(r, 0, 0, nil).Accounts(t.Context()); got != nil || !errors.Is(err, vault.ErrNoList) || len(r.calls) != 0 {
		t.Errorf("%q, %v, and the calls are %q", got, err, r.calls)
	}
}

// The deadline and the one turn are for lists as well.
func TestUnansweredListEndsAtTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRing()
		release := hang(r)
		h := New(lister{r}, 0, 0, nil)
		start := time.Now()
		for range 2 {
			got, err := h.Accounts(background())
			if e := homeError(t, err); got != nil || !e.TimedOut || time.Since(start) != 10*time.Second {
				t.Errorf("after %s: %q, %+v", time.Since(start), got, e)
			}
		}
		release()
		synctest.Wait()
		if !slices.Equal(r.calls, []string{"list upsauth"}) {
			t.Errorf("the calls are %q", r.calls)
		}
	})
}

// The grants of two companies, and what belongs to one grant, are near each
// other in the keychain.
func TestDeleteLeavesTheNeighboursAlone(t *testing.T) {
	r := newRing()
	h := New(r, darwinLimit, 0, nil)
	for _, account := range []string{key, key + "/journal", "0" + key, "app/production/batch-suite"} {
		mustPut(t, h, account, 1, secretOf(1, 3*darwinLimit, account))
	}
	if err := h.Delete(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	for _, account := range []string{key + "/journal", "0" + key, "app/production/batch-suite"} {
		if mustGet(t, h, account) != secretOf(1, 3*darwinLimit, account) {
			t.Errorf("%s is not what it was", account)
		}
	}
	for _, account := range r.accounts() {
		if account == key || strings.HasPrefix(account, key+"/g") {
			t.Errorf("%s is left", account)
		}
	}
}

// Power goes, a person presses Ctrl-C twice, Windows restarts: whenever a write
// ends, the old secret or the new one is there and whole, the next write sets
// all right, and a removal finds everything there is.
func TestWriteThatIsCutOffAnywhere(t *testing.T) {
	const limit = 256
	olds := map[string]int{"nothing": 0, "one piece": 100, "three parts": 3 * limit}
	news := map[string]int{"one piece": 100, "two parts": limit + 1, "three parts": 3 * limit}
	for oldName, oldSize := range olds {
		for newName, newSize := range news {
			t.Run(newName+" over "+oldName, func(t *testing.T) {
				t.Parallel()
				base, old := newRing(), ""
				if oldSize > 0 {
					old = secretOf(1, oldSize, "old")
					mustPut(t, New(base, limit, 0, nil), key, 1, old)
				}
				fresh := secretOf(nextGeneration(t, old), newSize, "new")
				put := func(r *ring, secret string) error {
					return New(r, limit, 0, nil).Put(background(), key, generationOf(t, secret), []byte(secret))
				}
				cutOffs(t, base, func(r *ring) error { return put(r, fresh) }, func(cut string, r *ring) {
					now := wantOneOf(t, cut, r, old, fresh)
					wantRemovable(t, cut, r, limit)
					wantSetRight(t, cut, r, limit, now)

					// The next write may be cut off as well.
					third := secretOf(nextGeneration(t, now), limit+1, "3rd")
					cutOffs(t, r, func(r *ring) error { return put(r, third) }, func(again string, r *ring) {
						now := wantOneOf(t, cut+", "+again, r, now, third)
						wantSetRight(t, cut+", "+again, r, limit, now)
						wantRemoved(t, cut+", "+again, r, limit)
					})
				})
			})
		}
	}
}

// What is no grant has no generations; a client secret that is too large for
// one item must be as safe.
func TestSecretWithoutGenerationsThatIsCutOff(t *testing.T) {
	const limit = 256
	secrets := []string{"first", "again", "third"}
	for i := range secrets {
		secrets[i] = strings.Repeat(secrets[i], limit/2)
	}
	r := newRing()
	h := New(r, limit, 0, nil)
	for i, secret := range secrets {
		cutOffs(t, r, func(r *ring) error { return New(r, limit, 0, nil).Put(background(), key, 0, []byte(secret)) }, func(cut string, r *ring) {
			old := ""
			if i > 0 {
				old = secrets[i-1]
			}
			wantOneOf(t, cut, r, old, secret)
			wantRemovable(t, cut, r, limit)
		})
		mustPut(t, h, key, 0, secret)
		if mustGet(t, h, key) != secret {
			t.Fatalf("%.6s does not come back", secret)
		}
	}
	wantRemovable(t, "in the end", r, limit)
}

func TestDeleteThatIsCutOffAnywhere(t *testing.T) {
	const limit = 256
	for name, size := range map[string]int{"one piece": 100, "two parts": limit + 1, "four parts": 4 * limit} {
		t.Run(name, func(t *testing.T) {
			base := newRing()
			mustPut(t, New(base, limit, 0, nil), key, 1, secretOf(1, size, "a"))
			cutOffs(t, base, func(r *ring) error { return New(r, limit, 0, nil).Delete(background(), key) },
				func(cut string, r *ring) { wantRemovable(t, cut, r, limit) })
		})
	}
}

// cutOffs has f work on a copy of the ring, over and over, ended before its
// first call of the ring, right after it, before the second and so on, and has
// check look at what each left behind.
func cutOffs(t *testing.T, base *ring, f func(*ring) error, check func(cut string, r *ring)) {
	t.Helper()
	for n := 1; ; n++ {
		for _, effect := range []bool{false, true} {
			r := base.clone()
			r.end(n, effect)
			err := f(r)
			if err == nil {
				if n == 1 {
					t.Fatal("nothing was called")
				}
				return
			}
			if !strings.Contains(err.Error(), errEnded.Error()) {
				t.Fatalf("cut off at call %d: %v", n, err)
			}
			check(fmt.Sprintf("cut off at %q (effect: %v)", r.calls[n-1], effect), r.clone())
		}
	}
}

// wantOneOf reads the secret back, which must be one of two, and none only
// where the first of them is empty.
func wantOneOf(t *testing.T, cut string, r *ring, old, fresh string) string {
	t.Helper()
	got, err := New(r, 0, 0, nil).Get(t.Context(), key)
	if errors.Is(err, vault.ErrNoItem) && old == "" {
		return ""
	}
	if err != nil {
		t.Fatalf("%s: %v", cut, err)
	}
	if string(got) != old && string(got) != fresh {
		t.Fatalf("%s: the secret is a mix of two", cut)
	}
	return string(got)
}

func nextGeneration(t *testing.T, secret string) int64 {
	t.Helper()
	if secret == "" {
		return 1
	}
	return generationOf(t, secret) + 1
}

// wantSetRight checks that two more writes leave nothing but the items of the
// last.
func wantSetRight(t *testing.T, cut string, r *ring, limit int, now string) {
	t.Helper()
	after, clean := r.clone(), newRing()
	next := nextGeneration(t, now)
	for i, size := range []int{100, 2 * limit} {
		generation := next + int64(i)
		secret := secretOf(generation, size, "next")
		mustPut(t, New(after, limit, 0, nil), key, generation, secret)
		mustPut(t, New(clean, limit, 0, nil), key, generation, secret)
		if mustGet(t, New(after, limit, 0, nil), key) != secret {
			t.Fatalf("%s: the next write does not come back", cut)
		}
	}
	if got, want := after.accounts(), clean.accounts(); !slices.Equal(got, want) {
		t.Fatalf("%s: after two more writes there are %q, want %q", cut, got, want)
	}
}

// wantRemoved checks that a removal leaves nothing.
func wantRemoved(t *testing.T, cut string, r *ring, limit int) {
	t.Helper()
	if err := New(r, limit, 0, nil).Delete(t.Context(), key); err != nil {
		t.Fatalf("%s: %v", cut, err)
	}
	if len(r.items) != 0 {
		t.Fatalf("%s: a removal leaves %q", cut, r.accounts())
	}
}

// wantRemovable checks that a removal leaves nothing, nor does one that was cut
// off anywhere and is done again.
func wantRemovable(t *testing.T, cut string, r *ring, limit int) {
	t.Helper()
	wantRemoved(t, cut, r.clone(), limit)
	if len(r.items) == 0 {
		return
	}
	cutOffs(t, r, func(r *ring) error { return New(r, limit, 0, nil).Delete(background(), key) },
		func(again string, r *ring) { wantRemoved(t, cut+", "+again, r, limit) })
}

// go-keyring says nothing when somebody answers no to the question whether an
// item may be removed; a revoke must not say that it is gone then.
func TestDeleteThatWasDismissed(t *testing.T) {
	r := newRing()
	h := New(r, 0, 0, nil)
	mustPut(t, h, key, 1, secretOf(1, 2000, "x"))
	r.clinging = true
	var e *vault.HomeError
	if err := h.Delete(t.Context(), key); !errors.As(err, &e) || !strings.Contains(e.What, "did not remove") {
		t.Errorf("got %v", err)
	}
	r.clinging = false
	check(t, h.Delete(t.Context(), key))
}
