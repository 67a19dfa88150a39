package keeper

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/upsauth/upsauth/internal/ups"
)

// A sign-in whose user has to be confirmed by somebody elsewhere may wait for that for
// days. Its company's turn can't be kept for so long: what UPS granted is laid aside, and
// taken up by another sign-in.

// LayAside ends the sign-in and forgets what UPS granted, once save has it. The text that
// save gets has secrets, and TakeUp makes the same grant of it. If save fails, the sign-in
// still can be kept or dropped.
func (s *SignIn) LayAside(ctx context.Context, save func(ctx context.Context, text string) error) error {
	if s.signed == nil {
		return errors.New("nobody has signed in, so there is nothing to lay aside")
	}
	text, err := json.Marshal(s.signed.answer)
	if err != nil {
		return err
	}
	// If the process ends in between, nothing of it is put in place.
	s.MarkUnconfirmed(ctx)
	if err := save(context.WithoutCancel(ctx), string(text)); err != nil {
		return err
	}
	s.Drop(ctx)
	return nil
}

// TakeUp is Finish with what another sign-in laid aside, for the same company,
// application and environment. Nothing is sent to UPS. The caller then calls Keep.
func (s *SignIn) TakeUp(ctx context.Context, text string) (Outcome, error) {
	if s.unlock == nil || s.answered {
		return Outcome{}, errors.New("the sign-in is over already; nothing was changed")
	}
	var answer ups.Answer
	if err := json.Unmarshal([]byte(text), &answer); err != nil {
		return Outcome{}, errors.New("what was laid aside can't be read")
	}
	tokens := answer.Tokens()
	if !usable(tokens) {
		return Outcome{}, errors.New("what was laid aside has no tokens that can be used")
	}
	s.answered = true
	whole := context.WithoutCancel(ctx)
	if err := s.k.keep(whole, s.j, nil)(answer); err != nil {
		return Outcome{}, err // what was laid aside still has it
	}
	s.j.Answered = true
	g := granted(*s.j, answer, tokens)
	s.signed = &signed{answer: answer, tokens: tokens, grant: g, sealed: true}
	return Outcome{SignedIn: true, User: g.User}, nil
}

// TokenVaultKey is the one that the grant has once the sign-in is kept.
func (s *SignIn) TokenVaultKey() string { return s.j.TokenVaultKey }
