package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/legible"
	"github.com/upsauth/upsauth/internal/session"
)

// typedCompany is the name of a company that somebody types, as it is kept. What is
// left out of it is said.
func typedCompany(env *Env, text string) (string, error) {
	name, err := grant.CleanCompany(text)
	if err != nil {
		return "", err
	}
	if hidden := legible.Hidden(text); len(hidden) > 0 {
		fmt.Fprintf(env.Err, "Note: the name %q has invisible characters (%s). upsauth leaves them out.\n", name, legible.CodePoints(hidden))
	}
	return name, nil
}

// askAboutNear asks about each new name that is near a known one, before anything
// is done under it. Where nobody can be asked it is a warning.
func (s *job) askAboutNear(ctx context.Context, names []string, besides string, yes bool) error {
	found, err := s.Near(ctx, names, besides)
	if err != nil {
		return err
	}
	return s.askNear(ctx, found, yes)
}

// askNear asks about each of some new names.
func (s *job) askNear(ctx context.Context, found []session.NearName, yes bool) error {
	for _, n := range found {
		if yes || !s.env.attended() {
			fmt.Fprintf(s.env.Err, "Warning: %s\n", n.Sentence())
			continue
		}
		if err := confirm(ctx, s.env, n.Sentence()+" Is this another company?", false); err != nil {
			return err
		}
	}
	return nil
}

// warnOfNear is askAboutNear for many names at once.
func (s *job) warnOfNear(ctx context.Context, names []string) error {
	const most = 10
	found, err := s.Near(ctx, names, "")
	for i, n := range found {
		if i == most {
			fmt.Fprintf(s.env.Err, "Warning: %d more new names are similar to known ones.\n", len(found)-most)
			break
		}
		fmt.Fprintf(s.env.Err, "Warning: %s\n", n.Sentence())
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
