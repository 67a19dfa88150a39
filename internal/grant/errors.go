package grant

import (
	"errors"
	"fmt"
)

// What any vault answers where it can't give what was asked for.
var (
	// ErrNoGrant: there is no grant of that name.
	ErrNoGrant = errors.New("there is no such grant")
	// ErrSetAside: there is none, as its record was damaged and set aside. It is an
	// ErrNoGrant.
	ErrSetAside = fmt.Errorf("%w: its record was damaged and is set aside", ErrNoGrant)
	// ErrRemoving: there is none any more, as a revoke has begun. It is an ErrNoGrant,
	// and nothing may bring the grant back.
	ErrRemoving = fmt.Errorf("%w: it is being removed", ErrNoGrant)
	// ErrNoSecrets: the grant's record is there and its secrets are not.
	ErrNoSecrets = errors.New("the grant's secrets are not in their vault")
	// ErrOlder: the grant's secrets are older than its record.
	ErrOlder = errors.New("the grant's secrets are older than its record")
	// ErrNoAnswer: a journal has no whole answer in it, as the machine went
	// down while it was being sealed.
	ErrNoAnswer = errors.New("the journal has no whole answer in it")
	// ErrLoginBusy: the company is being authorized by somebody else.
	ErrLoginBusy = errors.New("the company is being authorized right now")
	// ErrNothingThere: the grant is removed, and there were no secrets of it.
	ErrNothingThere = errors.New("there were no secrets to remove")
	// ErrLeft: the grant is removed, and something of it is left elsewhere.
	ErrLeft = errors.New("something of the grant could not be removed yet")
	// ErrConflict: the grant has another generation than expected.
	ErrConflict = errors.New("the grant was changed by somebody else meanwhile")
	// ErrOvertaken: another host has put a later token in place, or is about to: whoever
	// reads the grant again finds it. It is an ErrConflict.
	ErrOvertaken = fmt.Errorf("%w, on another host", ErrConflict)
)
