package soak

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/upsauth/upsauth/internal/postgrestest"
	"github.com/upsauth/upsauth/internal/sandbox"
)

// TestKilledMove kills moves of a whole vault to the one that hosts share, and back.
// Afterwards each grant can be used in exactly one of the two, the other one says that it is
// not there, and the next move finishes.
func TestKilledMove(t *testing.T) {
	database := postgrestest.Start(t, postgrestest.Options{Hasty: true})
	for _, statement := range []string{"CREATE ROLE upsauth LOGIN PASSWORD 'pw'", "CREATE DATABASE vault OWNER upsauth"} {
		if _, err := database.SQL("postgres", statement); err != nil {
			t.Fatal(err)
		}
	}
	p := newPlace(t, sandbox.Options{Strict: true})
	// The last of a name counts.
	p.env = append(p.env, "UPSAUTH_DATABASE_URL="+database.URL("upsauth", "pw", "vault"))
	at := func(vault string) *place {
		other := *p
		other.env = append(slices.Clone(p.env), "UPSAUTH_VAULT="+vault)
		return &other
	}
	vaults := []*place{at("file"), at("shared")}
	names := []string{"file", "shared"}
	companies := []string{"Acme Corp", "B Ltd", "C & Co"}
	for _, name := range companies {
		vaults[0].authorize(name)
	}
	vaults[0].must("company", "add", "Only Noted")
	move := func(to int) []string { return []string{"vault", "move", "--to", names[to]} }
	// There and back once: from then on there are tombstones, and how long it takes is known.
	vaults[0].must(move(1)...)
	vaults[1].must(move(0)...)
	spread := vaults[0].took(move(1)...) * 3 / 2
	vaults[1].must(move(0)...)

	r := report{operation: "move of a vault"}
	between := 0 // kills after which something had left and not arrived, or the like
	for from := 0; r.kills < *rounds; from = 1 - from {
		to := 1 - from
		killed := vaults[from].killed(rand.N(spread), move(to)...)
		if killed {
			r.kills++
		} else {
			r.ended++
		}
		moved := 0
		for _, name := range companies {
			var codes [2]int
			var outs [2]string
			// Either may be asked first.
			for _, i := range rand.Perm(2) {
				codes[i], outs[i] = vaults[i].run("refresh", "--company", name)
			}
			switch codes {
			case [2]int{0, 3}, [2]int{3, 0}:
				if codes[to] == 0 {
					moved++
				}
			default:
				r.lost++
				t.Fatalf("after kill %d of a move to %s: %s: exit codes %v\n%s\n%s", r.kills, names[to], name, codes, outs[0], outs[1])
			}
		}
		if moved > 0 && moved < len(companies) {
			between++
		}
		// Now and then the move is given up, and goes the other way.
		if rand.N(4) == 0 {
			from, to = to, from
		}
		vaults[from].must(move(to)...)
		for _, name := range companies {
			vaults[to].must("refresh", "--company", name)
			if code, out := vaults[from].run("refresh", "--company", name); code != 3 {
				t.Fatalf("%s is in both vaults: exit code %d\n%s", name, code, out)
			}
		}
		if out := vaults[to].must("company", "list"); strings.Count(out, "Only Noted") != 1 {
			t.Fatalf("not all companies came along:\n%s", out)
		}
		from = 1 - to // the loop turns round
	}
	if n := p.count("refresh", sandbox.Reused); n > 0 {
		t.Errorf("%d refresh tokens were spent twice", n)
	}
	t.Logf("\n%s\n%s\nbetween two grants: %d", header, r, between)
}
