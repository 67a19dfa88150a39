package files_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/upsauth/upsauth/internal/grant"
)

// A record that a rename left with two names gets one by the next removal.
func TestRenameIsFinished(t *testing.T) {
	for _, moved := range []bool{false, true} {
		w := newWorld(t)
		v := w.open()
		g := authorize(t, v, grantOf(acme, keyA, 1))
		zeta := acme
		zeta.Company = "Zeta"
		record := g.Record
		record.Was, record.Company = acme.Company, zeta.Company
		path, at := w.recordPath(acme), acme
		if moved {
			check(t, os.Remove(path))
			path, at = w.recordPath(zeta), zeta
		}
		unread := filepath.Join(w.dir, "journals", acme.Slot()+"."+keyA+".journal.1.unread")
		w.write(unread, []byte("sealed"))
		w.write(path, []byte(recordJSON(t, record)))
		finishRemovals(t, v)
		got, err := v.Record(t.Context(), at)
		check(t, err)
		if got.Was != "" || got.ID != at {
			t.Errorf("moved %v: %+v", moved, got)
		}
		w.wantFiles("journals", "slots/"+keyA, at.Slot()+"."+keyA+".journal.1.unread")
		check(t, v.Delete(t.Context(), at))
		w.wantNothing()
	}
}

func recordJSON(t testing.TB, r grant.Record) string {
	t.Helper()
	text, err := json.Marshal(r)
	check(t, err)
	return string(text)
}

// A rename writes the new name, with the old one beside it, and then moves the
// file: wherever it is cut off, the slot says which of the two counts.
func TestRenameThatWasCutOff(t *testing.T) {
	renamed := grant.ID{Company: "Acme Holding", Application: acme.Application, Environment: acme.Environment}
	for _, test := range []struct {
		name string
		slot grant.ID // where the file lies
		want grant.ID
	}{
		{"before the file was moved", acme, acme},
		{"after the file was moved", renamed, renamed},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			mustPut(t, w.open(), grantOf(acme, keyA, 1), 0)
			text := strings.Replace(string(w.read(w.recordPath(acme))), `"Acme Corp"`, `"Acme Holding", "was": "Acme Corp"`, 1)
			check(t, os.Remove(w.recordPath(acme)))
			w.write(w.recordPath(test.slot), []byte(text))

			v := w.open()
			records := w.list(v)
			if len(records) != 1 || records[0].ID != test.want {
				t.Fatalf("there are %v, want %v", records, test.want)
			}
			// The item still says the old name; the record's counts.
			if g := mustGet(t, v, test.want); g.ID != test.want {
				t.Errorf("the grant is %v's", g.ID)
			}
			other := map[grant.ID]grant.ID{acme: renamed, renamed: acme}[test.want]
			if _, err := v.Record(t.Context(), other); !errors.Is(err, grant.ErrNoGrant) {
				t.Errorf("under the other name: %v", err)
			}
			// The next refresh settles the name.
			g := mustGet(t, v, test.want)
			next := grantOf(g.ID, keyA, 2)
			mustPut(t, v, next, 1)
			if text := string(w.read(w.recordPath(test.want))); strings.Contains(text, `"was"`) || !strings.Contains(text, test.want.Company) {
				t.Errorf("the record says %s", text)
			}
			check(t, v.Delete(t.Context(), test.want))
			w.wantNothing()
		})
	}
}
