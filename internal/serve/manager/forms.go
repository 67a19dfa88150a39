package manager

import "slices"

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
