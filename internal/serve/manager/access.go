package manager

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/explain"
	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/legible"
	"github.com/upsauth/upsauth/internal/loopback"
	"github.com/upsauth/upsauth/internal/serve/page"
	"github.com/upsauth/upsauth/internal/session"
	"github.com/upsauth/upsauth/internal/ups"
)

// registered is one application as Access Key Configuration shows it.
type registered struct {
	Name, Environment, DisplayName string
	ClientID, RedirectURI          string
	PublicRedirectURI              string
	AnyPort                        bool // the redirect URI has port 0, and is shown without it
	Configured                     bool
	Unusable                       string
	Shared                         string // environments with the same redirect URI
	Update                         string // where its button leads
	Button                         string
}

// accessKeys lists the applications, each CONFIGURED or not.
func (m *manager) accessKeys(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	s, err := m.Session(ctx)
	if err != nil {
		return err
	}
	applications, err := s.Applications(ctx)
	if err != nil {
		return err
	}
	var list []registered
	for _, a := range applications.Applications {
		id := grant.ID{Application: a.Name, Environment: a.Environment}
		one := registered{
			Name: a.Name, Environment: a.Environment, DisplayName: session.DisplayName(a), ClientID: a.ClientID, RedirectURI: a.RedirectURI,
			PublicRedirectURI: a.PublicRedirectURI,
			Update:            address("/access-key", id), Button: "UPDATE API ACCESS", Configured: true,
		}
		if err := s.Configured(ctx, a.Name, a.Environment); err != nil {
			one.Configured, one.Unusable = false, sentence(explain.Error(err), a.Name)
		}
		shared, err := s.SharedRedirect(ctx, a)
		if err != nil {
			return err
		}
		one.Shared = strings.Join(shared, ", ")
		if loopback.IsLoopback(a.RedirectURI) && portOf(a.RedirectURI) == "" {
			one.AnyPort, one.RedirectURI = true, strings.Replace(a.RedirectURI, ":0", "", 1)
		}
		list = append(list, one)
	}
	for _, name := range []string{config.IntelligentRating, config.BatchSuite} {
		if len(applications.Find(name, "")) == 0 {
			list = append(list, registered{
				Name: name, DisplayName: displayName(name), Environment: ups.Production, Button: "Register",
				Unusable: "The application is not registered.", Update: address("/access-key", grant.ID{Application: name}, "new", "1"),
			})
		}
	}
	m.write(w, r, http.StatusOK, "keys", page.Page{Heading: "Access Key Configuration"}, struct {
		Applications []registered
		Any          bool // one is registered
		Done, New    string
	}{list, len(applications.Applications) > 0, done(r), "/access-key?new=1"})
	return nil
}

// accessKey is the form of an application's registration, and saves it.
func (m *manager) accessKey(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	s, err := m.Session(ctx)
	if err != nil {
		return err
	}
	id := named(r)
	fresh := r.Form.Get("new") != ""
	var before config.Registration
	if !fresh {
		if before, err = s.FindApplication(ctx, id.Application, id.Environment); err != nil {
			return err
		}
	}
	typed := before
	if fresh {
		typed = config.Registration{Name: id.Application, Environment: cmp.Or(id.Environment, ups.Production), PKCE: string(ups.PKCEAuto)}
	}
	secret := ""
	if r.Method == http.MethodPost {
		typed.ClientID, typed.RedirectURI, secret = r.PostForm.Get("client-id"), r.PostForm.Get("redirect-uri"), r.PostForm.Get("client-secret")
		if r.PostForm.Has("public-redirect-uri") {
			typed.PublicRedirectURI = r.PostForm.Get("public-redirect-uri")
		}
	}
	form := keyForm(typed, fresh, s.Config.EnvironmentNames(), s.ProposedRedirectURI())
	heading := "UPDATE API ACCESS"
	if fresh {
		heading = "Register an application"
	}
	body := struct {
		Form              []field
		Sure              *tick
		Name, Environment string
		New               bool
	}{Form: form, New: fresh, Name: before.Name, Environment: before.Environment}
	show := func(status int) error {
		m.write(w, r, status, "key", page.Page{Title: titleOf(form, heading), Heading: heading}, body)
		return nil
	}
	if r.Method != http.MethodPost {
		return show(http.StatusOK)
	}
	at := func(f session.Field) *field {
		i := slices.IndexFunc(form, func(one field) bool { return one.Name == fieldNames[f] })
		return &form[max(i, 0)]
	}
	for _, e := range session.CheckRegistration(&typed) {
		at(e.Field).Wrong = legible.Sentence(e.Error())
	}
	if fresh && !slices.Contains(s.Config.EnvironmentNames(), typed.Environment) {
		form[1].Wrong = "Choose one of these environments."
	}
	if secret, err = legible.Value(secret); err != nil {
		at(session.FieldSecret).Wrong = legible.Sentence(fmt.Sprintf("the client secret can't be used: %v", err))
	}
	other := fresh || typed.ClientID != before.ClientID
	if other && secret == "" && at(session.FieldSecret).Wrong == "" {
		at(session.FieldSecret).Wrong = "Enter the client secret that belongs to the client ID."
	}
	if wrong(form) {
		return show(http.StatusUnprocessableEntity)
	}
	if fresh {
		applications, err := s.Applications(ctx)
		if err != nil {
			return err
		}
		if len(applications.Find(typed.Name, typed.Environment)) > 0 {
			form[0].Wrong = "This application is registered in this environment already. To change it, press UPDATE API ACCESS."
			return show(http.StatusUnprocessableEntity)
		}
	}
	if other && r.PostForm.Get("sure") != "yes" {
		again, err := s.AuthorizeAgain(ctx, typed.Name, typed.Environment, typed.ClientID)
		if err != nil {
			return err
		}
		if len(again) > 0 {
			at(session.FieldClientID).Wrong = againWords(again) + " Nothing was changed yet. Enter the client secret once more, and tick the box if you are sure."
			body.Sure = &tick{Name: "sure", Label: "Change the client ID. " + againWords(again)}
			return show(http.StatusUnprocessableEntity)
		}
	}
	switch {
	case other:
		_, err = s.RegisterApplication(ctx, typed, secret)
	case typed.RedirectURI != before.RedirectURI:
		err = s.SetRedirectURI(ctx, before, typed.RedirectURI)
	}
	if err == nil && !other && typed.PublicRedirectURI != before.PublicRedirectURI {
		err = s.SetPublicRedirectURI(ctx, before, typed.PublicRedirectURI)
	}
	if err == nil && !other && secret != "" {
		err = s.SetSecret(ctx, before, secret)
	}
	if err != nil {
		return err
	}
	outcome := "updated"
	switch {
	case fresh:
		outcome = "registered"
	case !other && typed.RedirectURI == before.RedirectURI && typed.PublicRedirectURI == before.PublicRedirectURI && secret == "":
		outcome = "same"
	}
	see(w, "/access-keys?done="+outcome)
	return nil
}

// againWords say how many companies a changed client ID sends to ups.com.
func againWords(companies []string) string {
	if len(companies) == 1 {
		return "1 company must authorize again: " + legible.Line(companies[0]) + "."
	}
	return fmt.Sprintf("%d companies must authorize again.", len(companies))
}

// fieldNames are the names of a registration's fields in the form.
var fieldNames = map[session.Field]string{
	session.FieldName: "app", session.FieldClientID: "client-id", session.FieldRedirectURI: "redirect-uri",
	session.FieldPublicURI: "public-redirect-uri", session.FieldSecret: "client-secret",
}

func keyForm(typed config.Registration, fresh bool, environments []string, proposed string) []field {
	var form []field
	if fresh {
		form = []field{
			{Name: "app", Label: "Application", Value: typed.Name, Required: true, Autocomplete: "off",
				Hint: "intelligent-rating, batch-suite, or a name of your own."},
			{Name: "env", Label: "Environment", Value: typed.Environment, Choices: choices("", environments, typed.Environment, func(name string) string { return name })[1:]},
		}
	}
	secret := field{Name: "client-secret", Label: "Client secret", Type: "password", Autocomplete: "new-password", Hint: "It is saved in the vault and never shown."}
	if fresh {
		secret.Required = true
	} else {
		secret.Hint += " Leave the field empty to keep the present secret."
	}
	public := "For customers whom you invite: another Callback URL in UPS's developer portal, below public_url under [serve] in config.toml"
	if proposed != "" {
		public += ", such as " + proposed
	}
	return append(form,
		field{Name: "client-id", Label: "Client ID", Value: typed.ClientID, Required: true, Autocomplete: "off", Hint: "UPS's developer portal shows it."},
		field{Name: "redirect-uri", Label: "Redirect URI", Value: typed.RedirectURI, Required: true, Autocomplete: "off",
			Hint: "The Callback URL as it stands in UPS's developer portal, to the letter, such as http://localhost:8400/callback."},
		field{Name: "public-redirect-uri", Label: "Public redirect URI", Value: typed.PublicRedirectURI, Autocomplete: "off", Hint: public + ". Leave the field empty if you invite nobody."},
		secret)
}
