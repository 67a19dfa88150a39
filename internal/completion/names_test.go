package completion

import (
	"slices"
	"testing"
)

// Names are found as they are compared everywhere, whatever quotes a shell hands over.
func TestBeginning(t *testing.T) {
	names := []string{"Ödegård", "acme", "Acme Corp", "ACME", "O'Neil"}
	for begun, want := range map[string][]string{
		"":          {"ACME", "Acme Corp", "O'Neil", "Ödegård"},
		"AC":        {"ACME", "Acme Corp"},
		"acme ":     {"Acme Corp"},
		"o\u0308d":  {"Ödegård"},
		`Acme\ C`:   {"Acme Corp"},
		`"acme c`:   {"Acme Corp"},
		`O\'`:       {"O'Neil"},
		"elsewhere": nil,
	} {
		got := Beginning(begun, names)
		if !slices.Equal(got, want) {
			t.Errorf("%q is completed to %q instead of %q", begun, got, want)
		}
	}
}
