package invitation

import (
	"errors"
	"fmt"
	"strings"
	"time"

	jsonv2 "github.com/go-json-experiment/json"

	"github.com/upsauth/upsauth/internal/grant"
)

// format is that of the text of a row.
const format = 1

// kept is a row as stores keep it. Whoever reads it refuses what it does not know: a member
// could be a limit.
type kept struct {
	Version    int    `json:"version"`
	Latest     string `json:"latest,omitempty"`
	Invitation *entry `json:"invitation,omitempty"`
}

type entry struct {
	CompanyID     string    `json:"company_id"`
	Company       string    `json:"company"`
	Application   string    `json:"application"`
	Environment   string    `json:"environment"`
	ClientID      string    `json:"client_id"`
	TokenVaultKey string    `json:"token_vault_key,omitempty"` // of the grant that it is to replace
	ExpectUser    string    `json:"expect_user,omitempty"`
	AnyUser       bool      `json:"any_user,omitempty"`
	Note          string    `json:"note,omitempty"`
	ReturnURL     string    `json:"return_url,omitempty"`
	By            string    `json:"by,omitempty"`
	Made          time.Time `json:"made"`
	Expires       time.Time `json:"expires"`
	Wrong         *visit    `json:"wrong_user,omitempty"`
	SignIn        *signIn   `json:"sign_in,omitempty"`
	Ended         *ended    `json:"ended,omitempty"`
}

type visit struct {
	User string    `json:"user"`
	Time time.Time `json:"time"`
}

type signIn struct {
	User          string    `json:"user"`
	Time          time.Time `json:"time"`
	TokenVaultKey string    `json:"token_vault_key"`
	Home          string    `json:"vault,omitempty"`
	Held          bool      `json:"held,omitempty"`
	Doubts        []string  `json:"doubts,omitempty"`
}

type ended struct {
	Why  Why       `json:"why"`
	Time time.Time `json:"time"`
	User string    `json:"user,omitempty"`
}

// ReadText puts what a text says into the row, which has its key and its place. The error is
// a *FileError.
func (r *Row) ReadText(data []byte) error {
	var k kept
	err := jsonv2.Unmarshal(data, &k, jsonv2.RejectUnknownMembers(true))
	if version := max(k.Version, grant.FormatOf(data)); version > format {
		return &FileError{Path: r.Place, Err: fmt.Errorf("a newer upsauth wrote it (format %d, this one knows %d)", version, format)}
	}
	damaged := func(why string) error {
		return &FileError{Path: r.Place, Err: errors.New("it is damaged: " + why), Damaged: true}
	}
	switch {
	case err != nil:
		return damaged(strings.TrimPrefix(err.Error(), "jsontext: "))
	case k.Version != format:
		return damaged("it has no format")
	case r.Part == Latest:
		if r.Latest = Key(k.Latest); k.Invitation != nil || !r.Latest.Valid() {
			return damaged("it names no invitation")
		}
		return nil
	case k.Invitation == nil || k.Latest != "":
		return damaged("it is no invitation")
	}
	r.Invitation = k.Invitation.invitation(r.Key)
	if why := r.Invitation.Check(); why != nil {
		return damaged(why.Error())
	}
	return nil
}

func (e *entry) invitation(key Key) Invitation {
	i := Invitation{
		ID: key.ID(), CompanyID: e.CompanyID, Company: e.Company, Application: e.Application, Environment: e.Environment,
		ClientID: e.ClientID, Replaces: e.TokenVaultKey, ExpectUser: e.ExpectUser, AnyUser: e.AnyUser,
		Note: e.Note, ReturnURL: e.ReturnURL, By: e.By, Made: e.Made, Expires: e.Expires,
	}
	if e.Wrong != nil {
		i.Wrong = &Visit{User: e.Wrong.User, At: e.Wrong.Time}
	}
	if s := e.SignIn; s != nil {
		i.SignIn = &SignIn{Visit: Visit{User: s.User, At: s.Time}, TokenVaultKey: s.TokenVaultKey, Home: s.Home, Held: s.Held, Doubts: s.Doubts}
	}
	if e.Ended != nil {
		i.End = &End{Why: e.Ended.Why, At: e.Ended.Time, User: e.Ended.User}
	}
	return i
}

// Text is the row as stores keep it, in JSON.
func (r Row) Text() ([]byte, error) {
	k := kept{Version: format, Latest: string(r.Latest)}
	if r.Part == Invitations {
		i := r.Invitation
		e := &entry{
			CompanyID: i.CompanyID, Company: i.Company, Application: i.Application, Environment: i.Environment,
			ClientID: i.ClientID, TokenVaultKey: i.Replaces, ExpectUser: i.ExpectUser, AnyUser: i.AnyUser,
			Note: i.Note, ReturnURL: i.ReturnURL, By: i.By, Made: i.Made.UTC(), Expires: i.Expires.UTC(),
		}
		if i.Wrong != nil {
			e.Wrong = &visit{User: i.Wrong.User, Time: i.Wrong.At.UTC()}
		}
		if s := i.SignIn; s != nil {
			e.SignIn = &signIn{User: s.User, Time: s.At.UTC(), TokenVaultKey: s.TokenVaultKey, Home: s.Home, Held: s.Held, Doubts: s.Doubts}
		}
		if i.End != nil {
			e.Ended = &ended{Why: i.End.Why, Time: i.End.At.UTC(), User: i.End.User}
		}
		k.Invitation = e
	}
	return jsonv2.Marshal(k)
}
