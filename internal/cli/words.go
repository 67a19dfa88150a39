package cli

import (
	"cmp"
	"errors"
	"fmt"
	"strings"

	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/explain"
	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/legible"
	"github.com/upsauth/upsauth/internal/session"
	"github.com/upsauth/upsauth/internal/vault/agefile"
	"github.com/upsauth/upsauth/internal/vault/postgres"
)

// inWords are a command line's for what a person does about an error: the command to
// run, the flag to give, the variable to set.
func inWords(act explain.Act) string {
	id := act.ID
	switch act.Do {
	case explain.AuthorizeCompany, explain.AuthorizeAny:
		return commandAbout("authorize", id)
	case explain.Revoke:
		return commandAbout("revoke", id)
	case explain.Refresh:
		return commandAbout("refresh", id)
	case explain.TryAgain:
		return "run the command again"
	case explain.TryLater:
		return "Run the command again then."
	case explain.CheckVault:
		return "upsauth vault check"
	case explain.RepairVault:
		return "upsauth vault check --repair"
	case explain.Export:
		return "upsauth vault export"
	case explain.ImportIdentity:
		return "upsauth vault import -i FILE EXPORT"
	case explain.ExportPassphrase:
		return "If " + config.EnvPassphrase + " has the passphrase of the vault, pipe in the passphrase of the export with --passphrase-stdin."

	case explain.RenameCompany:
		return fmt.Sprintf("upsauth company rename %s NEW", quotedCodePoints(id.Company))
	case explain.AddCompany:
		return "upsauth company add"
	case explain.ListCompanies:
		return "upsauth company list"
	case explain.ListApplications:
		return "upsauth app list"
	case explain.ShowApplication:
		return "upsauth app show"
	case explain.Register:
		return fmt.Sprintf("upsauth app add %s --env %s --client-id ID --redirect-uri URI", id.Application, id.Environment)
	case explain.RegisterAgain:
		return "upsauth app add again"
	case explain.RegisterAny, explain.RegisterFree:
		return "upsauth app add"
	case explain.RegisterFirst:
		return "upsauth app add NAME --client-id ID --redirect-uri URI"
	case explain.RegisterSandbox:
		return "add --env sandbox"
	case explain.SetSecretOf:
		return "upsauth app set-secret NAME"
	case explain.SetSecret:
		if id.Application == "" {
			return "upsauth app set-secret"
		}
		return fmt.Sprintf("upsauth app set-secret %s --env %s", id.Application, id.Environment)
	case explain.GiveRedirect:
		return "set " + config.EnvRedirectURI + ", or register the application with upsauth app add"
	case explain.GiveSecret:
		return "set " + config.EnvClientSecret + ", or register the application with upsauth app add"
	case explain.ChangePKCE:
		return "--pkce=off or --pkce=auto"
	case explain.Among:
		return listed(act.Among)
	case explain.ChooseGrant:
		return "--app and --env"
	case explain.ChooseEnvironment:
		return "--env"
	case explain.ChooseDefault:
		return "--app and --env, or choose a default with upsauth app set-default"
	case explain.ListenElsewhere:
		return "--listen"
	case explain.GiveCertificate:
		return "--tls-cert and --tls-key"

	case explain.UseFileVault:
		return fmt.Sprintf("%s=file with %s or %s (upsauth help environment)", config.EnvVault, config.EnvPassphrase, config.EnvIdentity)
	case explain.TryFileVault:
		return config.EnvVault + "=file"
	case explain.StartKeychain:
		return "gnome-keyring-daemon --components=secrets, KWallet, KeePassXC"
	case explain.GivePassphrase:
		return fmt.Sprintf("Set %s, or name a file in %s.", config.EnvPassphrase, config.EnvPassphraseFile)
	case explain.OtherPassphrase:
		return fmt.Sprintf("%s, %s, or at the question", config.EnvPassphrase, config.EnvPassphraseFile)
	case explain.NameIdentity:
		return config.EnvIdentity + `=FILE, or identity = "FILE" in config.toml`
	case explain.OtherIdentity:
		return config.EnvIdentity + ", or in config.toml as identity"
	case explain.ReadableIdentity:
		return fmt.Sprintf("Name an age identity file in %s (age-keygen -o FILE makes one), or name none and set %s. Or use the keychain: %s=keychain.",
			config.EnvIdentity, config.EnvPassphrase, config.EnvVault)
	case explain.OpenByPassphrase:
		return fmt.Sprintf("This vault opens with a passphrase: unset %s, and remove identity from config.toml. Or name the right identity file there.", config.EnvIdentity)
	case explain.MakeFileVault:
		return fmt.Sprintf("Set %s or %s. Or make an identity file with age-keygen -o FILE and name it: %s=FILE, or identity = \"FILE\" in config.toml. Or use the keychain: %s=keychain.",
			config.EnvPassphrase, config.EnvPassphraseFile, config.EnvIdentity, config.EnvVault)
	case explain.MoveState:
		return "set " + config.EnvStateDir
	case explain.LengthenRetry:
		return fmt.Sprintf("Set retry_unknown_after = %q or more in config.toml, or remove the line.", legible.Duration(act.Wait))
	case explain.PublicAddress:
		return "public_url under [serve] in config.toml"
	case explain.PublicRedirect:
		return publicRedirectCommand(act)
	case explain.ServePublic:
		return "upsauth serve --public-listen, or public_listen under [serve] in config.toml"
	case explain.ListInvitations:
		return "upsauth invite list"
	case explain.RefuseHeld:
		return "upsauth invite refuse " + cmp.Or(act.Invitation, "ID")
	case explain.ConfirmHeld:
		return fmt.Sprintf("upsauth invite confirm %s, or upsauth invite refuse %[1]s", act.Invitation)
	case explain.InviteAgain:
		return commandAbout("invite", id)
	case explain.KnownCompany:
		return fmt.Sprintf("For the known company, use --company %s. If the company is another one, use --yes.", shellQuote(id.Company))
	case explain.PrintSchema:
		return schemaCommand(act.Role)
	case explain.MigrateTables:
		return "upsauth vault move --to shared"
	case explain.PrivateAddress:
		return config.EnvDatabaseURL
	case explain.ConfigureDatabase:
		return "url under [shared] in config.toml, or " + config.EnvDatabaseURL
	case explain.ListHosts:
		return "upsauth vault hosts"
	case explain.AcceptHost:
		return "upsauth vault hosts accept"
	case explain.RemoveHost:
		return "upsauth vault hosts remove NAME"
	case explain.AcceptFailover:
		return "upsauth vault accept-failover"
	case explain.Rekey:
		return "upsauth vault rekey --identity FILE"
	case explain.TakeOver:
		if id.Company == "" {
			return "upsauth refresh --company NAME --take-over"
		}
		return commandAbout("refresh", id) + " --take-over"
	case explain.UseVault:
		return fmt.Sprintf("set vault = %q in config.toml, or %s=%s", act.Home, config.EnvVault, act.Home)
	case explain.FinishMove:
		return "upsauth vault move --to " + act.Home
	case explain.DeleteFile:
		return "rm " + shellQuote(act.Path)
	case explain.RetrySetting:
		return "retry_unknown_after in config.toml"
	}
	return ""
}

// schemaCommand prints the SQL of a shared vault for a role.
func schemaCommand(role string) string {
	if role == "" || role == postgres.Role {
		return "upsauth vault schema"
	}
	return "upsauth vault schema --role " + shellQuote(role)
}

// publicRedirectCommand registers an application's public redirect URI, and where there is
// no registration the application with it.
func publicRedirectCommand(act explain.Act) string {
	about, uri := "", act.URI
	if strings.ContainsAny(uri, "&'\"$`();<>*?[]{}|\\!~# ") {
		uri = shellQuote(uri)
	}
	switch {
	case act.Unregistered && act.ID.Environment == config.Sandbox:
		sandbox := session.SandboxRegistration(act.ID.Application)
		about = fmt.Sprintf(" --client-id %s --redirect-uri %s", sandbox.ClientID, sandbox.RedirectURI)
	case act.Unregistered:
		about = " --client-id ID --redirect-uri URI"
	}
	return fmt.Sprintf("upsauth app add %s --env %s%s --public-redirect-uri %s", act.ID.Application, act.ID.Environment, about, uri)
}

// commandAbout is a command about a grant, as far as it is named.
func commandAbout(command string, id grant.ID) string {
	if id.Company == "" {
		return "upsauth " + command
	}
	return companyCommand(command, id)
}

// inTerminal puts the names of settings into what an error says.
func inTerminal(what string, err error) string {
	setting := new(session.SettingError)
	if errors.As(err, &setting) {
		what = strings.Replace(what, setting.Error(), setting.In(setting.Variable), 1)
	}
	return strings.Replace(what, agefile.NoIdentityNamed, config.EnvIdentity+" is not set", 1)
}
