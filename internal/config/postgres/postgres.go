// Package postgres keeps the registered applications in a database that several hosts
// share: a row for each, and a setting that names the default one.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/jackc/pgx/v5"

	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/vault/postgres"
)

// Register is the applications' tables. A database that can't be used is a *postgres.Error.
type Register struct{ db *postgres.DB }

// New returns the register in a database. Nothing is read before it is used.
func New(db *postgres.DB) *Register { return &Register{db: db} }

// format is that of the texts of the rows.
const format = 1

// all is where the applications are, for errors.
const all = "the list of applications in the shared database"

// application is the text of an application's row.
type application struct {
	Version           int    `json:"version"`
	DisplayName       string `json:"display_name,omitzero"`
	ClientID          string `json:"client_id"`
	RedirectURI       string `json:"redirect_uri,omitzero"`
	PublicRedirectURI string `json:"public_redirect_uri,omitzero"`
	Scope             string `json:"scope,omitzero"`
	PKCE              string `json:"pkce,omitzero"`
	PKCENeedsBasic    bool   `json:"pkce_needs_basic,omitzero"`
	Home              string `json:"vault"`
	LeftIn            string `json:"left_in,omitzero"`
	Fresh             bool   `json:"fresh,omitzero"`
	// More is what a newer upsauth of another host has written beside it, which stays.
	More jsontext.Value `json:",embed"`
}

func (a application) registration(k key) config.Registration {
	return config.Registration{
		Name: k.name, Environment: k.environment, DisplayName: a.DisplayName, ClientID: a.ClientID, RedirectURI: a.RedirectURI,
		PublicRedirectURI: a.PublicRedirectURI, Scope: a.Scope, PKCE: a.PKCE, PKCENeedsBasic: a.PKCENeedsBasic, Home: a.Home, LeftIn: a.LeftIn, Fresh: a.Fresh,
	}
}

func textOf(r config.Registration, more jsontext.Value) ([]byte, error) {
	return jsonv2.Marshal(application{
		Version: format, DisplayName: r.DisplayName, ClientID: r.ClientID, RedirectURI: r.RedirectURI, PublicRedirectURI: r.PublicRedirectURI,
		Scope: r.Scope, PKCE: r.PKCE, PKCENeedsBasic: r.PKCENeedsBasic, Home: r.Home, LeftIn: r.LeftIn, Fresh: r.Fresh, More: more,
	})
}

// chosen is the text of the setting that names the default application.
type chosen struct {
	Version     int    `json:"version"`
	Application string `json:"application"`
	Environment string `json:"environment"`
}

// key names a row: an application, or, where it is empty, the default one.
type key struct{ environment, name string }

func (k key) place() string {
	if k == (key{}) {
		return "the default application in the shared database"
	}
	return fmt.Sprintf("the application %q for %q in the shared database", k.name, k.environment)
}

// row is what there is under a key.
type row struct {
	version      string
	registration config.Registration
	more         jsontext.Value
	chosen       *config.Default
}

// Applications are the applications as they are now; see session.Register.
func (r *Register) Applications(ctx context.Context) (config.Applications, error) {
	a, _, err := r.read(ctx)
	return a, err
}

// read reads all rows in one statement. Like a damaged applications.toml, a row that can't
// be used is an error of all: whoever looks for an application must not find none.
func (r *Register) read(ctx context.Context) (a config.Applications, rows map[key]row, err error) {
	a.Version = format
	rows = map[key]row{}
	var bad error
	err = r.db.Transact(ctx, func(tx pgx.Tx) error {
		found, err := tx.Query(ctx, `SELECT 'reading', '', '', reading::text, NULL FROM upsauth.readings WHERE about = 'applications'
			UNION ALL SELECT 'default', '', '', version::text, value::text FROM upsauth.settings WHERE name = 'default application'
			UNION ALL SELECT 'application', environment, name, version::text, application::text FROM upsauth.applications ORDER BY 2, 3`)
		if err != nil {
			return err
		}
		var k key
		var what, version string
		var text []byte
		_, err = pgx.ForEachRow(found, []any{&what, &k.environment, &k.name, &version, &text}, func() error {
			if what == "reading" {
				a.Revision = version
				return nil
			}
			one, err := parse(k, text)
			if err != nil && bad == nil {
				bad = &config.Error{Path: k.place(), Err: err}
			}
			one.version = version
			rows[k] = one
			if what == "default" {
				a.Default = one.chosen
			} else {
				a.Applications = append(a.Applications, one.registration)
			}
			return nil
		})
		switch {
		case err != nil:
			return err
		case a.Revision == "":
			return noReading()
		}
		return postgres.ErrNothing
	})
	if err == nil {
		err = bad
	}
	if err != nil {
		return config.Applications{Version: format}, nil, err
	}
	return a, rows, nil
}

func noReading() error {
	return &postgres.Error{
		Reason: postgres.StrangeTables, What: "the table readings in the shared database says nothing about the applications",
		Advice: "have the owner of the tables run the schema's SQL again",
	}
}

// parse reads the text of a row.
func parse(k key, text []byte) (row, error) {
	var of struct {
		Version int `json:"version"`
	}
	if err := jsonv2.Unmarshal(text, &of); text != nil && err == nil && of.Version > format {
		return row{}, fmt.Errorf("it was written by a newer upsauth (format %d, this one knows %d)", of.Version, format)
	}
	damaged := func(err error) (row, error) {
		return row{}, fmt.Errorf("it is damaged: %s", strings.TrimPrefix(err.Error(), "jsontext: "))
	}
	if k == (key{}) {
		if text == nil {
			return row{}, nil // it was taken away
		}
		var c chosen
		err := jsonv2.Unmarshal(text, &c)
		d := config.Default{Application: c.Application, Environment: c.Environment}
		if err == nil {
			err = d.Check()
		}
		if err != nil {
			return damaged(err)
		}
		return row{chosen: &d}, nil
	}
	var a application
	if err := jsonv2.Unmarshal(text, &a); err != nil {
		return damaged(err)
	}
	one := row{registration: a.registration(k), more: a.More}
	if err := one.registration.Check(); err != nil {
		return damaged(fmt.Errorf("it %w", err))
	}
	return one, nil
}

// Edit reads the applications and lets edit change them; see session.Register. Nobody is
// kept out meanwhile. Save writes the rows that edit has changed, all or none.
func (r *Register) Edit(ctx context.Context, edit func(a *config.Applications, save func() error) error) error {
	a, rows, err := r.read(ctx)
	if err != nil {
		return err
	}
	// What rows knows is not what edit gets.
	a.Applications = slices.Clone(a.Applications)
	if a.Default != nil {
		d := *a.Default
		a.Default = &d
	}
	return edit(&a, func() error { return r.save(ctx, &a, rows) })
}

// change is what becomes of a row.
type change struct {
	key  key
	now  row
	text []byte // nil for a row that goes, or a default that is taken away
}

func (r *Register) save(ctx context.Context, a *config.Applications, rows map[key]row) error {
	changes, err := changesOf(a, rows)
	if err != nil {
		return err
	}
	var conflict error
	var revision string
	err = r.db.Transact(ctx, func(tx pgx.Tx) error {
		const reading = "SELECT reading::text FROM upsauth.readings WHERE about = 'applications' FOR UPDATE"
		err := tx.QueryRow(ctx, reading).Scan(&revision)
		switch {
		case errors.Is(err, pgx.ErrNoRows):
			return noReading()
		case err != nil:
			return err
		case revision != a.Revision:
			conflict = &config.ConflictError{Path: all}
			return postgres.ErrNothing
		}
		for i := range changes {
			done, err := changes[i].write(ctx, tx, rows[changes[i].key].version)
			if err != nil {
				return err
			}
			if !done {
				conflict = &config.ConflictError{Path: all}
				return postgres.ErrNothing
			}
		}
		if len(changes) == 0 {
			return postgres.ErrNothing
		}
		return tx.QueryRow(ctx, reading).Scan(&revision)
	})
	if err == nil {
		err = conflict
	}
	if err != nil {
		return err
	}
	for _, c := range changes {
		if c.now.version == "" {
			delete(rows, c.key)
		} else {
			rows[c.key] = c.now
		}
	}
	a.Revision = revision
	return nil
}

// changesOf is how applications differ from the rows that are known of them.
func changesOf(a *config.Applications, rows map[key]row) (changes []change, err error) {
	there := map[key]bool{{}: true}
	for _, r := range a.Applications {
		k := key{r.Environment, r.Name}
		if there[k] {
			return nil, &config.Error{Path: all, Err: fmt.Errorf("the application %q for %q is in it twice", r.Name, r.Environment)}
		}
		there[k] = true
		was, known := rows[k]
		if known && r == was.registration {
			continue
		}
		// Nobody could read it again.
		if err := r.Check(); err != nil {
			return nil, &config.Error{Path: k.place(), Err: fmt.Errorf("it %w", err)}
		}
		text, err := textOf(r, was.more)
		if err != nil {
			return nil, &config.Error{Path: k.place(), Err: err}
		}
		changes = append(changes, change{k, row{version: postgres.NewVersion(), registration: r, more: was.more}, text})
	}
	for k := range rows {
		if !there[k] {
			changes = append(changes, change{key: k})
		}
	}
	if was := rows[key{}].chosen; (a.Default == nil) != (was == nil) || was != nil && *was != *a.Default {
		c := change{now: row{version: postgres.NewVersion()}}
		if a.Default != nil {
			d := *a.Default
			c.now.chosen = &d
			if err := d.Check(); err != nil {
				return nil, &config.Error{Path: c.key.place(), Err: err}
			}
			if c.text, err = jsonv2.Marshal(chosen{format, d.Application, d.Environment}); err != nil {
				return nil, &config.Error{Path: c.key.place(), Err: err}
			}
		}
		changes = append(changes, c)
	}
	return changes, nil
}

// write makes the change, if the row has a version, an empty one where there was none, and
// reports whether it did. It does unless somebody has changed the reading by hand.
func (c change) write(ctx context.Context, tx pgx.Tx, version string) (bool, error) {
	if c.key == (key{}) {
		return c.writeDefault(ctx, tx, version)
	}
	if c.text == nil {
		var done bool
		err := tx.QueryRow(ctx, "SELECT upsauth.drop_application($1, $2, $3::bigint)", c.key.environment, c.key.name, version).Scan(&done)
		return done, err
	}
	statement, args := "INSERT INTO upsauth.applications (environment, name, version, application) VALUES ($1, $2, $3::bigint, $4::json) ON CONFLICT DO NOTHING",
		[]any{c.key.environment, c.key.name, c.now.version, string(c.text)}
	if version != "" {
		statement = "UPDATE upsauth.applications SET version = $3::bigint, application = $4::json WHERE environment = $1 AND name = $2 AND version = $5::bigint"
		args = append(args, version)
	}
	tag, err := tx.Exec(ctx, statement, args...)
	return tag.RowsAffected() == 1, err
}

func (c change) writeDefault(ctx context.Context, tx pgx.Tx, version string) (bool, error) {
	var text *string
	if c.text != nil {
		t := string(c.text)
		text = &t
	}
	statement, args := "INSERT INTO upsauth.settings (name, version, value) VALUES ('default application', $1::bigint, $2::json) ON CONFLICT DO NOTHING",
		[]any{c.now.version, text}
	if version != "" {
		statement = "UPDATE upsauth.settings SET version = $1::bigint, value = $2::json WHERE name = 'default application' AND version = $3::bigint"
		args = append(args, version)
	}
	tag, err := tx.Exec(ctx, statement, args...)
	return tag.RowsAffected() == 1, err
}
