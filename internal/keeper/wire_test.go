package keeper_test

import (
	"context"
	"errors"
	"net/http"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/keeper"
	"github.com/upsauth/upsauth/internal/vault"
)

// wire is told of every call that a process makes of its vault, of the vault's
// home and of UPS, once before the call and once after it. An error before lets
// the call fail without being made, one after lets it fail although it was made.
// A panic with ended ends the process.
type wire func(moment) error

type moment struct {
	call  string // "Put", "home.Put probe", "send refresh"
	after bool
}

func (m moment) String() string {
	if m.after {
		return "after " + m.call
	}
	return "before " + m.call
}

// ended is the panic of a process that is no more.
type ended struct{}

// of is the wire of a process: where it ends the process, nothing gets through any
// more, whatever is still to be closed.
func (w wire) of(p *process) wire {
	return func(m moment) error {
		if p.gone.Load() {
			return errGone
		}
		if w == nil {
			return nil
		}
		defer func() {
			if r := recover(); r != nil {
				p.gone.Store(true)
				panic(r)
			}
		}()
		return w(m)
	}
}

func (w wire) around(call string, f func() error) error {
	if w == nil {
		return f()
	}
	if err := w(moment{call, false}); err != nil {
		return err
	}
	if err := f(); err != nil {
		return err
	}
	return w(moment{call, true})
}

// failing is a wire that lets calls fail.
func failing(err error, calls ...string) wire {
	return func(m moment) error {
		for _, call := range calls {
			if m == (moment{call: call}) {
				return err
			}
		}
		return nil
	}
}

// then is a wire that does something before or after a call.
func then(m moment, f func()) wire {
	return func(now moment) error {
		if now == m {
			f()
		}
		return nil
	}
}

// wiredVault is the vault as the keeper sees it.
type wiredVault struct {
	vault keeper.Vault
	wire  wire
	p     *process
}

func (v wiredVault) Ready(ctx context.Context) error {
	return v.wire.around("Ready", func() error { return v.vault.Ready(ctx) })
}

func (v wiredVault) Record(ctx context.Context, id grant.ID) (r grant.Record, err error) {
	err = v.wire.around("Record", func() (err error) { r, err = v.vault.Record(ctx, id); return err })
	return r, err
}

func (v wiredVault) Get(ctx context.Context, id grant.ID) (g grant.Grant, err error) {
	err = v.wire.around("Get", func() (err error) { g, err = v.vault.Get(ctx, id); return err })
	return g, err
}

func (v wiredVault) GetOf(ctx context.Context, record grant.Record) (g grant.Grant, err error) {
	err = v.wire.around("Get", func() (err error) { g, err = v.vault.GetOf(ctx, record); return err })
	return g, err
}

func (v wiredVault) Put(ctx context.Context, g grant.Grant, expected int64, settles *grant.Journal) error {
	return v.wire.around("Put", func() error { return v.vault.Put(ctx, g, expected, settles) })
}

func (v wiredVault) Note(ctx context.Context, id grant.ID, change func(*grant.Local)) error {
	return v.wire.around("Note", func() error { return v.vault.Note(ctx, id, change) })
}

func (v wiredVault) Align(ctx context.Context, g grant.Grant) error {
	return v.wire.around("Align", func() error { return v.vault.Align(ctx, g) })
}

func (v wiredVault) Rename(ctx context.Context, from, to grant.ID) error {
	return v.wire.around("Rename", func() error { return v.vault.Rename(ctx, from, to) })
}

func (v wiredVault) Move(ctx context.Context, id grant.ID, home string) (r grant.Record, err error) {
	err = v.wire.around("Move", func() (err error) { r, err = v.vault.Move(ctx, id, home); return err })
	return r, err
}

func (v wiredVault) Import(ctx context.Context, g grant.Grant, at time.Time, pending *grant.Journal) error {
	return v.wire.around("Import", func() error { return v.vault.Import(ctx, g, at, pending) })
}

func (v wiredVault) Delete(ctx context.Context, id grant.ID) error {
	return v.wire.around("Delete", func() error { return v.vault.Delete(ctx, id) })
}

func (v wiredVault) Lock(ctx context.Context, id grant.ID) (unlock func(), err error) {
	err = v.wire.around("Lock", func() (err error) { unlock, err = v.hold(v.vault.Lock(ctx, id)); return err })
	return unlock, err
}

func (v wiredVault) LockLogin(ctx context.Context, company string) (unlock func(), err error) {
	err = v.wire.around("LockLogin", func() (err error) { unlock, err = v.hold(v.vault.LockLogin(ctx, company)); return err })
	return unlock, err
}

// hold remembers a lock so that it ends with the process.
func (v wiredVault) hold(unlock func(), err error) (func(), error) {
	if err != nil {
		return nil, err
	}
	unlock = sync.OnceFunc(unlock)
	v.p.mu.Lock()
	defer v.p.mu.Unlock()
	v.p.held = append(v.p.held, unlock)
	return unlock, nil
}

func (v wiredVault) Prove(ctx context.Context, id grant.ID, home, tokenVaultKey string, size int) error {
	return v.wire.around("Prove", func() error { return v.vault.Prove(ctx, id, home, tokenVaultKey, size) })
}

func (v wiredVault) MakeRoom(ctx context.Context, id grant.ID, home, tokenVaultKey string, size int) (done func(), err error) {
	err = v.wire.around("Prove", func() (err error) { done, err = v.vault.MakeRoom(ctx, id, home, tokenVaultKey, size); return err })
	return done, err
}

func (v wiredVault) ProveJournal(ctx context.Context, g grant.Grant) (proved grant.Grant, err error) {
	err = v.wire.around("ProveJournal", func() (err error) { proved, err = v.vault.ProveJournal(ctx, g); return err })
	return proved, err
}

func (v wiredVault) Claim(ctx context.Context, j *grant.Journal) error {
	return v.wire.around("Claim", func() error { return v.vault.Claim(ctx, j) })
}

func (v wiredVault) LastLook(ctx context.Context, j grant.Journal) error {
	return v.wire.around("LastLook", func() error { return v.vault.LastLook(ctx, j) })
}

func (v wiredVault) Seal(ctx context.Context, j *grant.Journal, old *grant.Grant, answer []byte) error {
	return v.wire.around("Seal", func() error { return v.vault.Seal(ctx, j, old, answer) })
}

func (v wiredVault) Mark(ctx context.Context, j *grant.Journal) error {
	return v.wire.around("Mark", func() error { return v.vault.Mark(ctx, j) })
}

func (v wiredVault) Attempts(ctx context.Context, id grant.ID) (js []grant.Journal, err error) {
	err = v.wire.around("Attempts", func() (err error) { js, err = v.vault.Attempts(ctx, id); return err })
	return js, err
}

func (v wiredVault) Answer(ctx context.Context, j grant.Journal) (answer vault.Answer, err error) {
	err = v.wire.around("Answer", func() (err error) { answer, err = v.vault.Answer(ctx, j); return err })
	return answer, err
}

func (v wiredVault) Settle(ctx context.Context, r grant.Record) error {
	return v.wire.around("Settle", func() error { return v.vault.Settle(ctx, r) })
}

func (v wiredVault) Forget(ctx context.Context, j grant.Journal) error {
	return v.wire.around("Forget", func() error { return v.vault.Forget(ctx, j) })
}

func (v wiredVault) Abandon(ctx context.Context, j grant.Journal) error {
	return v.wire.around("Abandon", func() error { return v.vault.Abandon(ctx, j) })
}

func (v wiredVault) Announced(ctx context.Context, j grant.Journal) (g grant.Grant, err error) {
	err = v.wire.around("Announced", func() (err error) { g, err = v.vault.Announced(ctx, j); return err })
	return g, err
}

func (v wiredVault) FinishReplacing(ctx context.Context, j grant.Journal) error {
	return v.wire.around("FinishReplacing", func() error { return v.vault.FinishReplacing(ctx, j) })
}

// wiredHome is the home as the vault sees it. Like a keychain it does nothing
// for a context that is done.
type wiredHome struct {
	vault.Home
	wire wire
}

func (h wiredHome) around(ctx context.Context, op, account string, f func() error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	what := "item"
	if _, kind, ok := strings.Cut(account, "/"); ok {
		what = kind
	}
	return h.wire.around("home."+op+" "+what, f)
}

func (h wiredHome) Get(ctx context.Context, account string) (secret []byte, err error) {
	err = h.around(ctx, "Get", account, func() (err error) { secret, err = h.Home.Get(ctx, account); return err })
	return secret, err
}

func (h wiredHome) Put(ctx context.Context, account string, generation int64, secret []byte) error {
	return h.around(ctx, "Put", account, func() error { return h.Home.Put(ctx, account, generation, secret) })
}

func (h wiredHome) Delete(ctx context.Context, account string) error {
	return h.around(ctx, "Delete", account, func() error { return h.Home.Delete(ctx, account) })
}

// wiredTransport is the way to UPS.
type wiredTransport struct {
	next http.RoundTripper
	wire wire
}

func (t wiredTransport) RoundTrip(r *http.Request) (response *http.Response, err error) {
	kept := false
	defer func() {
		if !kept && response != nil {
			response.Body.Close()
		}
	}()
	err = t.wire.around("send "+path.Base(r.URL.Path), func() (err error) { response, err = t.next.RoundTrip(r); return err })
	if err != nil {
		return nil, err
	}
	kept = true
	return response, nil
}

// What a home and a disk say that can't be used right now.
var (
	errLocked = &vault.HomeError{Home: "file", What: "The vault is locked."}
	errFull   = errors.New("no space left on device")
	errGone   = errors.New("the process is no more")
)
