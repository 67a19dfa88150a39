// Package keychain is the home for secrets in the keychain of the operating
// system: Secret Service on Linux and the BSDs, Keychain on macOS, Credential
// Manager on Windows.
package keychain

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/upsauth/upsauth/internal/vault"
)

// Service is the service name of every item.
const Service = "upsauth"

// Ring is what go-keyring offers; Get and Delete return keyring.ErrNotFound.
type Ring interface {
	Get(service, account string) (string, error)
	Set(service, account, secret string) error
	Delete(service, account string) error
}

// Lister is a Ring that can tell what it has. List returns the account names of
// a service's items, in any order, or an error where it can't tell all of them;
// it asks for nothing to be unlocked.
type Lister interface {
	List(service string) ([]string, error)
}

// Keyring is one of the places in which a keychain keeps items.
type Keyring struct {
	Label  string
	Items  int  // of the service
	Locked bool // what is in it needs somebody to unlock it
	New    bool // it gets what is new
	// Unsearched says that nobody can tell what is in it before it is unlocked.
	Unsearched bool
}

// keyringLister is a Ring of several keyrings.
type keyringLister interface {
	Keyrings(service string) ([]Keyring, error)
}

// holder is a Ring that can tell whether it has an item without anybody being
// asked to unlock something.
type holder interface {
	Holds(service, account string) (bool, error)
}

// System is the operating system's own keychain. It is a Lister but on macOS,
// whose tool lists items with everybody else's only.
type System struct{}

// Limit returns how many bytes one item may have on an operating system, by
// Go's name for it; 0 is any number. Windows refuses more than 2,560 bytes.
// macOS gets items as one line of 4,096 bytes in base64, of which the names
// take some, and behaves badly when that is nearly full.
func Limit(goos string) int {
	switch goos {
	case "windows":
		return 2560
	case "darwin", "ios":
		return 2048
	}
	return 0
}

// Home is the keychain. New makes one.
type Home struct {
	Ring Ring
	// Limit is the most bytes of one item, 0 for any number: larger secrets are
	// written in parts.
	Limit int
	// Deadline is how long one call may take; zero is 10 seconds.
	Deadline time.Duration
	// Waiting, where set, is called once when a call takes longer than 2
	// seconds: somebody may be asked to unlock the keychain.
	Waiting func()

	turn   chan struct{}
	warned atomic.Bool

	mu sync.Mutex
	// hung is closed while a call that was given up has not returned. Then there is
	// another one: a home that is used for months must forget what is over.
	hung  chan struct{}
	hangs bool
}

// New returns the home on a ring.
func New(ring Ring, limit int, deadline time.Duration, waiting func()) *Home {
	if deadline == 0 {
		deadline = 10 * time.Second
	}
	return &Home{Ring: ring, Limit: limit, Deadline: deadline, Waiting: waiting, turn: make(chan struct{}, 1), hung: make(chan struct{})}
}

// Name is "keychain".
func (h *Home) Name() string { return "keychain" }

// headPrefix begins the item of a secret that was written in parts. No secret
// of upsauth begins like that, they are all JSON.
const headPrefix = "upsauth-parts:"

// head stands in the place of a secret that was written in parts.
type head struct {
	Generation int64  `json:"generation"`
	Count      int    `json:"count"`
	SHA256     string `json:"sha256"`
}

func partAccount(account string, generation int64, n int) string {
	return account + "/g" + strconv.FormatInt(generation, 10) + "/" + strconv.Itoa(n)
}

// Get returns the secret, put together from its parts where it has any.
func (h *Home) Get(ctx context.Context, account string) ([]byte, error) {
	item, err := h.get(ctx, account)
	if err != nil {
		return nil, err
	}
	parts, ok := readHead(item)
	if !ok {
		return []byte(item), nil
	}
	var secret strings.Builder
	for n := 1; n <= parts.Count; n++ {
		part, err := h.get(ctx, partAccount(account, parts.Generation, n))
		if errors.Is(err, vault.ErrNoItem) {
			return nil, incomplete(account, fmt.Errorf("part %d of %d is gone", n, parts.Count))
		}
		if err != nil {
			return nil, err
		}
		secret.WriteString(part)
	}
	if digest(secret.String()) != parts.SHA256 {
		return nil, incomplete(account, errors.New("the digest differs"))
	}
	return []byte(secret.String()), nil
}

func incomplete(account string, err error) *vault.HomeError {
	return &vault.HomeError{
		Home:    "keychain",
		What:    fmt.Sprintf("The keychain's item %s was written in parts and is no longer whole: %v.", account, err),
		Advice:  "The company must be authorized again[: {}].",
		Do:      []vault.Act{vault.Authorize},
		Damaged: true,
		Err:     err,
	}
}

func readHead(item string) (head, bool) {
	text, ok := strings.CutPrefix(item, headPrefix)
	if !ok {
		return head{}, false
	}
	var parts head
	if json.Unmarshal([]byte(text), &parts) != nil || parts.Count < 1 || parts.Count > 1000 {
		return head{}, false
	}
	return parts, true
}

func digest(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}

// Put writes the secret, in parts where it is over the limit: new parts first,
// then the head, then the old parts go, so that a write that is cut off leaves
// the old secret whole. Everything is read back.
func (h *Home) Put(ctx context.Context, account string, generation int64, secret []byte) error {
	if h.Limit == 0 {
		return h.put(ctx, account, string(secret))
	}
	old, err := h.generation(ctx, account)
	if err != nil {
		return err
	}
	// What an earlier write left behind when it was cut off goes before anything
	// is added, or there would be more of it one day than Delete looks for.
	if err := h.dropParts(ctx, account, old-1); err != nil {
		return err
	}
	if generation == old {
		generation++ // parts in use are never written over
	}
	item := string(secret)
	if len(secret) > h.Limit {
		if item, err = h.putParts(ctx, account, generation, secret); err != nil {
			return err
		}
	}
	if err := h.put(ctx, account, item); err != nil {
		return err
	}
	return h.dropParts(ctx, account, old)
}

// putParts writes the parts of a secret and returns the head for them.
func (h *Home) putParts(ctx context.Context, account string, generation int64, secret []byte) (string, error) {
	parts := head{Generation: generation, SHA256: digest(string(secret))}
	for rest := secret; len(rest) > 0; {
		parts.Count++
		n := cut(rest, h.Limit)
		if err := h.put(ctx, partAccount(account, generation, parts.Count), string(rest[:n])); err != nil {
			return "", err
		}
		rest = rest[n:]
	}
	text, err := json.Marshal(parts)
	if err != nil {
		return "", fmt.Errorf("the head of an item can't be made: %w", err)
	}
	return headPrefix + string(text), nil
}

// generation is that of the item that is there, noGeneration where none is. A
// secret in one piece says its own, if it has any, as a grant does.
func (h *Home) generation(ctx context.Context, account string) (int64, error) {
	item, err := h.get(ctx, account)
	if errors.Is(err, vault.ErrNoItem) {
		return noGeneration, nil
	}
	if err != nil {
		return 0, err
	}
	if parts, ok := readHead(item); ok {
		return parts.Generation, nil
	}
	var whole struct {
		Generation int64 `json:"generation"`
	}
	_ = json.Unmarshal([]byte(item), &whole)
	return whole.Generation, nil
}

// noGeneration is before the first, which is 0 for what has no generations.
const noGeneration = -1

// cut is where to end a part of at most limit bytes without splitting a
// character, as keychains take text.
func cut(text []byte, limit int) int {
	if len(text) <= limit {
		return len(text)
	}
	n := limit
	for n > limit-4 && text[n]&0xC0 == 0x80 {
		n--
	}
	return n
}

// CanDelete looks the item up, which asks for the keychain to be unlocked.
func (h *Home) CanDelete(ctx context.Context, account string) error {
	_, err := h.get(ctx, account)
	return err
}

// Delete removes the item, its parts, and what a cut-off write may have left of
// the generations before and after. The item goes last: it tells where the rest
// is.
func (h *Home) Delete(ctx context.Context, account string) error {
	if h.Limit > 0 {
		old, err := h.generation(ctx, account)
		if err != nil {
			return err
		}
		for generation := old - 1; generation <= max(old, 0)+1; generation++ {
			if err := h.dropParts(ctx, account, generation); err != nil {
				return err
			}
		}
	}
	return h.remove(ctx, account)
}

// dropParts removes the parts of a generation from the last to the first, so
// that what is left of a removal that was cut off still begins with the first
// and is found again.
func (h *Home) dropParts(ctx context.Context, account string, generation int64) error {
	if generation < 0 {
		return nil
	}
	count := 0
	for ; ; count++ {
		_, err := h.get(ctx, partAccount(account, generation, count+1))
		if errors.Is(err, vault.ErrNoItem) {
			break
		}
		if err != nil {
			return err
		}
	}
	for ; count > 0; count-- {
		if err := h.remove(ctx, partAccount(account, generation, count)); err != nil {
			return err
		}
	}
	return nil
}

// Accounts lists the items, parts among them; vault.ErrNoList where the ring is
// no Lister.
func (h *Home) Accounts(ctx context.Context) ([]string, error) {
	ring, ok := h.Ring.(Lister)
	if !ok {
		return nil, vault.ErrNoList
	}
	accounts, err := call(ctx, h, "listed", func() ([]string, error) { return ring.List(Service) })
	slices.Sort(accounts)
	return accounts, err
}

// Keyrings tells which keyrings have items of upsauth, and which gets the new
// ones; none where the keychain is one.
func (h *Home) Keyrings(ctx context.Context) ([]Keyring, error) {
	ring, ok := h.Ring.(keyringLister)
	if !ok {
		return nil, nil
	}
	return call(ctx, h, "listed", func() ([]Keyring, error) { return ring.Keyrings(Service) })
}

func (h *Home) get(ctx context.Context, account string) (string, error) {
	return call(ctx, h, reading, func() (string, error) { return h.Ring.Get(Service, account) })
}

// put reads back what it wrote: go-keyring reports nothing when somebody
// dismisses the keychain's question or when macOS's tool fails.
func (h *Home) put(ctx context.Context, account, secret string) error {
	_, err := call(ctx, h, "written", func() (string, error) { return "", h.Ring.Set(Service, account, secret) })
	if err != nil {
		return err
	}
	back, err := h.get(ctx, account)
	if err != nil && !errors.Is(err, vault.ErrNoItem) {
		return err
	}
	if err != nil || subtle.ConstantTimeCompare([]byte(back), []byte(secret)) != 1 {
		return &vault.HomeError{
			Home:   "keychain",
			What:   "The keychain accepted a secret, but does not return it.",
			Advice: "Was its question dismissed? Unlock the keychain and try again, or use the file vault[: {}].",
			Do:     []vault.Act{vault.TryFileVault},
		}
	}
	return nil
}

// remove looks whether the item is gone: go-keyring reports nothing when
// somebody dismisses the keychain's question.
func (h *Home) remove(ctx context.Context, account string) error {
	_, err := call(ctx, h, "changed", func() (string, error) { return "", h.Ring.Delete(Service, account) })
	if errors.Is(err, vault.ErrNoItem) {
		return nil
	}
	if err != nil {
		return err
	}
	there, err := h.holds(ctx, account)
	if err != nil || !there {
		return err
	}
	return &vault.HomeError{
		Home:   "keychain",
		What:   "The keychain did not remove a secret, although upsauth asked it to.",
		Advice: "Was its question dismissed? Try again and allow it.",
	}
}

func (h *Home) holds(ctx context.Context, account string) (bool, error) {
	if ring, ok := h.Ring.(holder); ok {
		return call(ctx, h, reading, func() (bool, error) { return ring.Holds(Service, account) })
	}
	_, err := h.get(ctx, account)
	if errors.Is(err, vault.ErrNoItem) {
		return false, nil
	}
	return err == nil, err
}

// reading is what a call does that changes nothing, and promptly how long it takes at
// most, as a rule.
const (
	reading  = "read"
	promptly = 50 * time.Millisecond
)

// call runs one call of the ring with the deadline. Calls go one at a time:
// go-keyring's waiting for prompts takes any prompt's answer for its own. A
// call that never returns keeps its turn, so that nothing runs behind it.
func call[T any](ctx context.Context, h *Home, what string, f func() (T, error)) (T, error) {
	var none T
	// To look at upsauth's own context is to ask for signals, which takes a tenth of a read's
	// time. One that is answered at once has nothing that a signal could spoil.
	if what != reading {
		if err := ctx.Err(); err != nil {
			return none, err
		}
	}
	select {
	case h.turn <- struct{}{}:
	default:
		// Waiting for one's turn is no sign that the keychain hangs; that an
		// earlier call was given up is.
		select {
		case h.turn <- struct{}{}:
		case <-h.hanging():
			return none, timeout(h.Deadline)
		case <-ctx.Done():
			return none, ctx.Err()
		}
	}
	timer := time.NewTimer(h.Deadline)
	defer timer.Stop()
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	returned := false // h.mu is held
	go func() {
		var r result
		// go-keyring takes the answers of the bus to be of the types it expects.
		defer func() {
			if p := recover(); p != nil {
				r = result{err: fmt.Errorf("the keychain's answer is not understood: %v", p)}
			}
			done <- r
			h.mu.Lock()
			returned = true
			if h.hangs {
				h.hung, h.hangs = make(chan struct{}), false
			}
			h.mu.Unlock()
			<-h.turn
		}()
		r.value, r.err = f()
	}()
	slow := time.NewTimer(2 * time.Second)
	defer slow.Stop()
	if what == reading {
		soon := time.NewTimer(min(promptly, h.Deadline))
		defer soon.Stop()
		select {
		case r := <-done:
			return r.value, explain(what, r.err)
		case <-soon.C:
		}
	}
	for {
		select {
		case r := <-done:
			return r.value, explain(what, r.err)
		case <-slow.C:
			if h.Waiting != nil && !h.warned.Swap(true) {
				h.Waiting()
			}
		case <-timer.C:
			h.giveUp(&returned)
			return none, timeout(h.Deadline)
		case <-ctx.Done():
			h.giveUp(&returned)
			return none, givenUp(ctx.Err())
		}
	}
}

// giveUp tells those who wait for their turn that they wait in vain, unless the call
// has returned meanwhile.
func (h *Home) giveUp(returned *bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !*returned && !h.hangs {
		h.hangs = true
		close(h.hung)
	}
}

func (h *Home) hanging() <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.hung
}
