package ledger_test

import (
	"strings"
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/vault/ledger"
)

// TestLoss reads what is said of each way in which a token is lost although every rule was
// kept.
func TestLoss(t *testing.T) {
	at := time.Date(2026, 11, 21, 16, 5, 3, 0, time.UTC)
	token := ledger.Made{Generation: 4, Attempt: 2}
	claim := func(host string, makes ledger.Made, outcome ledger.Outcome) ledger.Sent {
		return ledger.Sent{
			Claim: ledger.Claim{
				Makes: makes, Sends: ledger.Made{Generation: makes.Generation - 1, Attempt: 1}, Host: host,
				Epoch: 2, At: at.Add(time.Duration(makes.Attempt) * time.Minute), Outcome: outcome,
			},
			Name: host,
		}
	}
	next := func(attempt int) ledger.Made { return ledger.Made{Generation: 5, Attempt: attempt} }
	stands := claim("web-2", token, ledger.Granted)
	refused := claim("web-1", next(2), ledger.Refused)
	refused.Sends = token
	later := refused
	later.Epoch = 3
	removed := claim("web-2", next(1), ledger.Open)
	removed.Removed = true
	unnamed := claim("4f2a", next(1), ledger.NoAnswer)
	unnamed.Name = ""
	earlier := ledger.Made{Generation: 4, Attempt: 1}
	for name, of := range map[string]struct {
		state ledger.State
		sent  []ledger.Sent
		want  string
	}{
		"a changed password": {ledger.Void, []ledger.Sent{stands, refused}, ""},
		"a grant that lives": {ledger.Live, []ledger.Sent{claim("web-2", next(1), ledger.Open)}, ""},
		"nothing was sent":   {ledger.Void, []ledger.Sent{stands, claim("web-2", next(1), ledger.Unsent), refused}, ""},
		"cut off before the seal": {ledger.Void, []ledger.Sent{stands, claim("web-2", next(1), ledger.NoAnswer), refused},
			"web-2 asked UPS at 2026-11-21T16:06:03Z, and no usable answer came onto its disk: the connection or the program was cut off. UPS most likely granted that request."},
		"no name": {ledger.Void, []ledger.Sent{stands, unnamed, refused}, "the host 4f2a asked UPS"},
		"paused and taken over": {ledger.Void, []ledger.Sent{claim("web-1", earlier, ledger.Refused), stands, refused},
			"web-1 asked UPS at 2026-11-21T16:06:03Z, and web-2 asked UPS at 2026-11-21T16:07:03Z with the same token. The first was still sent after the second had taken over"},
		"a lost disk": {ledger.Interrupted, []ledger.Sent{stands, claim("web-2", next(1), ledger.Open), refused},
			"web-2 asked UPS at 2026-11-21T16:06:03Z; its answer has not arrived here. If that host's disk is lost, so is the answer."},
		"a host that was removed": {ledger.Interrupted, []ledger.Sent{stands, removed, refused}, "and was removed before it told of an answer"},
		"an answer that was not delivered": {ledger.Void, []ledger.Sent{claim("web-1", earlier, ledger.Granted), stands, refused},
			"The first had an answer that it had not delivered when the second took over."},
		"a database that went back": {ledger.Void, []ledger.Sent{stands, later}, "The database changed hands between this token and its refusal."},
	} {
		t.Run(name, func(t *testing.T) {
			got := ledger.Loss(ledger.Grant{Token: token, State: of.state}, of.sent)
			if of.want == "" && got != "" || !strings.Contains(got, of.want) {
				t.Errorf("got %q, want %q", got, of.want)
			}
		})
	}
}
