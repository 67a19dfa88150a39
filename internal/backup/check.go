package backup

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/loopback"
	"github.com/upsauth/upsauth/internal/ups"
)

// maxCount is the highest generation or count that is believed, so that there
// is room to count on. It is the last whole number that all JSON programs keep.
const maxCount = 1<<53 - 1

// clean returns the document as it is fit for another machine, with slices of
// its own, or an *InvalidError. A second time it changes nothing.
func (d Document) clean() (Document, error) {
	made, err := utc(d.Made)
	if err != nil {
		made = time.Time{} // it is for showing only
	}
	// Lists without anything in them are [] in the JSON, and not null.
	clean := Document{Version: Version, Made: made, Grants: []grant.Grant{}, Applications: []Application{}}
	slots, keys := map[string]int{}, map[string]int{}
	for i, g := range d.Grants {
		g, err := cleanGrant(g)
		if err != nil {
			return Document{}, invalidGrant(i, g, err)
		}
		if first, taken := slots[g.Slot()]; taken {
			return Document{}, invalidGrant(i, g, fmt.Errorf("grant no. %d is of the same company, application and environment", first))
		}
		if first, taken := keys[g.TokenVaultKey]; taken {
			return Document{}, invalidGrant(i, g, fmt.Errorf("grant no. %d has the same Token Vault Key", first))
		}
		slots[g.Slot()], keys[g.TokenVaultKey] = i+1, i+1
		clean.Grants = append(clean.Grants, g)
	}
	accounts := map[string]int{}
	for i, a := range d.Applications {
		a, err := cleanApplication(a)
		if err != nil {
			return Document{}, invalidApplication(i, a, err)
		}
		if first, taken := accounts[a.SecretAccount()]; taken {
			return Document{}, invalidApplication(i, a, fmt.Errorf("application no. %d has the same name and environment", first))
		}
		accounts[a.SecretAccount()] = i + 1
		clean.Applications = append(clean.Applications, a)
	}
	for i, u := range d.Interrupted {
		u, err := cleanInterrupted(u)
		if err != nil {
			return Document{}, &InvalidError{Kind: "interrupted refresh", Number: i + 1, Err: err}
		}
		if keys[u.TokenVaultKey] == 0 {
			continue // its grant is not in the export
		}
		clean.Interrupted = append(clean.Interrupted, u)
	}
	return clean, nil
}

// cleanInterrupted does for refreshes of unknown fate what cleanGrant does for grants.
func cleanInterrupted(u Interrupted) (Interrupted, error) {
	if u.Generation < 2 || u.Generation > maxCount || u.Attempt < 1 || u.Attempt > maxCount {
		return u, errors.New("its generation or its number of attempts is impossible")
	}
	var err error
	if u.Time, err = utc(u.Time); err != nil {
		return u, err
	}
	u.Outcome = ups.Presentable(u.Outcome)
	return u, nil
}

func invalidGrant(i int, g grant.Grant, err error) error {
	return &InvalidError{Kind: "grant", Number: i + 1, Name: ups.Presentable(g.Company, g.AccessToken, g.RefreshToken), Err: err}
}

func invalidApplication(i int, a Application, err error) error {
	return &InvalidError{Kind: "application", Number: i + 1, Name: ups.Presentable(a.Name, a.ClientSecret), Err: err}
}

// cleanGrant checks a grant from outside: its values become names of files and
// accounts, and are sent to the server that it names. With an error comes the
// grant as it was.
func cleanGrant(g grant.Grant) (grant.Grant, error) {
	if err := checkID(g.ID); err != nil {
		return g, err
	}
	if id, err := uuid.Parse(g.TokenVaultKey); err != nil || g.TokenVaultKey != strings.ToUpper(id.String()) {
		return g, errors.New("its Token Vault Key is not a GUID in upper case")
	}
	if g.Generation < 1 || g.Generation > maxCount {
		return g, fmt.Errorf("its generation is %d, it must be at least 1 and below 2^53", g.Generation)
	}
	if g.RefreshCount < 0 || g.RefreshCount > maxCount {
		return g, fmt.Errorf("its refresh count is %d, it must be at least 0 and below 2^53", g.RefreshCount)
	}
	if err := checkBaseURL(g.Environment, g.BaseURL); err != nil {
		return g, err
	}
	if g.ClientID == "" || !isWord(g.ClientID) {
		return g, errors.New("its client ID is empty, or has a space or a control character in it")
	}
	if !isWord(g.AccessToken) || !isWord(g.RefreshToken) || !isLine(g.TokenType) || !isLine(g.Scope) {
		return g, errors.New("one of its tokens, their type or their scope has a character in it that can't be there")
	}
	switch {
	case g.AccessToken == "" && g.RefreshToken == "":
		return g, errors.New("it has no token")
	case g.RefreshToken == "" && !g.NoRefreshToken && !g.Void:
		return g, errors.New("it has no refresh token, and does not say that UPS gave none")
	}
	clean := g
	clean.Version = grantVersion
	var err error
	if clean.Company, err = grant.CleanCompany(g.Company); err != nil {
		return g, err
	}
	// All this is about the machine that the grant comes from.
	clean.Was, clean.Home, clean.JournalRecipient = "", "", ""
	clean.Removing, clean.Interrupted, clean.Superseded = false, false, nil
	clean.User = ups.Presentable(g.User)
	times := []*time.Time{&clean.Issued, &clean.Expires, &clean.RefreshTokenIssued, &clean.RefreshTokenExpires,
		&clean.Requested, &clean.AccessUntil, &clean.RefreshUntil}
	if g.LastError != nil {
		last := *g.LastError
		last.Code, last.Kind, last.Message = ups.Presentable(last.Code), ups.Presentable(last.Kind), ups.Presentable(last.Message)
		clean.LastError = &last
		times = append(times, &last.Time)
	}
	for _, t := range times {
		var err error
		if *t, err = utc(*t); err != nil {
			return g, err
		}
	}
	return clean, nil
}

func checkID(id grant.ID) error {
	if err := grant.CheckCompany(id.Company); err != nil {
		return err
	}
	if _, err := grant.CleanName("application", id.Application); err != nil {
		return err
	}
	_, err := grant.CleanName("environment", id.Environment)
	return err
}

// checkBaseURL checks what a grant remembers of where it was made
// (ups.Environment.Origin). It is compared to the letter before every use.
func checkBaseURL(environment, baseURL string) error {
	if environment == config.Sandbox {
		if baseURL != config.Sandbox {
			return fmt.Errorf("its base_url is not the embedded sandbox, as its environment is: there it is just %q", config.Sandbox)
		}
		return nil
	}
	e, err := ups.NewEnvironment(environment, baseURL)
	if err != nil {
		return err
	}
	if e.Origin != baseURL {
		return fmt.Errorf("the base_url of environment %q is not written as upsauth writes it: lower-case scheme, and no slash at the end", environment)
	}
	// Its tokens would be sent there.
	for _, builtin := range ups.BuiltinEnvironments() {
		if builtin.Name == environment && builtin.Origin != baseURL {
			return fmt.Errorf("its environment %s is at %s, and the export says %s", environment, builtin.Origin, ups.Presentable(baseURL))
		}
	}
	return nil
}

// cleanApplication does for applications what cleanGrant does for grants.
func cleanApplication(a Application) (Application, error) {
	if _, err := grant.CleanName("application", a.Name); err != nil {
		return a, err
	}
	if _, err := grant.CleanName("environment", a.Environment); err != nil {
		return a, err
	}
	if a.ClientID == "" || !isWord(a.ClientID) {
		return a, errors.New("its client ID is empty, or has a space or a control character in it")
	}
	if err := loopback.CheckRedirectURI(a.RedirectURI); err != nil {
		return a, fmt.Errorf("its redirect URI can't be used: %w", err)
	}
	if _, err := ups.ParsePKCE(a.PKCE); err != nil {
		return a, err
	}
	if !isLine(a.Scope) || !isLine(a.ClientSecret) {
		return a, errors.New("its scope or its client secret has a control character in it, or is not valid UTF-8 text")
	}
	clean := a
	clean.Home = ""
	clean.DisplayName = ups.Presentable(a.DisplayName)
	return clean, nil
}

// isLine reports whether s is text on one line. U+FFFD is what JSON makes of
// text that is no UTF-8.
func isLine(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool {
		return r == utf8.RuneError || unicode.In(r, unicode.Cc, unicode.Zl, unicode.Zp)
	})
}

// isWord reports whether s is text on one line without spaces.
func isWord(s string) bool { return isLine(s) && !strings.ContainsFunc(s, unicode.IsSpace) }

// utc returns the same moment in UTC, and an error where RFC 3339 has no way to
// write it: a record could be read then and never be written again.
func utc(t time.Time) (time.Time, error) {
	t = t.UTC()
	if year := t.Year(); year < 0 || year > 9999 {
		return t, fmt.Errorf("one of its times is in the year %d", year)
	}
	return t, nil
}
