package shared_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/vault"
)

// forge puts an item of somebody's own into a grant's row, as a superuser of the database can:
// what it is sealed to is no secret. Everything else in the row stays as it was read.
func (w *world) forge(id grant.ID) {
	t := w.t
	t.Helper()
	slot := id.Slot()
	row := w.sql("SELECT facts::text, (SELECT recipient FROM upsauth.meta) FROM upsauth.grants WHERE slot = '" + slot + "'")[0]
	var item map[string]any
	must(t, json.Unmarshal([]byte(row[0]), &item))
	item["version"], item["access_token"], item["refresh_token"] = grant.RecordVersion, "theirs", "theirs too"
	plain, err := json.Marshal(item)
	must(t, err)
	to, err := age.ParseX25519Recipient(row[1])
	must(t, err)
	var sealed bytes.Buffer
	in, err := age.Encrypt(&sealed, to)
	must(t, err)
	_, err = in.Write(plain)
	must(t, err)
	must(t, in.Close())
	w.sql(`UPDATE upsauth.grants SET item = decode('` + hex.EncodeToString(sealed.Bytes()) + `', 'hex') WHERE slot = '` + slot + `'`)
}

// A row gets a new code whenever its company is renamed or its state is noted. No host gives
// one to what it would not have used: that would make somebody else's item a good one.
func TestNoHostGivesACodeToWhatIsForged(t *testing.T) {
	renamed := grant.ID{Company: "Acme Ltd", Application: id.Application, Environment: id.Environment}
	for name, change := range map[string]struct {
		then grant.ID
		do   func(*host) error
	}{
		"a rename": {renamed, func(h *host) error { return h.Rename(t.Context(), id, renamed.Company) }},
		"a note": {id, func(h *host) error {
			return h.vault.Note(t.Context(), id, func(l *grant.Local) { l.LastError = &grant.LastError{Code: "x", Message: "x", Time: h.Now()} })
		}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.host(t.TempDir(), "web-1").authorize()
			w.forge(id)
			if err := change.do(w.host(t.TempDir(), "web-2")); !is[*vault.HomeError](err) || !strings.Contains(err.Error(), "not what upsauth put there") {
				t.Errorf("%s of a row with a forged item: %v", name, err)
			}
			for _, which := range []grant.ID{id, change.then} {
				if g, err := w.host(t.TempDir(), "web-3").Token(t.Context(), which, time.Minute); err == nil {
					t.Errorf("%s is served the token %q", which, g.AccessToken)
				}
			}
		})
	}
}

// What a database says is no name of a file before it is looked at.
func TestSlotIsNoPath(t *testing.T) {
	w := newWorld(t)
	dir := filepath.Join(t.TempDir(), "host")
	h := w.host(dir, "web-1")
	h.authorize()
	w.sql(`ALTER TABLE upsauth.grants DROP CONSTRAINT grants_slot_check;
		CREATE FUNCTION public.lead() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.slot := NEW.slot || '/../../../evil'; RETURN NEW; END $$;
		CREATE TRIGGER lead BEFORE UPDATE ON upsauth.grants FOR EACH ROW EXECUTE FUNCTION public.lead()`)
	err := h.vault.Note(t.Context(), id, func(l *grant.Local) { l.LastError = &grant.LastError{Code: "x", Message: "x", Time: h.Now()} })
	if err == nil {
		t.Error("it was taken for a grant")
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(dir), "evil*")); len(left) > 0 {
		t.Errorf("the database had %v written", left)
	}
}
