package events

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/invitation"
)

// Each thing that happens to an invitation is told once, also after a restart, and also
// what happened while no service ran.
func TestWhatIsToldOfAnInvitation(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "events")
	d := open(t, dir, noon)
	old := ended(invite("Z", 9), invitation.Withdrawn, noon.Add(-day))
	waits := held(invite("Y", 8), "yves", noon.Add(-day))
	d.invitations = []invitation.Listed{waits, old}
	d.look()
	d.want("what lasts when a command comes first", "Y invitation.held yves")
	step := func(what string, list []invitation.Listed, want ...string) {
		t.Helper()
		d.invitations = append(list, waits, old)
		d.look()
		d.want(what, want...)
		d.look()
		d.want(what + ", again")
		fail := d.fail
		d = open(t, dir, d.now)
		d.fail, d.invitations = fail, append(slices.Clone(list), waits, old)
		d.look()
		d.want(what + ", after a restart")
	}
	at := func(n int) time.Time { return noon.Add(time.Duration(n) * time.Minute) }
	a := invite("A", 1)
	step("invited", []invitation.Listed{a})
	a = wrong(a, "joe", at(1))
	step("a wrong user", []invitation.Listed{a}, "A invitation.wrong_user joe")
	a = wrong(a, "joe", at(2))
	step("once more", []invitation.Listed{a}, "A invitation.wrong_user joe")
	a = held(a, "jane", at(3))
	a.Company = "A renamed"
	step("a user to confirm", []invitation.Listed{a}, "A renamed invitation.held jane")
	a = ended(a, invitation.Refused, at(4))
	step("refused", []invitation.Listed{a}, "A renamed invitation.ended jane refused")

	// While no service ran: invited, a wrong user, withdrawn, and invited again.
	b1, b2 := ended(wrong(invite("B", 2), "joe", at(5)), invitation.Replaced, at(5)), invite("B", 3)
	step("nobody looked", []invitation.Listed{b2, b1, a}, "B invitation.wrong_user joe", "B invitation.ended joe replaced")
	done := ended(b2, invitation.Completed, at(6))
	done.End.User = "bob"
	step("completed", []invitation.Listed{done, b1, a}, "B invitation.completed completed")
	c := invite("C", 4)
	step("one more", []invitation.Listed{c, done})
	d.now = noon.Add(8 * day)
	step("expired by the clock", []invitation.Listed{c, done}, "C invitation.ended")
	// What was removed may come again.
	x := invite("X", 5)
	x.Expires = noon.Add(60 * day)
	step("one with an application", []invitation.Listed{x})
	step("that is removed", []invitation.Listed{ended(x, invitation.ApplicationRemoved, at(7))}, "X invitation.ended application-removed")
	step("and registered again", []invitation.Listed{x})
	step("and removed", []invitation.Listed{ended(x, invitation.ApplicationRemoved, at(9))}, "X invitation.ended application-removed")
	if len(d.files.known) != 0 || len(d.files.invited) == 0 {
		t.Errorf("it knows %v, %v", d.files.known, d.files.invited)
	}
	// One that is missed is remembered for a while.
	d.now = d.now.Add(forgetAfter + 2*day)
	d.look()
	if all := d.files.invited; len(all) != 3 {
		t.Errorf("it knows %v", slices.Collect(maps.Keys(all)))
	}
	// Where not all can be read, none counts as missed.
	d.invitations = nil
	if err := d.Look(context.Background(), Known{Complete: true}, teller); err != nil {
		t.Fatal(err)
	}
	d.now = d.now.Add(forgetAfter + 2*day)
	if err := d.Look(context.Background(), Known{Complete: true}, teller); err != nil || len(d.files.invited) != 3 {
		t.Errorf("%v, it knows %d", err, len(d.files.invited))
	}
}

// Events of an invitation have the IDs that they had, also where it was lost what was told.
func TestIDsOfInvitations(t *testing.T) {
	a := wrong(held(invite("A", 1), "jane", noon.Add(time.Minute)), "joe", noon)
	ids := func(lose bool) []string {
		dir := filepath.Join(t.TempDir(), "events")
		d := open(t, dir, noon)
		d.look()
		d.invitations = []invitation.Listed{a}
		d.look()
		d.want("both", "A invitation.wrong_user joe", "A invitation.held jane")
		if lose {
			if err := os.WriteFile(filepath.Join(dir, toldFile), []byte(`{"version":1,"next":1,"grants":{},"invitations":{"x":{}}}`), 0o600); err != nil {
				t.Fatal(err)
			}
			d = open(t, dir, d.now.Add(time.Hour))
			d.invitations = []invitation.Listed{a}
			d.look()
			d.want("what lasts", "A invitation.held jane")
			if !strings.Contains(d.log.String(), "told.json.1.damaged") {
				t.Errorf("the log is %q", d.log.String())
			}
		}
		return slices.Sorted(maps.Keys(d.tried))
	}
	whole, lost := ids(false), ids(true)
	if len(whole) != 2 || len(lost) != 1 || !slices.Contains(whole, lost[0]) {
		t.Errorf("IDs %q, and after the loss %q", whole, lost)
	}
}

// The events of a company come in order, those of its invitations and of its grants: also
// where the company had no grant when it was invited, and another name.
func TestOrderWithInvitations(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "events")
	d := open(t, dir, noon)
	d.look()
	refuse := true
	d.fail = func(e event) error {
		if refuse && strings.HasPrefix(strings.ToLower(e.Company), "a") {
			return errNo
		}
		return nil
	}
	a, b := invite("A", 1), invite("B", 2)
	d.invitations = []invitation.Listed{wrong(b, "bert", noon), wrong(a, "joe", noon)}
	d.look()
	d.want("A's wait", "B invitation.wrong_user bert")
	d.invitations = []invitation.Listed{wrong(b, "bert", noon), held(wrong(a, "joe", noon), "jane", noon.Add(time.Hour))}
	d.look()
	d.want("nothing overtakes")
	restart := func() {
		fail, list := d.fail, d.invitations
		d = open(t, dir, d.now)
		d.fail, d.invitations = fail, list
	}
	restart()
	a.Company = "a & b"
	a = held(wrong(a, "joe", noon), "jane", noon.Add(time.Hour))
	a = ended(a, invitation.Completed, noon.Add(2*time.Hour))
	d.invitations[1] = a
	r := record("a & b", 1, noon.Add(far))
	d.look(r)
	d.want("nor with a grant")
	restart()
	next := invite("a & b", 3)
	next.CompanyID = a.CompanyID
	d.invitations = []invitation.Listed{ended(next, invitation.Withdrawn, noon.Add(3*time.Hour)), a, wrong(b, "bert", noon)}
	d.look(void(r))
	d.want("nor after a restart")
	refuse = false
	d.work(d.now.Add(time.Hour))
	d.want("all", "A invitation.wrong_user joe", "A invitation.held jane", "a & b authorized", "a & b invitation.completed jane completed", "a & b void", "a & b invitation.ended withdrawn")

	// Many at once fill several files.
	d.invitations = nil
	for n := range 3 * most / 2 {
		d.invitations = append(d.invitations, wrong(invite(fmt.Sprintf("Company %d", n), 100+n), "joe", noon))
	}
	d.fail = func(event) error { return errNo }
	d.look()
	restart()
	d.look()
	d.fail = func(event) error { return nil }
	d.work(d.now.Add(time.Hour))
	if len(d.told) != 3*most/2 || len(d.tried) != len(d.told) {
		t.Errorf("%d were told, of %d", len(d.told), len(d.tried))
	}
}

// Without a command nothing is kept of invitations, and what lasts is told once there is one.
func TestInvitationsWithoutACommand(t *testing.T) {
	d := open(t, filepath.Join(t.TempDir(), "events"), noon)
	a, b := invite("A", 1), invite("B", 2)
	d.invitations = []invitation.Listed{b, a}
	d.look()
	if err := d.Look(context.Background(), Known{}, nil); err != nil {
		t.Fatal(err)
	}
	d.invitations = []invitation.Listed{held(b, "bob", noon), ended(wrong(a, "joe", noon), invitation.Withdrawn, noon)}
	d.look()
	d.want("only what lasts", "B invitation.held bob")
	d.invitations = []invitation.Listed{ended(held(b, "bob", noon), invitation.Refused, noon), ended(wrong(a, "joe", noon), invitation.Withdrawn, noon)}
	d.look()
	d.want("and what comes then", "B invitation.ended bob refused")
}

// Two invitations that were made in the same second are told in the order in which one ended
// the other, whatever their keys are.
func TestAnInvitationThatWasReplacedAtOnceIsToldFirst(t *testing.T) {
	made := time.Date(2026, 11, 21, 16, 5, 3, 0, time.UTC)
	old := invitation.Listed{Key: "b", Invitation: invitation.Invitation{Made: made, End: &invitation.End{Why: invitation.Replaced, At: made}}}
	fresh := invitation.Listed{Key: "a", Invitation: invitation.Invitation{Made: made}}
	first := invitation.Listed{Key: "c", Invitation: invitation.Invitation{Made: made.Add(-time.Second)}}
	for _, list := range [][]invitation.Listed{{fresh, old, first}, {old, fresh, first}, {first, fresh, old}} {
		var got []invitation.Key
		for _, l := range oldestFirst(list) {
			got = append(got, l.Key)
		}
		if !slices.Equal(got, []invitation.Key{"c", "b", "a"}) {
			t.Errorf("got %q", got)
		}
	}
}
