package completion

import (
	"cmp"
	"slices"
	"strings"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/legible"
)

// Beginning keeps the names that begin with what was typed, as names are
// compared everywhere, each once and in order.
func Beginning(begun string, names []string) []string {
	found := withPrefix(begun, names)
	if len(found) == 0 {
		// fish hands over a word as it was typed, quotes included.
		found = withPrefix(unquoted(begun), names)
	}
	slices.SortFunc(found, func(a, b string) int {
		return cmp.Or(cmp.Compare(grant.Fold(a), grant.Fold(b)), strings.Compare(a, b))
	})
	return slices.CompactFunc(found, func(a, b string) bool { return grant.Fold(a) == grant.Fold(b) })
}

func withPrefix(begun string, names []string) []string {
	// Fold trims; a space that was typed after a word counts here.
	const end = "."
	begun = strings.TrimSuffix(legible.Fold(begun+end), end)
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool {
		return !strings.HasPrefix(legible.Fold(name), begun)
	})
}

// unquoted takes the quotes and backslashes out of a word that is not complete.
func unquoted(word string) string {
	var text strings.Builder
	var quote rune
	escaped := false
	for _, r := range word {
		switch {
		case escaped:
			text.WriteRune(r)
			escaped = false
		case r == '\\':
			escaped = true
		case r == quote:
			quote = 0
		case quote == 0 && (r == '"' || r == '\''):
			quote = r
		default:
			text.WriteRune(r)
		}
	}
	return text.String()
}
