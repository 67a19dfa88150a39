package shared_test

import (
	"testing"

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
		a.authorize()
		for _, h := range []*host{a, b} {
			if _, err := h.Refresh(t.Context(), id, keeper.Need{Always: true}); err != nil {
				t.Errorf("%s: a refresh: %v", setting, err)
			}
		}
		w.sql("ALTER ROLE upsauth RESET ALL")
	}
}
