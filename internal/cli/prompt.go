package cli

import (
	"context"
	"errors"
	"io"
	"strings"

	"github.com/upsauth/upsauth/internal/legible"
	"github.com/upsauth/upsauth/internal/terminal"
)

// errDeclined says that the answer to a question was no.
var errDeclined = errors.New("nothing was changed")

// person is the one at standard input and standard error.
func (env *Env) person() terminal.Person {
	if env.lines == nil {
		env.lines = terminal.NewLines(env.In)
	}
	return terminal.Person{Err: env.Err, Lines: env.lines, ReadPassword: env.ReadPassword}
}

// attended reports whether a person is there who can be asked.
func (env *Env) attended() bool { return env.InTerminal && env.ErrTerminal }

// confirm asks a yes-or-no question on a terminal; elsewhere only --yes will do.
func confirm(ctx context.Context, env *Env, question string, yes bool) error {
	if yes {
		return nil
	}
	if !env.attended() {
		return usagef("%s There is no terminal to ask: add --yes", question)
	}
	return declined(env.person().YesOrNo(ctx, question, true))
}

// confirmKeeping is confirm where a no throws away what can't be got back: then no
// answer is the usual one, and an empty one asks again too.
func confirmKeeping(ctx context.Context, env *Env, question string) error {
	if !env.attended() {
		return usagef("%s There is no terminal to ask", question)
	}
	return declined(env.person().YesOrNo(ctx, question, false))
}

func declined(yes bool, err error) error {
	if err == nil && !yes {
		return errDeclined
	}
	return err
}

// secretInput is a secret that comes from standard input or from a hidden
// prompt.
type secretInput struct {
	what  string // "client secret"
	flag  string // the flag that takes it from standard input
	twice bool   // a new passphrase: ask for it again, as nobody sees what is typed
	trim  bool   // spaces around it do not belong to it
}

func (in secretInput) read(ctx context.Context, env *Env, fromStdin bool) (string, error) {
	var secret string
	var err error
	switch {
	case fromStdin:
		secret, err = env.person().Lines.Read(ctx)
		if errors.Is(err, io.EOF) {
			return "", usagef("standard input has no %s", in.what)
		}
	case env.InTerminal && env.ErrTerminal:
		secret, err = in.ask(ctx, env)
	default:
		return "", usagef("there is no terminal to ask for the %s: pipe it in with --%s", in.what, in.flag)
	}
	if err != nil {
		return "", err
	}
	clean := legible.Secret
	if in.trim {
		clean = legible.Value
	}
	if secret, err = clean(secret); err != nil {
		return "", usagef("the %s can't be used: %v", in.what, err)
	}
	if strings.TrimSpace(secret) == "" {
		return "", usagef("the %s is empty", in.what)
	}
	if in.twice && fromStdin {
		env.person().WarnOfShort(secret)
	}
	return secret, nil
}

func (in secretInput) ask(ctx context.Context, env *Env) (string, error) {
	prompt := strings.ToUpper(in.what[:1]) + in.what[1:]
	if !in.twice {
		return env.person().Hidden(ctx, prompt)
	}
	secret, err := env.person().NewPassphrase(ctx, prompt)
	if errors.Is(err, terminal.ErrDiffer) {
		return secret, usagef("%v; nothing was changed", err)
	}
	return secret, err
}
