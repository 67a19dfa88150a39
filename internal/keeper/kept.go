package keeper

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/ups"
)

// What UPS answers is paid for with a refresh token. Here is what happens to an
// answer that can't be put in its place, or not be used.

// UnreadError says that UPS granted a refresh, but that the answer can't be used,
// and where the sealed answer is kept.
type UnreadError struct {
	Path string
	Err  error
}

func (e *UnreadError) Error() string { return e.Err.Error() + keptWords(e.Path) }

func (e *UnreadError) Unwrap() error { return e.Err }

// clause is what an error says, without a full stop.
func clause(err error) string { return strings.TrimSuffix(err.Error(), ".") }

func keptWords(path string) string {
	return fmt.Sprintf("; the answer is kept, sealed, in %s", path)
}

// ElsewhereError says that UPS's answer could be stored neither in the grant nor in
// its journal, and where the answer is sealed instead. The next use of the grant
// puts the answer in place.
type ElsewhereError struct {
	ID   grant.ID
	Path string
	Err  error // why it can't be put in place
}

func (e *ElsewhereError) Error() string {
	return fmt.Sprintf("the new tokens of %s can't be saved: %s; UPS's answer is sealed in %s", e.ID, clause(e.Err), e.Path)
}

func (e *ElsewhereError) Unwrap() error { return e.Err }

// LostError says that UPS granted a refresh and that its answer could be kept
// nowhere on this machine.
type LostError struct {
	ID  grant.ID
	Err error
}

func (e *LostError) Error() string {
	return fmt.Sprintf("the new tokens of %s can't be saved anywhere on this machine and are lost, and UPS no longer accepts the old ones: %v", e.ID, e.Err)
}

func (e *LostError) Unwrap() error { return e.Err }

// How long an answer is tried to be put in place that is sealed elsewhere, and one
// that is sealed nowhere.
const (
	placingPause     = 500 * time.Millisecond
	placingElsewhere = 5 * time.Second
	placingNowhere   = 30 * time.Second
)

// putInPlace stores a granted answer. One that is sealed in its journal is the
// next use's where it can't be stored now; any other is tried again for a while.
func (k *Keeper) putInPlace(ctx context.Context, old grant.Grant, a ups.Answer, t ups.Tokens, j *grant.Journal) (grant.Grant, error) {
	for waited := time.Duration(0); ; waited += placingPause {
		g, _, err := k.store(ctx, old, a, t, *j)
		if errors.Is(err, grant.ErrConflict) && k.stored(ctx, old, t) {
			// The item was written the time before.
			return k.recorded(ctx, old.ID)
		}
		if err == nil || j.Answered && !j.Elsewhere {
			return g, err
		}
		most := placingNowhere
		if j.Answered {
			most = placingElsewhere
		}
		switch {
		case waited == 0:
			k.warn(ctx, old.ID, "The new tokens of %s can't be saved; trying again for %s: %s.", old.ID, most, clause(err))
		case waited >= most && j.Answered:
			return old, &ElsewhereError{ID: old.ID, Path: j.Path, Err: err}
		case waited >= most:
			return old, &LostError{ID: old.ID, Err: err}
		}
		_ = k.Wait(ctx, placingPause)
		if err := k.keep(ctx, j, &old)(a); err != nil {
			k.log(ctx, old.ID, "%v", err)
		}
	}
}

// stored reports whether the item has the tokens of an answer already.
func (k *Keeper) stored(ctx context.Context, old grant.Grant, t ups.Tokens) bool {
	now, err := k.Vault.Get(ctx, old.ID)
	return err == nil && now.TokenVaultKey == old.TokenVaultKey && now.Generation == old.Generation+1 && now.AccessToken == t.AccessToken
}

// recorded brings a record up to its item.
func (k *Keeper) recorded(ctx context.Context, id grant.ID) (grant.Grant, error) {
	g, err := k.Vault.Get(ctx, id)
	if err != nil {
		return g, err
	}
	if err := k.Vault.Align(ctx, g); err != nil {
		return g, err
	}
	k.happened(ctx, g.ID, grant.EventRefreshed, "", "")
	return g, nil
}

// keptPath is where the latest answer at a generation later than the grant's is kept that
// nobody could use, the journal as a rule; empty where there is none.
func (k *Keeper) keptPath(ctx context.Context, id grant.ID, tokenVaultKey string, generation int64) string {
	kept := k.keptOf(ctx, id, tokenVaultKey)
	return latestKept(slices.DeleteFunc(kept, func(j grant.Journal) bool { return j.Generation <= generation }), tokenVaultKey)
}

// latestKept is where the latest of the answers under a Token Vault Key is.
func latestKept(kept []grant.Journal, tokenVaultKey string) string {
	latest := grant.Journal{}
	for _, j := range kept {
		if j.TokenVaultKey == tokenVaultKey && (latest.Path == "" || j.Time.After(latest.Time)) {
			latest = j
		}
	}
	return latest.Path
}

// keptOf are the answers under one Token Vault Key that nobody could use, in their
// journal or sealed elsewhere.
func (k *Keeper) keptOf(ctx context.Context, id grant.ID, tokenVaultKey string) []grant.Journal {
	attempts, err := k.Vault.Attempts(ctx, id)
	if err != nil {
		k.log(ctx, id, "%v", err)
	}
	return slices.DeleteFunc(attempts, func(j grant.Journal) bool {
		return j.TokenVaultKey != tokenVaultKey || !j.Answered || j.Unsent
	})
}

// unreadPath is where a kept answer to a refresh of this generation is that may
// have a refresh token in it, empty where there is none.
func (k *Keeper) unreadPath(ctx context.Context, g grant.Grant) string {
	for _, j := range k.keptOf(ctx, g.ID, g.TokenVaultKey) {
		if j.Generation != g.Generation+1 {
			continue
		}
		j.Home = g.Home // the key moves with the grant
		answer, _, err := k.openAnswer(ctx, j)
		if err == nil && answer.Tokens().Unread || err != nil && !errors.Is(err, grant.ErrNoAnswer) {
			return j.Path
		}
	}
	return ""
}

// readAgain looks into the kept answers of a grant that has no way on: this
// upsauth may understand what an earlier one could not.
func (k *Keeper) readAgain(ctx context.Context, g grant.Grant, attempts []grant.Journal, pending *grant.Journal) (grant.Grant, *grant.Journal, error) {
	for _, j := range attempts {
		if j.Generation != g.Generation+1 || !j.Answered || j.Unsent {
			continue
		}
		answer, _, err := k.openAnswer(ctx, j)
		if err != nil {
			k.log(ctx, g.ID, "%v", err)
			continue
		}
		if tokens := answer.Tokens(); tokens.RefreshToken != "" {
			k.log(ctx, g.ID, "putting the kept answer of an earlier refresh of %s in place", g.ID)
			return k.store(ctx, g, answer, tokens, j)
		}
	}
	return g, pending, nil
}
