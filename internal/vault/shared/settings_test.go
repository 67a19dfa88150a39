package shared_test

import (
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/keeper"
)

// A role or a database has settings that other programs need. None of them is in the way.
func TestSettingsOfTheRole(t *testing.T) {
	w := newWorld(t)
	for _, setting := range []string{
		"datestyle = 'German'", "datestyle = 'SQL, DMY'", "bytea_output = 'escape'", "timezone = 'Asia/Kathmandu'", "extra_float_digits = -15",
		"search_path = 'public'", "standard_conforming_strings = off", "default_transaction_isolation = 'serializable'", "client_encoding = 'latin1'", "array_nulls = off",
	} {
		w.sql("ALTER ROLE upsauth SET " + setting)
		a, b := w.host(t.TempDir(), "web-1"), w.host(t.TempDir(), "web-2")
		made := func() (err error) {
			client, err := a.Client(t.Context(), id)
			must(t, err)
			s, err := a.Begin(t.Context(), keeper.Request{ID: id, Home: "shared", Client: client, Lasts: time.Minute})
			if err == nil {
				s.Close(t.Context())
			}
			return err
		}()
		if made != nil {
			t.Errorf("%s: a sign-in: %v", setting, made)
			w.sql("ALTER ROLE upsauth RESET ALL")
			continue
		}
		a.authorize()
		for _, h := range []*host{a, b} {
			if _, err := h.Refresh(t.Context(), id, keeper.Need{Always: true}); err != nil {
				t.Errorf("%s: a refresh: %v", setting, err)
			}
		}
		w.sql("ALTER ROLE upsauth RESET ALL")
	}
}
