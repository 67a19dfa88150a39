package ledger

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
)

var (
	noon   = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	here   = Identity{System: "s", Timeline: "1", Database: 1, Claims: 1}
	selfA  = Self{ID: "a", Name: "web-1", Machine: "m1", Incarnation: 1, Boot: "b1", Epoch: 3}
	rowA   = Host{ID: "a", Name: "web-1", Machine: "m1", Incarnation: 1, Boot: "b1", Epoch: 3, Accepted: true, Seen: noon}
	rowB   = Host{ID: "b", Name: "web-2", Machine: "m2", Incarnation: 1, Boot: "b2", Epoch: 3, Accepted: true, Seen: noon}
	tenMin = Terms{TakeOverAfter: 10 * time.Minute}
)

func book(claims ...Claim) Book {
	return Book{
		Now: noon, Identity: here, Meta: Meta{Epoch: 3, Identity: here, Highest: 9}, Hosts: []Host{rowA, rowB},
		Grant: Grant{Key: "K", Token: Made{4, 1}, State: Live, Version: 7}, Claims: claims,
	}
}

func intentA() Intent {
	return Intent{Key: "K", Generation: 5, Sends: Made{4, 1}, Nonce: "n", Host: "a", Incarnation: 1, Purpose: grant.Refreshing, Epoch: 3}
}

func claimOf(host string, attempt int, o Outcome, ago time.Duration) Claim {
	return Claim{Key: "K", Makes: Made{5, attempt}, Sends: Made{4, 1}, Nonce: host + "1", Host: host, Incarnation: 1, Purpose: grant.Refreshing, Epoch: 3, At: noon.Add(-ago), Outcome: o}
}

// What may be claimed beside another claim.
func TestClaimBesideAnother(t *testing.T) {
	never := Terms{Never: true}
	for _, test := range []struct {
		name  string
		other Claim
		terms Terms
		known []string // the intents on this host's disk
		want  bool
	}{
		{"another's, 9 minutes old", claimOf("b", 1, Open, 9*time.Minute), tenMin, nil, false},
		{"another's, 10 minutes old", claimOf("b", 1, Open, 10*time.Minute), tenMin, nil, true},
		{"another's, where nobody takes over", claimOf("b", 1, Open, 1000*time.Hour), never, nil, false},
		{"a person takes over", claimOf("b", 1, Open, time.Minute), Terms{Never: true, TakeOver: true}, nil, true},
		{"a person takes over what may be on its way", claimOf("b", 1, Open, 59*time.Second), Terms{TakeOver: true}, nil, false},
		{"a time that is too short", claimOf("b", 1, Open, 59*time.Second), Terms{TakeOverAfter: time.Second}, nil, false},
		{"unsent", claimOf("b", 1, Unsent, 0), never, nil, true},
		{"429", claimOf("b", 1, Limited, 0), never, nil, true},
		{"no byte written", claimOf("b", 1, NoByte, 0), never, nil, true},
		{"no answer, 59 s old", claimOf("b", 1, NoAnswer, 59*time.Second), never, nil, false},
		{"no answer, 60 s old", claimOf("b", 1, NoAnswer, time.Minute), never, nil, true},
		{"its own, 59 s old", claimOf("a", 1, Open, 59*time.Second), never, []string{"a1"}, false},
		{"its own, 60 s old", claimOf("a", 1, Open, time.Minute), never, []string{"a1"}, true},
		{"its own without a journal", claimOf("a", 1, Open, time.Minute), tenMin, nil, false},
		{"of another generation", Claim{Key: "K", Makes: Made{4, 2}, Host: "b", At: noon}, never, nil, true},
	} {
		_, isNew, err := book(test.other).Claim(selfA, intentA(), Sighting{}, test.known, test.terms)
		if isNew != test.want || (err == nil) != test.want {
			t.Errorf("%s: %v, %v", test.name, isNew, err)
		}
	}
	// An open claim counts although a later one has ended.
	if _, _, err := book(claimOf("b", 1, Open, 0), claimOf("c", 2, Unsent, 0)).Claim(selfA, intentA(), Sighting{}, nil, tenMin); err == nil {
		t.Error("an unsent attempt hides an open one")
	}
	b := book(claimOf("b", 1, Open, time.Minute))
	b.Hosts[1].Removed = true
	if _, _, err := b.Claim(selfA, intentA(), Sighting{}, nil, never); err != nil {
		t.Errorf("the claim of a removed host: %v", err)
	}
}

// A claim whose commit is unknown is repeated with its nonce, and is the same claim.
func TestClaimRepeated(t *testing.T) {
	first, isNew, err := book().Claim(selfA, intentA(), Sighting{}, nil, tenMin)
	if err != nil || !isNew {
		t.Fatal(isNew, err)
	}
	again, isNew, err := book(first).Claim(selfA, intentA(), Sighting{}, nil, tenMin)
	if err != nil || isNew || again != first {
		t.Errorf("%+v, %v, %v", again, isNew, err)
	}
	first.Outcome = Unsent
	if _, _, err := book(first).Claim(selfA, intentA(), Sighting{}, nil, tenMin); !errors.As(err, new(*SettledError)) {
		t.Errorf("an attempt that has ended: %v", err)
	}
}

// Who may not claim at all, and what.
func TestClaimRefused(t *testing.T) {
	for name, change := range map[string]func(b *Book, s *Self, in *Intent, seen *Sighting){
		"removed":                   func(b *Book, _ *Self, _ *Intent, _ *Sighting) { b.Hosts[0].Removed = true },
		"another incarnation":       func(b *Book, _ *Self, _ *Intent, _ *Sighting) { b.Hosts[0].Incarnation++ },
		"another machine":           func(_ *Book, s *Self, _ *Intent, _ *Sighting) { s.Machine = "m9" },
		"a host has not answered":   func(b *Book, _ *Self, _ *Intent, _ *Sighting) { b.Hosts[1].Epoch = 2 },
		"it has not answered":       func(b *Book, _ *Self, _ *Intent, _ *Sighting) { b.Hosts[0].Epoch = 2 },
		"an intent of an old epoch": func(_ *Book, _ *Self, in *Intent, _ *Sighting) { in.Epoch = 2 },
		"another timeline":          func(b *Book, _ *Self, _ *Intent, _ *Sighting) { b.Identity.Timeline = "2" },
		"a lower number":            func(_ *Book, s *Self, _ *Intent, _ *Sighting) { s.Seen = Seen{10, "x"} },
		"a number of another claim": func(b *Book, s *Self, _ *Intent, _ *Sighting) {
			s.Seen, b.Holder = Seen{9, "x"}, &Claim{Number: 9, Nonce: "y"}
		},
		"a generation that went back": func(_ *Book, _ *Self, _ *Intent, seen *Sighting) { *seen = Sighting{Made{4, 2}, 3} },
		"void":                        func(b *Book, _ *Self, _ *Intent, _ *Sighting) { b.Grant.State = Void },
		"interrupted, without a spare": func(b *Book, _ *Self, _ *Intent, _ *Sighting) {
			b.Grant.State = Interrupted
		},
		"removing":                    func(b *Book, _ *Self, _ *Intent, _ *Sighting) { b.Grant.State = Removing },
		"moved":                       func(b *Book, _ *Self, _ *Intent, _ *Sighting) { b.Grant.State = Moved },
		"another key":                 func(b *Book, _ *Self, _ *Intent, _ *Sighting) { b.Grant.Key = "L" },
		"another generation":          func(b *Book, _ *Self, _ *Intent, _ *Sighting) { b.Grant.Token.Generation = 5 },
		"another token of generation": func(b *Book, _ *Self, _ *Intent, _ *Sighting) { b.Grant.Token.Attempt = 2 },
		"alone": func(b *Book, _ *Self, _ *Intent, _ *Sighting) {
			b.Hosts[0].Accepted, b.Hosts[1].Seen, b.Hosts[1].SignedOff = false, noon.Add(-AloneAfter), true
		},
	} {
		b, s, in, seen := book(), selfA, intentA(), Sighting{Made{4, 1}, 3}
		if _, _, err := b.Claim(s, in, seen, nil, tenMin); err != nil {
			t.Fatal(err)
		}
		change(&b, &s, &in, &seen)
		if _, _, err := b.Claim(s, in, seen, nil, tenMin); err == nil {
			t.Errorf("%s: claimed", name)
		}
	}
	waived := book()
	waived.Hosts[1].Epoch = 2
	if _, err := waived.AcceptFailover(2); !errors.As(err, new(*FrozenError)) {
		t.Errorf("a person speaks of the roll call before: %v", err)
	}
	elsewhere := waived
	elsewhere.Identity.Timeline = "2"
	if _, err := elsewhere.AcceptFailover(3); !errors.As(err, new(*FrozenError)) {
		t.Errorf("a person speaks before the roll call: %v", err)
	}
	var err error
	if waived.Hosts, err = waived.AcceptFailover(3); err != nil {
		t.Fatal(err)
	}
	if _, _, err := waived.Claim(selfA, intentA(), Sighting{}, nil, tenMin); err != nil {
		t.Errorf("a person does not wait: %v", err)
	}
	b := book()
	sign := Intent{Key: "L", Generation: 1, Nonce: "n", Host: "a", Incarnation: 1, Purpose: grant.Authorizing, Epoch: 3}
	c, _, err := b.Claim(selfA, sign, Sighting{}, nil, tenMin)
	if err != nil {
		t.Fatal(err)
	}
	b.Claims, sign.Nonce = []Claim{c}, "m"
	b.Now = noon.Add(time.Hour)
	if _, _, err := b.Claim(selfA, sign, Sighting{}, nil, tenMin); err == nil {
		t.Error("a sign-in's code is sent twice")
	}
}

func TestCheck(t *testing.T) {
	mine := claimOf("a", 1, Open, 4*time.Second)
	if err := book(mine).Check(selfA, mine, 4*time.Second); err != nil {
		t.Fatal(err)
	}
	late, ended := mine, mine
	late.At = noon.Add(-SendWithin)
	ended.Outcome = NoAnswer
	for name, test := range map[string]struct {
		b       Book
		elapsed time.Duration
	}{
		"a later attempt":        {book(mine, claimOf("b", 2, Open, 0)), 0},
		"a later one of no fate": {book(mine, claimOf("b", 2, NoAnswer, 0)), 0},
		"5 s of the database":    {book(late), 0},
		"5 s of this machine":    {book(mine), SendWithin},
		"it was settled":         {book(ended), 0},
		"the database lost it":   {book(), 0},
		"a revoke has begun":     {func() Book { b := book(mine); b.Grant.State = Removing; return b }(), 0},
		"an answer came":         {func() Book { b := book(mine); b.Grant.Token = Made{5, 1}; return b }(), 0},
		"another epoch":          {func() Book { b := book(mine); b.Meta.Epoch = 4; return b }(), 0},
	} {
		if test.b.Check(selfA, mine, test.elapsed) == nil {
			t.Errorf("%s: sent", name)
		}
	}
	if err := book(mine, claimOf("b", 2, Unsent, 0)).Check(selfA, mine, 0); err != nil {
		t.Errorf("a later attempt that spends nothing: %v", err)
	}
}

func TestIntroduce(t *testing.T) {
	row := rowA
	row.Incarnation, row.Boot = 4, "b4"
	self := Self{ID: "a", Machine: "m1", Incarnation: 4, Boot: "b4"}
	with := func(change func(*Self)) Self { s := self; change(&s); return s }
	for _, test := range []struct {
		name           string
		self           Self
		machine, boots string
		row            *Host
		want           Introduction
		worked         bool
	}{
		{"as before", self, "m1", "b4", &row, Known, false},
		{"after a reboot", self, "m1", "b5", &row, Raise, false},
		{"the raise's answer was lost", with(func(s *Self) { s.Incarnation = 3 }), "m1", "b4", &row, Adopt, false},
		{"the raise's answer was lost, and then the power", with(func(s *Self) { s.Incarnation = 3 }), "m1", "b4 b5", &row, Raise, false},
		{"a copy that was made before a raise, and the original went on", with(func(s *Self) { s.Incarnation = 3 }), "m1", "b4 b5", &row, Rename, true},
		{"so it was twice", with(func(s *Self) { s.Incarnation = 2 }), "m1", "b3 b4 b5", &row, Raise, false},
		{"so it was before another try of this boot", with(func(s *Self) { s.Incarnation = 2 }), "m1", "b3 b4", &row, Adopt, false},
		{"the power was lost before the raise, and a copy raised it", with(func(s *Self) { s.Incarnation = 3 }), "m1", "b5 b9", &row, Rename, false},
		{"a copy raised it", with(func(s *Self) { s.Incarnation = 3 }), "m1", "b9", &row, Rename, false},
		{"an old copy of this disk", with(func(s *Self) { s.Incarnation = 2 }), "m1", "b4", &row, Rename, false},
		{"a copy on another machine", self, "m2", "b4", &row, Rename, false},
		{"an empty disk", Self{}, "m1", "b4", nil, Rename, false},
		{"a database that does not know it", self, "m1", "b4", nil, Register, false},
		{"a database that went back", with(func(s *Self) { s.Incarnation = 6 }), "m1", "b6", &row, Restore, false},
	} {
		if got := Introduce(test.self, test.machine, strings.Fields(test.boots), test.row, test.worked); got != test.want {
			t.Errorf("%s: %d, want %d", test.name, got, test.want)
		}
	}
}

// A copy of a disk is another host, which notices as well that the database went back.
func TestRenamedHostKeepsWhatItSaw(t *testing.T) {
	self := selfA
	self.Seen = Seen{12, "x"}
	got := self.Renamed("c", "web-3", "m3", "b3")
	if want := (Self{ID: "c", Name: "web-3", Machine: "m3", Incarnation: 1, Boot: "b3", Epoch: 3, Seen: Seen{12, "x"}}); got != want {
		t.Errorf("%+v", got)
	}
}

func TestNextEpoch(t *testing.T) {
	m := Meta{Epoch: 3, Identity: here, Highest: 9}
	other := here
	other.Claims++
	if m.WentBack(here, selfA, nil) || !m.WentBack(other, selfA, nil) || !m.WentBack(here, Self{Epoch: 4}, nil) {
		t.Error("WentBack")
	}
	self := Self{Epoch: 5}
	next, claims := m.NextEpoch(other, self, []Claim{claimOf("b", 1, Open, time.Hour), claimOf("b", 2, Refused, time.Hour)}, noon)
	if next != (Meta{Epoch: 6, Identity: other, Highest: 9}) || !claims[0].At.Equal(noon) || claims[1].At.Equal(noon) {
		t.Errorf("%+v %+v", next, claims)
	}
	if !m.WentBack(here, Self{Epoch: 3, Seen: Seen{12, "x"}}, nil) || next.WentBack(other, self, nil) || next.WentBack(other, self.Answers(6), nil) {
		t.Error("a new epoch begins for ever")
	}
	if got := next.Waiting([]Host{rowA, {Name: "gone", Removed: true}, {Name: "off", SignedOff: true}}); len(got) != 1 || got[0] != "web-1" {
		t.Errorf("waiting for %v", got)
	}
}

func TestSettle(t *testing.T) {
	in := intentA()
	mine := claimOf("a", 1, Open, time.Hour)
	mine.Nonce = in.Nonce
	told := mine
	told.Outcome = Refused
	old := in
	old.Epoch = 2
	foreign := in
	foreign.Host = "b"
	for _, test := range []struct {
		name  string
		b     Book
		in    Intent
		want  Outcome
		write bool
	}{
		{"a claim", book(mine), in, NoAnswer, true},
		{"no claim", book(), in, Unsent, true},
		{"no claim, and the database is another", book(), old, NoAnswer, true},
		{"told already", book(told), in, Refused, false},
		{"of another host", book(), foreign, Open, false},
	} {
		if row, write, err := test.b.Settle(selfA, test.in); err != nil || write != test.write || row.Outcome != test.want {
			t.Errorf("%s: %q, %v, %v", test.name, row.Outcome, write, err)
		}
	}
}

func TestReinsert(t *testing.T) {
	in := intentA()
	mine := claimOf("a", 1, NoAnswer, time.Hour)
	mine.Nonce = in.Nonce
	gone := book()
	gone.Grant = Grant{}
	overtaken := book()
	overtaken.Grant.Token = Made{5, 1}
	foreign, sign := in, in
	foreign.Host = "b"
	sign.Key, sign.Purpose = "L", grant.Authorizing
	for _, test := range []struct {
		name  string
		b     Book
		in    Intent
		write bool
		makes Made
	}{
		{"beside another's", book(claimOf("b", 1, Open, 0)), in, true, Made{5, 2}},
		{"it is there", book(mine), in, false, Made{5, 1}},
		{"the grant is gone, and may come back", gone, in, true, Made{5, 1}},
		{"the generation is there", overtaken, in, false, Made{}},
		{"of another host", book(), foreign, false, Made{}},
		{"of a sign-in", book(), sign, false, Made{}},
	} {
		if test.b.Grant == overtaken.Grant {
			// Its answer is a spare.
			if row, write, err := test.b.Reinsert(selfA, test.in, true); err != nil || !write || row.Outcome != Open {
				t.Errorf("%s, with an answer: %+v, %v, %v", test.name, row, write, err)
			}
		}
		row, write, err := test.b.Reinsert(selfA, test.in, false)
		if err != nil || write != test.write || row.Makes != test.makes || write && row.Outcome != Open {
			t.Errorf("%s: %+v, %v, %v", test.name, row, write, err)
		}
	}
}

// In a database that is another one, or is going to be, nothing is said of an attempt.
func TestNothingIsSaidBeforeTheRollCall(t *testing.T) {
	for name, change := range map[string]func(*Book, *Self){
		"another timeline": func(b *Book, _ *Self) { b.Identity.Timeline = "2" },
		"a later epoch":    func(b *Book, _ *Self) { b.Meta.Epoch = 4 },
		"an earlier epoch": func(b *Book, _ *Self) { b.Meta.Epoch = 2 },
		"a lower number":   func(_ *Book, s *Self) { s.Seen = Seen{10, "x"} },
		"another's number": func(b *Book, s *Self) { s.Seen, b.Holder = Seen{9, "x"}, &Claim{Number: 9, Nonce: "y"} },
	} {
		b, self := book(), selfA
		change(&b, &self)
		if _, write, err := b.Settle(self, intentA()); write || !errors.As(err, new(*FrozenError)) {
			t.Errorf("%s: it settles: %v, %v", name, write, err)
		}
		if _, write, err := b.Reinsert(self, intentA(), false); write || !errors.As(err, new(*FrozenError)) {
			t.Errorf("%s: it inserts again: %v, %v", name, write, err)
		}
	}
}

// An answer that another database gave a later place is no newer token here.
func TestSightingAfterADelivery(t *testing.T) {
	for _, test := range []struct {
		name                  string
		seen                  Sighting
		from, makes, standing Made
		want                  Sighting
	}{
		{"it stands", Sighting{Made{4, 1}, 2}, Made{5, 1}, Made{5, 1}, Made{5, 1}, Sighting{Made{5, 1}, 3}},
		{"it had a later place elsewhere", Sighting{Made{5, 3}, 2}, Made{5, 3}, Made{5, 2}, Made{5, 2}, Sighting{Made{5, 2}, 3}},
		{"another's was seen", Sighting{Made{5, 4}, 2}, Made{5, 3}, Made{5, 2}, Made{5, 2}, Sighting{Made{5, 4}, 2}},
		{"another stands", Sighting{Made{5, 3}, 2}, Made{5, 3}, Made{5, 1}, Made{5, 2}, Sighting{Made{5, 3}, 2}},
	} {
		if got := test.seen.Delivered(test.from, test.makes, test.standing, 3); got != test.want {
			t.Errorf("%s: %+v", test.name, got)
		}
	}
}

func TestDeliver(t *testing.T) {
	in := intentA()
	mine := claimOf("a", 1, NoAnswer, time.Hour)
	mine.Nonce = in.Nonce
	at := func(token Made, s State, claims ...Claim) Book {
		b := book(claims...)
		b.Grant.Token, b.Grant.State = token, s
		return b
	}
	for _, test := range []struct {
		name   string
		b      Book
		stands bool
		makes  Made
	}{
		{"the next generation", at(Made{4, 1}, Live, mine), true, Made{5, 1}},
		{"UPS refused another attempt", at(Made{4, 1}, Interrupted, mine), true, Made{5, 1}},
		{"even void", at(Made{4, 1}, Void, mine), true, Made{5, 1}},
		{"a later attempt stands", at(Made{5, 2}, Live, mine), false, Made{5, 1}},
		{"a later generation", at(Made{6, 1}, Live, mine), false, Made{5, 1}},
		{"an earlier attempt gives way", at(Made{5, 0}, Live, mine), true, Made{5, 1}},
		{"revoked", at(Made{4, 1}, Removing, mine), false, Made{5, 1}},
		{"moved", at(Made{4, 1}, Moved, mine), false, Made{5, 1}},
		{"the database lost the claim", at(Made{4, 1}, Live), true, Made{5, 1}},
		{"another has its place and its generation", at(Made{5, 1}, Live, claimOf("b", 1, Granted, 0)), false, Made{5, 2}},
		{"another has its place and no answer", at(Made{4, 1}, Live, claimOf("b", 1, Open, 0)), true, Made{5, 2}},
	} {
		got := test.b.Deliver(in, Made{5, 1})
		if got.Stands != test.stands || got.Claim.Outcome != Granted || got.Claim.Makes != test.makes || test.stands && got.Grant.State != Live {
			t.Errorf("%s: %+v", test.name, got)
		}
	}
}

func incarnation(n int64, c Claim) Claim { c.Incarnation = n; return c }

// An answer that is not the token that stands is a spare, and the ledger has to know of it.
func TestIsUntold(t *testing.T) {
	made := func(nonce string, attempt int) Claim {
		return Claim{Makes: Made{5, attempt}, Nonce: nonce, Outcome: Granted}
	}
	refused := made("a", 1)
	refused.Outcome = Refused
	for _, test := range []struct {
		name   string
		claims []Claim
		place  int
		want   bool
	}{
		{"it stands, and its claim is there", []Claim{made("n", 1)}, 1, false},
		{"it stands, and its claim was lost", nil, 1, false},
		{"it stands, its claim was lost, and its place is another's", []Claim{refused}, 1, false},
		{"its claim is there", []Claim{made("a", 1), made("n", 2)}, 2, false},
		{"its claim was lost", []Claim{made("a", 1)}, 2, true},
		{"its claim was lost, and that of the token", nil, 2, true},
		{"its place is another's, which stands", []Claim{made("a", 1)}, 1, true},
	} {
		if got := IsUntold(Made{5, 1}, test.claims, "n", test.place); got != test.want {
			t.Errorf("%s: %t", test.name, got)
		}
	}
}

// What a host does not have, it keeps nobody waiting for.
func TestDisown(t *testing.T) {
	spare := claimOf("a", 2, Granted, time.Hour)
	spare.Makes, spare.Sends = Made{4, 2}, Made{3, 1}
	for _, test := range []struct {
		name  string
		claim Claim
		state State
		held  Held
		ended bool
	}{
		{"open, without its attempt", claimOf("a", 2, Open, time.Minute), Interrupted, Held{}, true},
		{"of an earlier incarnation, 9 minutes old", incarnation(2, claimOf("a", 2, Open, 9*time.Minute)), Interrupted, Held{}, false},
		{"of an earlier incarnation, 10 minutes old", incarnation(2, claimOf("a", 2, Open, 10*time.Minute)), Interrupted, Held{}, true},
		{"on its way", claimOf("a", 2, Open, 59*time.Second), Interrupted, Held{}, false},
		{"with its attempt", claimOf("a", 2, Open, time.Hour), Interrupted, Held{Attempts: []string{"a1"}}, false},
		{"another's", claimOf("b", 2, Open, time.Hour), Interrupted, Held{}, false},
		{"a token stands", claimOf("a", 2, Open, time.Hour), Live, Held{}, false},
		{"ended", claimOf("a", 2, Unsent, time.Hour), Interrupted, Held{}, false},
		{"a spare that is not here", spare, Interrupted, Held{Attempts: []string{"a1"}}, true},
		{"a spare that is here", spare, Interrupted, Held{Answers: []string{"a1"}}, false},
	} {
		b := book(claimOf("b", 1, Refused, time.Hour), test.claim)
		b.Grant.State = test.state
		ended, err := b.Disown(selfA, test.held, tenMin)
		if err != nil || (len(ended) == 1) != test.ended || test.ended && ended[0].Outcome != NoAnswer {
			t.Errorf("%s: %v, %v", test.name, ended, err)
		}
	}
	older := book(claimOf("b", 1, Refused, time.Hour), incarnation(2, claimOf("a", 2, Open, time.Hour)))
	older.Grant.State = Interrupted
	for terms, want := range map[Terms]int{{Never: true}: 0, {Never: true, TakeOver: true}: 1} {
		if ended, err := older.Disown(selfA, Held{}, terms); err != nil || len(ended) != want {
			t.Errorf("of an earlier incarnation, %+v: %v, %v", terms, ended, err)
		}
	}
	b := book()
	b.Meta.Epoch++
	if _, err := b.Disown(selfA, Held{}, tenMin); err == nil {
		t.Error("in a database that went back it says something")
	}
}

func TestJudge(t *testing.T) {
	refused := claimOf("a", 2, Refused, 0)
	spare := claimOf("b", 2, Granted, 0)
	spare.Makes, spare.Sends, spare.Nonce = Made{4, 2}, Made{3, 1}, "s"
	tried := claimOf("b", 3, Refused, 0)
	tried.Sends = Made{4, 2}
	other := refused
	other.Sends = Made{4, 0}
	for _, test := range []struct {
		name   string
		claims []Claim
		want   State
	}{
		{"nothing was refused", []Claim{claimOf("b", 1, NoAnswer, 0)}, Live},
		{"alone", []Claim{refused}, Void},
		{"an open one", []Claim{claimOf("b", 1, Open, time.Hour), refused}, Interrupted},
		{"no answer", []Claim{claimOf("b", 1, NoAnswer, 0), refused}, Void},
		{"unsent, 429, no byte", []Claim{claimOf("b", 1, Unsent, 0), claimOf("c", 3, Limited, 0), claimOf("d", 4, NoByte, 0), refused}, Void},
		{"a spare", []Claim{spare, refused}, Interrupted},
		{"what may be a spare", []Claim{func() Claim { c := spare; c.Outcome = Open; return c }(), refused}, Interrupted},
		{"a spare that was tried", []Claim{spare, refused, tried}, Void},
		{"another token was refused", []Claim{other}, Live},
	} {
		if got := book(test.claims...).Judge(); got != test.want {
			t.Errorf("%s: %s, want %s", test.name, got, test.want)
		}
	}
}

// Before every host has answered, claims may be missing.
func TestJudgeBeforeAllAnswered(t *testing.T) {
	b := book(claimOf("a", 1, Refused, 0))
	b.Hosts[1].Epoch = 2
	if got := b.Judge(); got != Interrupted {
		t.Error(got)
	}
}

// What changes a row without a refresh waits for an attempt that is respected, except a
// revoke.
func TestOtherChanges(t *testing.T) {
	busy, late := book(claimOf("b", 1, Open, time.Minute)), book(claimOf("b", 1, Open, time.Hour))
	idle := book(claimOf("b", 1, Unsent, 0))
	for name, test := range map[string]struct {
		change func(b Book, version int64) (Grant, error)
		late   bool // may follow a claim that is not respected any more
	}{
		"flip": {func(b Book, version int64) (Grant, error) {
			if version != 7 {
				return b.Flip("J", "L", Made{1, 1}, tenMin)
			}
			return b.Flip("K", "L", Made{1, 1}, tenMin)
		}, true},
		"rename": {func(b Book, version int64) (Grant, error) { return b.Rename(version, tenMin) }, true},
		"move":   {func(b Book, version int64) (Grant, error) { return b.Move(selfA, version) }, false},
		"import": {func(b Book, version int64) (Grant, error) { return b.Import(selfA, version, "K", Made{5, 1}) }, false},
	} {
		if _, err := test.change(busy, 7); !errors.As(err, new(*ClaimedError)) {
			t.Errorf("%s beside an open claim: %v", name, err)
		}
		if _, err := test.change(late, 7); (err == nil) != test.late {
			t.Errorf("%s beside an old claim: %v", name, err)
		}
		if _, err := test.change(idle, 6); !errors.As(err, new(*ConflictError)) {
			t.Errorf("%s of another version: %v", name, err)
		}
		row, err := test.change(idle, 7)
		if err != nil || row.Version != 8 {
			t.Errorf("%s: %+v, %v", name, row, err)
		}
		idle := idle
		idle.Grant.State = Removing
		if _, err := test.change(idle, 7); err == nil {
			t.Errorf("%s of a grant that is being removed", name)
		}
	}
	if _, err := idle.Import(selfA, 7, "K", Made{4, 1}); err == nil {
		t.Error("import of what is there")
	}
	awaited := book()
	awaited.Hosts[1].Epoch = 2
	if _, err := awaited.Move(selfA, 7); !errors.As(err, new(*FrozenError)) {
		t.Errorf("moved before every host has answered: %v", err)
	}
	if _, err := awaited.Import(selfA, 7, "L", Made{5, 1}); !errors.As(err, new(*FrozenError)) {
		t.Errorf("another imported before every host has answered: %v", err)
	}
	if _, err := awaited.Import(selfA, 7, "K", Made{5, 1}); err != nil {
		t.Errorf("what was lost is put back before every host has answered: %v", err)
	}
	if row, err := busy.Revoke(7); err != nil || row.State != Removing {
		t.Errorf("revoke: %+v, %v", row, err)
	}
}

// A grant arrives where none is, or over the tombstone that it left. Nothing else is replaced.
func TestArrive(t *testing.T) {
	at := func(g Grant, claims ...Claim) Book {
		b := book(claims...)
		b.Grant = g
		return b
	}
	moved := Grant{Key: "K", Token: Made{4, 2}, State: Moved, Version: 7}
	live := moved
	live.State = Live
	removing := moved
	removing.State = Removing
	open := claimOf("b", 1, Open, time.Hour)
	for _, test := range []struct {
		name       string
		b          Book
		version    int64
		key        string
		generation int64
		own        bool
		want       Made // zero is a refusal
	}{
		{"nothing is there", at(Grant{}), 0, "K", 4, false, Made{4, 1}},
		{"over what it left", at(moved), 7, "K", 4, false, Made{4, 2}},
		{"newer than what it left", at(moved), 7, "K", 6, false, Made{6, 1}},
		{"older than what it left", at(moved), 7, "K", 3, true, Made{}},
		{"another version", at(moved), 6, "K", 6, true, Made{}},
		{"a grant that lives", at(live), 7, "K", 6, true, Made{}},
		{"another grant that lives", at(live), 7, "L", 6, true, Made{}},
		{"a revoke has begun", at(removing), 7, "K", 6, true, Made{}},
		{"another grant's tombstone", at(moved), 7, "L", 1, false, Made{}},
		{"another grant's tombstone, of the same vault", at(moved), 7, "L", 1, true, Made{1, 1}},
		{"an attempt is open", at(moved, open), 7, "K", 4, true, Made{}},
	} {
		row, err := test.b.Arrive(selfA, test.version, test.key, test.generation, test.own)
		if test.want == (Made{}) {
			if err == nil {
				t.Errorf("%s: %+v", test.name, row)
			}
			continue
		}
		if err != nil || row.Token != test.want || row.Key != test.key || row.State != Moved || row.Version == test.version {
			t.Errorf("%s: %+v, %v", test.name, row, err)
		}
	}
}

// What has arrived lives. Until then nobody claims it.
func TestArrived(t *testing.T) {
	b := book()
	b.Grant.State = Moved
	if _, _, err := b.Claim(selfA, intentA(), Sighting{}, nil, tenMin); err == nil {
		t.Error("what has not arrived is claimed")
	}
	version := b.Grant.Version
	if row, err := b.Arrived(version, false); err != nil || row.State != Live || row.Token != b.Grant.Token || row.Version == version {
		t.Errorf("%+v, %v", row, err)
	}
	if row, err := b.Arrived(version, true); err != nil || row.State != Void {
		t.Errorf("void: %+v, %v", row, err)
	}
	if _, err := b.Arrived(version+1, false); err == nil {
		t.Error("another version arrived")
	}
	for _, state := range []State{Live, Void, Interrupted, Removing} {
		b.Grant.State = state
		if _, err := b.Arrived(version, false); err == nil {
			t.Errorf("what is %s arrived", state)
		}
	}
}

func TestMustAsk(t *testing.T) {
	fresh, old := Host{ID: "b", Seen: noon.Add(-time.Hour)}, Host{ID: "b", Seen: noon.Add(-AloneAfter), SignedOff: true}
	for _, test := range []struct {
		name string
		me   Host
		all  []Host
		want bool
	}{
		{"the first", Host{ID: "a"}, nil, false},
		{"others are here", Host{ID: "a"}, []Host{fresh}, false},
		{"a copy of a database", Host{ID: "a"}, []Host{old}, true},
		{"a person said yes", Host{ID: "a", Accepted: true}, []Host{old}, false},
	} {
		if got := MustAsk(test.me, append(test.all, test.me), noon); got != test.want {
			t.Errorf("%s: %v", test.name, got)
		}
	}
}

// A host that signed off is waited for by nobody. So it spends only once it has answered again.
func TestHostThatSignedOffDoesNotSpend(t *testing.T) {
	b := book()
	b.Hosts[0].SignedOff = true
	if _, _, err := b.Claim(selfA, intentA(), Sighting{}, nil, tenMin); !errors.As(err, new(*FrozenError)) {
		t.Errorf("it claims: %v", err)
	}
	b.Hosts[0].SignedOff, b.Hosts[1].SignedOff = false, true
	if _, _, err := b.Claim(selfA, intentA(), Sighting{}, nil, tenMin); err != nil {
		t.Errorf("another signed off: %v", err)
	}
}
