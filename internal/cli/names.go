package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/legible"
)

// typedCompany is the name of a company that somebody types, as it is kept. What is
// left out of it is said.
func typedCompany(env *Env, text string) (string, error) {
	name, err := grant.CleanCompany(text)
	if err != nil {
		return "", err
	}
	if hidden := legible.Hidden(text); len(hidden) > 0 {
		fmt.Fprintf(env.Err, "Note: the name %q has characters in it that nobody sees (%s). They are left out.\n", name, codePoints(hidden))
	}
	return name, nil
}

// codePoints names a few characters, such as U+200B.
func codePoints(runes []rune) string {
	const most = 3
	var names []string
	for _, r := range runes {
		name := fmt.Sprintf("%U", r)
		switch {
		case strings.Contains(joined(names), name):
		case len(names) == most:
			return joined(names) + ", …"
		default:
			names = append(names, name)
		}
	}
	return joined(names)
}

// nearName is a name that is new beside a known one that people may take it for.
type nearName struct{ name, known string }

func (n nearName) String() string {
	text := fmt.Sprintf("The company %q is new here, and %q is known already.", n.name, legible.Line(n.known))
	var odd []rune
	for _, r := range n.name {
		if r > '~' && !strings.ContainsRune(n.known, r) {
			odd = append(odd, r)
		}
	}
	if len(odd) > 0 {
		text += fmt.Sprintf(" The new name has %s in it.", codePoints(odd))
	}
	return text
}

// near finds the new ones among names that are near a known one, or near each other.
// The company that is about to lose its name does not count.
func (s *session) near(names []string, besides string) ([]nearName, error) {
	// What is damaged among them was told already.
	there, _, err := s.vault.List("")
	if err != nil {
		return nil, err
	}
	added, _, err := s.companies.List("")
	if err != nil {
		return nil, err
	}
	for _, c := range added {
		there = append(there, grant.Record{ID: grant.ID{Company: c.Name}})
	}
	if there, err = s.withRemembered(there); err != nil {
		return nil, err
	}
	var known legible.Names
	seen := map[string]bool{}
	for _, r := range there {
		if key := grant.Fold(r.Company); !seen[key] {
			seen[key] = true
			if besides == "" || key != grant.Fold(besides) {
				known.Add(r.Company)
			}
		}
	}
	var found []nearName
	for _, name := range names {
		if key := grant.Fold(name); !seen[key] {
			seen[key] = true
			if like, ok := known.Near(name); ok {
				found = append(found, nearName{name, like})
			}
			known.Add(name)
		}
	}
	return found, nil
}

// askAboutNear asks about each new name that is near a known one, before anything
// is done under it. Where nobody can be asked it is a warning.
func (s *session) askAboutNear(ctx context.Context, names []string, besides string, yes bool) error {
	found, err := s.near(names, besides)
	if err != nil {
		return err
	}
	for _, n := range found {
		if yes || !s.env.InTerminal || !s.env.ErrTerminal {
			fmt.Fprintf(s.env.Err, "Warning: %s\n", n)
			continue
		}
		if err := confirm(ctx, s.env, n.String()+" Is this another company?", false); err != nil {
			return err
		}
	}
	return nil
}

// warnOfNear is askAboutNear for many names at once.
func (s *session) warnOfNear(names []string) error {
	const most = 10
	found, err := s.near(names, "")
	for i, n := range found {
		if i == most {
			fmt.Fprintf(s.env.Err, "Warning: %d more new names are near a known one.\n", len(found)-most)
			break
		}
		fmt.Fprintf(s.env.Err, "Warning: %s\n", n)
	}
	return err
}

// quotedCodePoints writes a name with characters that nobody sees so that it can be
// pasted into a shell such as bash or zsh.
func quotedCodePoints(name string) string {
	var text strings.Builder
	for _, r := range name {
		switch {
		case r > 0xffff:
			fmt.Fprintf(&text, `\U%08x`, r)
		case r > '~':
			fmt.Fprintf(&text, `\u%04x`, r)
		case r == '\'' || r == '\\':
			text.WriteString(`\` + string(r))
		default:
			text.WriteRune(r)
		}
	}
	return "$'" + text.String() + "'"
}
