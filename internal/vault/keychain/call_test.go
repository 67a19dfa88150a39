package keychain

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/upsauth/upsauth/internal/vault"
)

// hang has the ring's calls wait until release is called.
func hang(r *ring) (release func()) {
	gate := make(chan struct{})
	r.before = func(string, string) error { <-gate; return nil }
	return func() { close(gate) }
}

// An unlock prompt that nobody answers blocks go-keyring for ever.
func TestUnansweredCallEndsAtTheDeadline(t *testing.T) {
	for _, test := range []struct{ configured, want time.Duration }{
		{0, 10 * time.Second},
		{60 * time.Second, 60 * time.Second},
	} {
		for name, do := range map[string]func(*Home) error{
			"Get":    func(h *Home) error { _, err := h.Get(background(), key); return err },
			"Put":    func(h *Home) error { return h.Put(background(), key, 1, []byte("{}")) },
			"Delete": func(h *Home) error { return h.Delete(background(), key) },
		} {
			t.Run(fmt.Sprintf("%s within %s", name, test.want), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					r := newRing()
					release := hang(r)
					h := New(r, windowsLimit, test.configured, nil)
					start := time.Now()
					e := homeError(t, do(h))
					if !e.TimedOut || time.Since(start) != test.want {
						t.Errorf("after %s: %+v", time.Since(start), e)
					}
					if !strings.Contains(e.What, test.want.String()) || !slices.Contains(e.Do, vault.UseFileVault) {
						t.Errorf("it says %q and advises %q", e.What, e.Do)
					}
					release()
				})
			})
		}
	}
}

// A call that timed out may still land. Another behind it could land before it,
// or be answered by the prompt of the first.
func TestNothingRunsBehindACallThatTimedOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRing()
		release := hang(r)
		h := New(r, 0, 0, nil)
		for range 3 {
			if e := homeError(t, h.Put(background(), key, 1, []byte("late"))); !e.TimedOut {
				t.Errorf("got %+v", e)
			}
		}
		// The prompt is answered at last, and the keychain can be used again.
		release()
		synctest.Wait()
		if len(r.calls) != 1 {
			t.Errorf("the ring was called %d times: %q", len(r.calls), r.calls)
		}
		if got := mustGet(t, h, key); got != "late" {
			t.Errorf("there is %q", got)
		}
	})
}

// Eight refreshes share one keychain: the last of them waits longer for its
// turn than for its answer.
func TestWaitingForOnesTurnIsNotWaitingForTheKeychain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRing()
		r.items[key] = "secret"
		r.before = func(string, string) error { time.Sleep(8 * time.Second); return nil }
		h := New(r, 0, 0, nil)
		start := time.Now()
		var users sync.WaitGroup
		for range 8 {
			users.Go(func() {
				if got, err := h.Get(background(), key); err != nil || string(got) != "secret" {
					t.Errorf("%q, %v", got, err)
				}
			})
		}
		users.Wait()
		if took := time.Since(start); took != 64*time.Second {
			t.Errorf("it took %s", took)
		}
	})
}

// Behind a call that hangs nobody waits for a deadline of their own.
func TestWhoWaitsBehindAHungCallIsToldAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRing()
		release := hang(r)
		h := New(r, 0, 0, nil)
		start := time.Now()
		var users sync.WaitGroup
		for range 8 {
			users.Go(func() {
				_, err := h.Get(background(), key)
				var e *vault.HomeError
				if !errors.As(err, &e) || !e.TimedOut || time.Since(start) != 10*time.Second {
					t.Errorf("after %s: %v", time.Since(start), err)
				}
			})
		}
		users.Wait()
		release()
	})
}

func TestCanDelete(t *testing.T) {
	r := newRing()
	h := New(r, darwinLimit, 0, nil)
	if err := h.CanDelete(t.Context(), key); !errors.Is(err, vault.ErrNoItem) {
		t.Errorf("without an item it says %v", err)
	}
	for _, secret := range []string{secretOf(1, 100, "a"), secretOf(2, 3*darwinLimit, "a")} {
		mustPut(t, h, key, generationOf(t, secret), secret)
		if err := h.CanDelete(t.Context(), key); err != nil {
			t.Error(err)
		}
	}
	// What is no longer whole can be removed all the same.
	delete(r.items, key+"/g2/2")
	if err := h.CanDelete(t.Context(), key); err != nil {
		t.Error(err)
	}
	r.calls, r.before = nil, func(string, string) error { return errors.New("the keychain is locked") }
	homeError(t, h.CanDelete(t.Context(), key))
	if len(r.calls) != 1 || r.calls[0] != "get "+key {
		t.Errorf("the calls are %q", r.calls)
	}
}

func TestSlowCallThatIsAnsweredInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRing()
		r.items[key] = "secret"
		r.before = func(string, string) error { time.Sleep(10*time.Second - time.Nanosecond); return nil }
		if got := mustGet(t, New(r, 0, 0, nil), key); got != "secret" {
			t.Errorf("there is %q", got)
		}
	})
}

// The line about the wait is for a person who does not see the prompt: not for
// every quick call, and not more than once a command.
func TestWaitingIsToldOnceAndOnlyWhenItTakesLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRing()
		r.items[key] = "secret"
		start := time.Now()
		var told []time.Duration
		h := New(r, 0, time.Minute, func() { told = append(told, time.Since(start)) })
		for _, takes := range []time.Duration{0, 2*time.Second - time.Nanosecond} {
			r.before = func(string, string) error { time.Sleep(takes); return nil }
			mustGet(t, h, key)
		}
		if len(told) != 0 {
			t.Fatalf("told after %v", told)
		}
		r.before = func(string, string) error { time.Sleep(30 * time.Second); return nil }
		start = time.Now()
		mustGet(t, h, key)
		mustGet(t, h, key)
		if len(told) != 1 || told[0] != 2*time.Second {
			t.Errorf("told after %v, want once after 2s", told)
		}
	})
}

func TestInterruptedCall(t *testing.T) {
	t.Run("before it was made", func(t *testing.T) {
		r := newRing()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		for range 20 { // select chooses at random where both ways are open
			err := New(r, 0, 0, nil).Put(ctx, key, 1, []byte("secret"))
			var e *vault.HomeError
			if !errors.Is(err, context.Canceled) || errors.As(err, &e) {
				t.Fatalf("got %v (%T)", err, err)
			}
		}
		if len(r.calls) != 0 {
			t.Errorf("the ring was called all the same: %q", r.calls)
		}
	})
	t.Run("while it waits for an answer", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRing()
			release := hang(r)
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(time.Second, cancel)
			start := time.Now()
			err := New(r, 0, 0, nil).Put(ctx, key, 1, []byte("secret"))
			// It may still land, exactly as if it had timed out.
			if e := homeError(t, err); !e.TimedOut || !errors.Is(err, context.Canceled) || time.Since(start) != time.Second {
				t.Errorf("after %s: %+v", time.Since(start), e)
			}
			release()
		})
	})
	t.Run("while it waits for its turn", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRing()
			release := hang(r)
			h := New(r, 0, time.Minute, nil)
			first := make(chan error)
			go func() { first <- h.Put(background(), key, 1, []byte("first")) }()
			synctest.Wait()
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			err := h.Put(ctx, key, 1, []byte("second"))
			var e *vault.HomeError
			if !errors.Is(err, context.DeadlineExceeded) || errors.As(err, &e) {
				t.Errorf("got %v (%T)", err, err)
			}
			release()
			if err := <-first; err != nil || r.items[key] != "first" {
				t.Errorf("%v, and there is %q", err, r.items[key])
			}
		})
	})
}

// go-keyring takes a prompt's answer for its own, whoever asked. The ring has
// no lock, so that the race detector tells as well when calls overlap.
func TestCallsGoOneAtATime(t *testing.T) {
	r := newRing()
	h := New(r, darwinLimit, 0, nil)
	var users sync.WaitGroup
	for n := range 8 {
		users.Go(func() {
			account := fmt.Sprint("account ", n)
			for generation := range int64(5) {
				secret := secretOf(generation, 3*darwinLimit, account)
				if err := h.Put(background(), account, generation, []byte(secret)); err != nil {
					t.Error(err)
				}
				if got, err := h.Get(background(), account); err != nil || string(got) != secret {
					t.Errorf("%s is not what was put there, %v", account, err)
				}
			}
			if err := h.Delete(background(), account); err != nil {
				t.Error(err)
			}
		})
	}
	users.Wait()
	if len(r.items) != 0 {
		t.Errorf("left: %q", r.accounts())
	}
}

// go-keyring takes the answers of the bus to be of the types it expects, and
// panics where they are not, or where the bus goes while a prompt is open.
func TestPanicOfTheRingIsAnError(t *testing.T) {
	r := newRing()
	h := New(r, 0, 0, nil)
	var answer any = 42
	r.before = func(string, string) error { _ = answer.(string); return nil }
	for range 2 {
		_, err := h.Get(t.Context(), key)
		if e := homeError(t, err); e.TimedOut {
			t.Errorf("got %+v", e)
		}
	}
	r.before = nil
	mustPut(t, h, key, 1, "secret")
}

// go-keyring reports nothing when somebody dismisses the prompt, or when
// macOS's tool fails: only what is read back was written.
func TestWriteThatIsSilentlyDropped(t *testing.T) {
	for _, limit := range []int{0, darwinLimit} {
		for _, size := range []int{100, 3 * darwinLimit} {
			t.Run(fmt.Sprintf("limit %d, %d bytes", limit, size), func(t *testing.T) {
				for _, old := range []string{"", secretOf(1, size, "old")} {
					r := newRing()
					h := New(r, limit, 0, nil)
					if old != "" {
						mustPut(t, h, key, 1, old)
					}
					r.lossy = true
					e := homeError(t, h.Put(t.Context(), key, 2, []byte(secretOf(2, size, "new"))))
					if e.TimedOut || !strings.Contains(e.What, "does not return it") || !slices.Contains(e.Do, vault.TryFileVault) {
						t.Errorf("got %+v", e)
					}
					wantOneOf(t, "dropped", r, old, old)
				}
			})
		}
	}
}

func TestItemThatIsNoLongerWhole(t *testing.T) {
	damage := map[string]func(*ring){
		"a part is gone":         func(r *ring) { delete(r.items, key+"/g1/2") },
		"a part was changed":     func(r *ring) { r.items[key+"/g1/2"] = strings.ToUpper(r.items[key+"/g1/2"]) },
		"a part was cut short":   func(r *ring) { r.items[key+"/g1/2"] = r.items[key+"/g1/2"][:10] },
		"the head was exchanged": func(r *ring) { r.items[key] = strings.Replace(r.items[key], `"count":3`, `"count":2`, 1) },
	}
	for name, f := range damage {
		t.Run(name, func(t *testing.T) {
			r := newRing()
			h := New(r, darwinLimit, 0, nil)
			mustPut(t, h, key, 1, secretOf(1, 3*darwinLimit, "tokens"))
			f(r)
			_, err := h.Get(t.Context(), key)
			if e := homeError(t, err); !e.Damaged || e.TimedOut || strings.Contains(e.What, "tokens") {
				t.Errorf("got %+v", e)
			}
			if errors.Is(err, vault.ErrNoItem) {
				t.Error("an item that is damaged is called missing")
			}
			mustPut(t, h, key, 2, secretOf(2, 3*darwinLimit, "fresh"))
			if mustGet(t, h, key) != secretOf(2, 3*darwinLimit, "fresh") {
				t.Error("a new secret can't be put in its place")
			}
		})
	}
}

// A secret that only looks like a head is given back as it is.
func TestSecretThatLooksLikeAHead(t *testing.T) {
	for _, secret := range []string{headPrefix, headPrefix + "{}", headPrefix + `{"count":0}`, headPrefix + `{"count":-1}`, headPrefix + `{"count":1001}`, headPrefix + "not JSON"} {
		h := New(newRing(), 0, 0, nil)
		mustPut(t, h, key, 1, secret)
		if got := mustGet(t, h, key); got != secret {
			t.Errorf("%q came back as %q", secret, got)
		}
	}
}
