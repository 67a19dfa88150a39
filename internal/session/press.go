package session

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/invitation"
	"github.com/upsauth/upsauth/internal/keeper"
	"github.com/upsauth/upsauth/internal/ups"
	"github.com/upsauth/upsauth/internal/vault"
)

// Pressed is what a press of the customer's made: the address at UPS, and the text that
// the callback has to bring back, sealed, until it ends.
type Pressed struct {
	Address, Sealed string
	Ends            time.Time
}

// pressLasts is how long a customer has to come back from ups.com.
const pressLasts = 30 * time.Minute

// sealedFor is the purpose of what a press seals.
const sealedFor = "invitation"

// Press makes state and verifier for a sign-in with an invitation that is open. It writes
// nothing.
func (s *Session) Press(ctx context.Context, i Invited) (Pressed, error) {
	if !i.Open(s.Now()) {
		return Pressed{}, &invitation.OverError{Invitation: i.Invitation}
	}
	client, err := s.publicClient(ctx, i.GrantID())
	if err != nil {
		return Pressed{}, err
	}
	key, err := s.sealingKey(ctx, true)
	if err != nil {
		return Pressed{}, err
	}
	expect, err := s.ExpectedUser(ctx, i)
	if err != nil {
		return Pressed{}, err
	}
	remembered, err := s.Keeper.Prepare(ctx, keeper.Request{
		ID: i.GrantID(), Home: s.Config.Vault, Client: client, ExpectUser: expect, Lasts: pressLasts, Ref: string(i.Key),
	})
	if err != nil {
		return Pressed{}, err
	}
	// The invitation knows what the company is called then, and a browser has no room for
	// the longest names.
	remembered.Company = ""
	sealed, err := remembered.Seal(key, sealedFor)
	if err != nil {
		return Pressed{}, err
	}
	return Pressed{Address: remembered.Address(client), Sealed: sealed, Ends: remembered.Ends}, nil
}

// ExpectedUser is the only user whose sign-in is kept, empty for any.
func (s *Session) ExpectedUser(ctx context.Context, i Invited) (string, error) {
	if i.ExpectUser != "" || i.AnyUser {
		return i.ExpectUser, nil
	}
	record, err := s.Vault.Record(ctx, i.GrantID())
	if err != nil && !errors.Is(err, grant.ErrNoGrant) {
		return "", err
	}
	return record.User, nil
}

func (s *Session) publicClient(ctx context.Context, id grant.ID) (*ups.Client, error) {
	registration, err := s.Registration(ctx, id.Application, id.Environment)
	if err != nil {
		return nil, err
	}
	if err := s.CanInvite(registration); err != nil {
		return nil, err
	}
	client, err := s.Client(ctx, registration)
	if err != nil {
		return nil, err
	}
	its := *client
	its.RedirectURI = registration.PublicRedirectURI
	return &its, nil
}

// sealing is a key that seals what browsers keep.
type sealing struct {
	home string
	key  []byte
	till time.Time
}

// sealingLasts is how long the key is not read again: whoever finds the public face can
// have it asked for.
const sealingLasts = time.Minute

// sealingKey is the key of this vault that seals what browsers keep. It is
// vault.ErrNoItem where there is none, unless it shall be made.
func (s *Session) sealingKey(ctx context.Context, made bool) ([]byte, error) {
	home, now := s.Config.Vault, s.Now()
	if k := s.sealing.Load(); k != nil && k.home == home && now.Before(k.till) && k.till.Sub(now) <= sealingLasts {
		return k.key, nil
	}
	for range 2 {
		text, err := s.Vault.Secret(ctx, home, vault.InvitationKeyAccount)
		var damage *vault.HomeError
		switch {
		case err == nil:
			key, wrong := base64.StdEncoding.DecodeString(text)
			if wrong == nil && len(key) == keeper.KeySize {
				s.sealing.Store(&sealing{home, key, now.Add(sealingLasts)})
				return key, nil
			}
			// A damaged key costs the customers who are at ups.com one more press.
			err = fmt.Errorf("the key under %s in the %s is damaged", vault.InvitationKeyAccount, vault.Describe(home))
		case errors.As(err, &damage) && damage.Damaged, errors.Is(err, vault.ErrNoItem):
		default:
			return nil, err
		}
		if !made {
			return nil, err
		}
		put := s.Vault.MakeSecret
		if !errors.Is(err, vault.ErrNoItem) {
			s.stepf(ctx, "%v: a new one is made", err)
			put = s.Vault.PutSecret
		}
		if err := s.Vault.Make(ctx, home); err != nil {
			return nil, err
		}
		key := make([]byte, keeper.KeySize)
		_, _ = rand.Read(key)
		// It is read again: another process may have been later.
		if err := put(ctx, home, vault.InvitationKeyAccount, base64.StdEncoding.EncodeToString(key)); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("the key under %s in the %s can't be kept", vault.InvitationKeyAccount, vault.Describe(home))
}

// ReadyForCustomers makes the key that seals what browsers keep, so that no press has to.
func (s *Session) ReadyForCustomers(ctx context.Context) error {
	_, err := s.sealingKey(ctx, true)
	return err
}

// AskUPS asks UPS whether it would let somebody sign in with an invitation. Only what
// certainly ends the sign-in is an error.
func (s *Session) AskUPS(ctx context.Context, i Invited) error {
	client, err := s.publicClient(ctx, i.GrantID())
	if err != nil {
		return err
	}
	return client.Preflight(ctx)
}

// ForeignPressError says that a text is nothing that a press sealed, or not any more.
type ForeignPressError struct{ Err error }

func (e *ForeignPressError) Error() string { return e.Err.Error() }

func (e *ForeignPressError) Unwrap() error { return e.Err }

// OpenPress opens what a press sealed. Any text that a browser sends may come here: a
// *ForeignPressError is about the text, any other error about this machine.
func (s *Session) OpenPress(ctx context.Context, sealed string) (keeper.Remembered, error) {
	key, err := s.sealingKey(ctx, false)
	if errors.Is(err, vault.ErrNoItem) {
		return keeper.Remembered{}, &ForeignPressError{err}
	}
	if err != nil {
		return keeper.Remembered{}, err
	}
	remembered, err := keeper.Open(key, sealedFor, sealed, s.Now())
	if err != nil {
		return keeper.Remembered{}, &ForeignPressError{err}
	}
	return remembered, nil
}
