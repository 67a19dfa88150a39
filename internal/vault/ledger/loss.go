package ledger

import (
	"fmt"
	"strings"
	"time"
)

// Sent is a claim whose request may have reached UPS, with what people read of its host.
type Sent struct {
	Claim
	Name    string // empty where the database does not know the host
	Removed bool   // the host was removed
}

func (s Sent) name() string { return named(s.Name, s.Host) }

// asked names a request: its host and its time.
func (s Sent) asked() string {
	return fmt.Sprintf("%s asked UPS at %s", s.name(), s.At.UTC().Format(time.RFC3339))
}

// Loss says in sentences how a grant came to be without a token that UPS takes, as far as the
// claims tell; empty where they tell nothing, as after a changed password. Sent are the claims
// that made the token that stands and its spares, and those at the next generation.
func Loss(g Grant, sent []Sent) string {
	if g.State != Void && g.State != Interrupted {
		return ""
	}
	var made, next []Sent
	for _, s := range sent {
		switch {
		case !s.Outcome.Spends():
		case s.Makes.Generation == g.Token.Generation:
			made = append(made, s)
		case s.Makes.Generation == g.Token.Generation+1:
			next = append(next, s)
		}
	}
	var said []string
	for _, s := range next {
		switch {
		case s.Outcome == NoAnswer:
			said = append(said, s.asked()+", and no usable answer came onto its disk: the connection or the program was cut off. UPS most likely granted that request.")
		case s.Outcome == Open && s.Removed:
			said = append(said, s.asked()+" and was removed before it told of an answer. If UPS granted that request, the new token is on that host's disk alone.")
		case s.Outcome == Open:
			said = append(said, s.asked()+"; its answer has not arrived here. If that host's disk is lost, so is the answer.")
		}
	}
	if twice := usedTwice(made); twice != "" {
		said = append(said, twice)
	}
	if len(said) == 0 {
		said = changedHands(g, made, next)
	}
	return strings.Join(said, " ")
}

// usedTwice says that two requests sent the token before the one that stands.
func usedTwice(made []Sent) string {
	for i, first := range made {
		for _, second := range made[i+1:] {
			if first.Sends != second.Sends || first.Host == second.Host {
				continue
			}
			how := "The first was still sent after the second had taken over: its process or machine was paused."
			switch first.Outcome {
			case Granted:
				how = "The first had an answer that it had not delivered when the second took over."
			case NoAnswer, Open:
				how = "The first was taken over before it told of an answer."
			}
			return fmt.Sprintf("%s, and %s with the same token. %s UPS may void an authorization whose token is used twice.", first.asked(), second.asked(), how)
		}
	}
	return ""
}

// changedHands says that the database changed hands between a token and its refusal.
func changedHands(g Grant, made, next []Sent) []string {
	for _, token := range made {
		for _, refusal := range next {
			if token.Makes == g.Token && refusal.Outcome == Refused && refusal.Sends == g.Token && token.Epoch < refusal.Epoch {
				return []string{"The database changed hands between this token and its refusal. A host that was lost with the old database, or whose disk was put back, may have sent the token."}
			}
		}
	}
	return nil
}
