package manager

import (
	"maps"
	"net/http"
	"slices"
	"strconv"

	"github.com/upsauth/upsauth/internal/legible"
)

// fieldError says which field of a request could be misunderstood, as a sentence.
type fieldError struct{ what string }

func (e *fieldError) Error() string { return e.what }

// take refuses a request that can be meant in two ways: a field that appears twice, and in
// a form also one that the page does not have. Addresses may have foreign parameters.
func (t route) take(r *http.Request) error {
	const most = 60 // characters of a name from outside
	for _, name := range slices.Sorted(maps.Keys(r.Form)) {
		switch {
		case r.Method == http.MethodPost && !slices.Contains(t.fields, name):
			if runes := []rune(name); len(runes) > most {
				name = string(runes[:most]) + "…"
			}
			return &fieldError{"The field " + strconv.Quote(legible.Line(name)) + " is unknown here."}
		case len(r.Form[name]) > 1 && slices.Contains(t.fields, name):
			return &fieldError{"The field " + name + " appears twice."}
		case len(r.Form[name]) > 1:
			return &fieldError{"A parameter of the address appears twice."}
		}
	}
	return nil
}

// field is a field of a form, with what was typed and what is wrong with it.
type field struct {
	Name, Label, Value, Hint, Wrong string
	Type                            string // text if empty
	Autocomplete                    string
	Required                        bool
	// Choices makes it a list to choose from.
	Choices []choice
}

// tick is a box to tick.
type tick struct{ Name, Label, Wrong string }

// wrong reports whether something is wrong with a form.
func wrong(form []field) bool {
	return slices.ContainsFunc(form, func(f field) bool { return f.Wrong != "" })
}

// titleOf is a window's title, which says that something is wrong with the form.
func titleOf(form []field, title string) string {
	if wrong(form) {
		return "Error: " + title
	}
	return title
}
