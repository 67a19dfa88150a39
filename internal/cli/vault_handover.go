package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/legible"
	"github.com/upsauth/upsauth/internal/serve"
	"github.com/upsauth/upsauth/internal/serve/keys"
	"github.com/upsauth/upsauth/internal/session"
	"github.com/upsauth/upsauth/internal/vault"
	"github.com/upsauth/upsauth/internal/vault/postgres"
)

// runHandOver moves everything between this machine and the shared vault.
func runHandOver(ctx context.Context, opts vaultMoveOptions, configured string) error {
	env := opts.env
	if opts.Target != (session.Target{}) {
		return usagef("a move to or from the shared vault moves everything: leave out --company, --app and --env")
	}
	j := &job{env: env, verbose: opts.Verbose}
	o := j.options()
	notice := o.Notice
	o.Notice = func(ctx context.Context, n session.Notice) {
		// What has moved away is where it is to be.
		if n.Kind == session.Problem && errors.As(n.Err, new(*vault.MovedError)) {
			return
		}
		notice(ctx, n)
	}
	h, err := session.OpenHandOver(o, opts.To)
	if err != nil {
		return err
	}
	defer h.Close()
	j.Session = h.From
	ground, err := h.Prepare(ctx)
	tellGround(env, ground.State)
	if err != nil {
		return err
	}
	failed := &failures{env: env}
	moved := 0
	home := vault.Describe(opts.To)
	h.Told = func(c session.Copied) {
		switch {
		case c.Err != nil && c.ID == (grant.ID{}):
			failed.add("the old vault", c.Err)
			return
		case c.Err != nil:
			failed.add(copiedName(c.ID), c.Err)
			return
		case c.ID.Company != "":
			env.tell("%s: moved to the %s\n", c.ID, home)
		default:
			env.tell("%s: registered in the %s, with its client secret\n", copiedName(c.ID), home)
		}
		moved++
	}
	left, err := h.Run(ctx, func(ctx context.Context) error { return moveKeys(ctx, h) })
	if err != nil {
		return errors.Join(err, failed.end(ctx))
	}
	switch {
	case left > 0:
		fmt.Fprintf(env.Err, "%s could not be moved. Until the next upsauth vault move --to %s moves the rest, the old vault keeps its companies and applications too.\n",
			counted(left, "authorization"), opts.To)
	case moved == 0 && ctx.Err() == nil:
		fmt.Fprintf(env.Err, "There is nothing to move to the %s.\n", home)
	}
	if configured != opts.To {
		fmt.Fprintf(env.Err, "upsauth still uses the %s: set vault = %q in config.toml, or %s=%s.\n", vault.Describe(configured), opts.To, config.EnvVault, opts.To)
	}
	if opts.To != config.HomeShared && left == 0 && moved > 0 {
		fmt.Fprintf(env.Err, "The other hosts of the shared vault have no authorizations any more.\n")
	}
	return failed.end(ctx)
}

// moveKeys moves the keys of programs.
func moveKeys(ctx context.Context, h *session.HandOver) error {
	from, err := serve.KeyStore(h.From)
	if err != nil {
		return err
	}
	to, err := serve.KeyStore(h.To)
	if err != nil {
		return err
	}
	return keys.Move(ctx, from, to)
}

// tellGround says what the database is like that a vault is moved to or from.
func tellGround(env *Env, s postgres.State) {
	if s.Server == 0 {
		return // it did not answer
	}
	tell := func(format string, args ...any) { fmt.Fprintf(env.Err, format+"\n", args...) }
	tell("The database %s (PostgreSQL %d.%d) is a primary and answers in %s. Its clock differs from this machine's by %s.",
		legible.Line(s.Database), s.Server/10000, s.Server%10000, s.Latency.Round(100*time.Microsecond), s.Offset.Abs().Round(time.Millisecond))
	owner := "owns the tables"
	if !s.Owns {
		owner = "works with the tables of the role " + legible.Line(s.Owner)
	}
	if s.Schema {
		tell("The role %s %s, which are of version %d.", legible.Line(s.Role), owner, s.Version)
	}
	if s.Excess {
		tell("The role can delete any row. A role of its own for upsauth can't: upsauth vault schema prints the SQL.")
	}
	if !s.FSync {
		tell("Warning: fsync is off. If the server's machine stops, the database can lose tokens, or be damaged.")
	}
	if !s.FullPageWrites {
		tell("Warning: full_page_writes is off. If the server's machine stops, the database can be damaged.")
	}
	if s.Standbys == "" {
		tell("No standby is synchronous (synchronous_standby_names is empty). If a standby takes over,\n" +
			"the last commits can be lost, and with them an authorization that was moved or made last.")
	} else {
		tell("Synchronous standbys: %s.", legible.Line(s.Standbys))
	}
}
