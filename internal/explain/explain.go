// Package explain says what an error means: its class, what happened, and what to
// do. It names no flag, no command and no variable of upsauth: a remedy says what is
// to be done, by a typed act, and each face has its own words for that, such as a
// command line to run or a button to press.
//
// The faces import it, and checkup, whose findings have remedies of their own. Packages
// below return typed errors with texts that say what happened.
package explain

import (
	"fmt"
	"strings"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/legible"
	"github.com/upsauth/upsauth/internal/vault"
	"github.com/upsauth/upsauth/internal/vault/postgres"
)

// Class is the kind of an error, for the caller. A command line turns the class into
// an exit code; an answer to a program gives the class's name.
type Class int

const (
	// Failed: whatever has no class of its own.
	Failed Class = iota
	// Usage: the request can't be meant so, or is not clear.
	Usage
	// NotFound: there is no such company, application or grant.
	NotFound
	// Authorize: a person must authorize the company again.
	Authorize
	// Vault: secrets or state can't be read, written or locked.
	Vault
	// UPS: UPS can't be reached, or refuses for now.
	UPS
	// Refused: UPS refuses the configuration: client ID, secret, redirect URI.
	Refused
	// Interrupted: somebody ended it.
	Interrupted
)

// String is the class's name in answers to programs; it never changes.
func (c Class) String() string {
	names := [...]string{"failed", "usage", "not-found", "authorize", "vault", "ups", "refused", "interrupted"}
	if c < 0 || int(c) >= len(names) {
		return names[Failed]
	}
	return names[c]
}

// Explanation is what an error means.
type Explanation struct {
	Class Class
	// What happened: a sentence without a full stop, or several with.
	What string
	// Do is what to do about it, in this order; none where What says so itself, or
	// where there is nothing to do.
	Do []Remedy
	// Contact is whom to ring about it, empty where nobody is known.
	Contact string
}

// Remedy is one thing to do.
type Remedy struct {
	// Text is upsauth's own words for it. Where it has acts, each {} stands for a
	// face's words for the next act. A part in brackets with {} in it is for faces that
	// have words for that act. Others leave the part out, or have what stands behind a
	// bar in it:
	//
	//	Restore it from a backup, or authorize the company again[: {}].
	//	Restore it from a backup, or [run: {}|authorize the company again].
	//
	// Names and other texts from outside stand in remedies without acts only, so that
	// nothing in them is taken for a {}.
	Text string
	Acts []Act
	// Join is what stands between the text before and this one where a face writes
	// both on one line; empty where this begins a line.
	Join string
}

// Act is something that a person does with upsauth.
type Act struct {
	Do Do
	// ID is the grant that it is about. It may have a company alone, or an application
	// with its environment, or nothing where any is meant.
	ID grant.ID
	// Among are the grants or applications to choose from.
	Among []grant.ID
	// Wait is the time to set, for LengthenRetry.
	Wait time.Duration
	// Path is the file to delete, for DeleteFile.
	Path string
	// URI is the public redirect URI to register, for PublicRedirect. Unregistered says
	// that the application itself is not registered yet.
	URI          string
	Unregistered bool
	// Home is the home to use, for UseVault, or to move to, for FinishMove.
	Home string
	// Role is the role in the database that the SQL is for, for PrintSchema; empty for the
	// usual one.
	Role string
	// Invitation is the ID of the one that it is about, empty for any.
	Invitation string
}

// Do is what an act is.
type Do string

const (
	AuthorizeCompany  = Do(vault.Authorize)
	SetSecret         = Do(vault.SetSecret)
	TryAgain          = Do(vault.TryAgain)
	CheckVault        = Do(vault.Check)
	RepairVault       = Do(vault.Repair)
	UseFileVault      = Do(vault.UseFileVault)
	TryFileVault      = Do(vault.TryFileVault)
	StartKeychain     = Do(vault.StartKeychain)
	GivePassphrase    = Do(vault.GivePassphrase)
	OtherPassphrase   = Do(vault.OtherPassphrase)
	NameIdentity      = Do(vault.NameIdentity)
	OtherIdentity     = Do(vault.OtherIdentity)
	ReadableIdentity  = Do(vault.ReadableIdentity)
	OpenByPassphrase  = Do(vault.OpenByPassphrase)
	MakeFileVault     = Do(vault.MakeFileVault)
	AuthorizeAny      = Do("authorize-any")
	SetSecretOf       = Do("set-secret-of")
	Revoke            = Do("revoke")
	Refresh           = Do("refresh")
	TryLater          = Do("try-later")
	RenameCompany     = Do("rename-company")
	AddCompany        = Do("add-company")
	ListCompanies     = Do("list-companies")
	ListApplications  = Do("list-applications")
	Register          = Do("register")
	RegisterAgain     = Do("register-again")
	RegisterAny       = Do("register-any")
	RegisterFree      = Do("register-free")
	RegisterSandbox   = Do("register-sandbox")
	RegisterFirst     = Do("register-first")
	ShowApplication   = Do("show-application")
	GiveSecret        = Do("give-secret")
	GiveRedirect      = Do("give-redirect")
	ChangePKCE        = Do("change-pkce")
	Among             = Do("among")
	ChooseGrant       = Do("choose-grant")
	ChooseEnvironment = Do("choose-environment")
	ChooseDefault     = Do("choose-default")
	Export            = Do("export")
	ImportIdentity    = Do("import-identity")
	ExportPassphrase  = Do("export-passphrase")
	MoveState         = Do("move-state")
	LengthenRetry     = Do("lengthen-retry")
	RetrySetting      = Do("retry-setting")
	ListenElsewhere   = Do("listen-elsewhere")
	GiveCertificate   = Do("give-certificate")
	DeleteFile        = Do("delete-file")
	RefuseHeld        = Do(vault.RefuseHeld)
	PublicRedirect    = Do("public-redirect")
	PublicAddress     = Do("public-address")
	ListInvitations   = Do("list-invitations")
	ConfirmHeld       = Do("confirm-held")
	InviteAgain       = Do("invite-again")
	KnownCompany      = Do("known-company")
	ServePublic       = Do("serve-public")

	PrintSchema       = Do(postgres.PrintSchema)
	MigrateTables     = Do(postgres.Migrate)
	PrivateAddress    = Do(postgres.PrivateAddress)
	ConfigureDatabase = Do("configure-database")
	ListHosts         = Do("list-hosts")
	AcceptHost        = Do("accept-host")
	RemoveHost        = Do("remove-host")
	AcceptFailover    = Do("accept-failover")
	Rekey             = Do("rekey")
	TakeOver          = Do("take-over")
	UseVault          = Do("use-vault")
	FinishMove        = Do("finish-move")
)

// Words writes a remedy with a face's words for its acts. If a face has no words for
// an act, Words leaves out the part in brackets around the act, except for the text
// behind the bar in it.
func (r Remedy) Words(say func(Act) string) string {
	var out strings.Builder
	text := r.Text
	for _, act := range r.Acts {
		before, after, found := strings.Cut(text, "{}")
		if !found {
			break
		}
		words := say(act)
		// A bracket that was closed before is a text's own.
		open := strings.LastIndex(before, "[")
		if open < strings.LastIndex(before, "]") {
			open = -1
		}
		if open < 0 {
			out.WriteString(before + words)
			text = after
			continue
		}
		end, rest, _ := strings.Cut(after, "]")
		end, instead, _ := strings.Cut(end, "|")
		out.WriteString(before[:open])
		if words != "" {
			instead = before[open+1:] + words + end
		}
		out.WriteString(instead)
		text = rest
	}
	out.WriteString(text)
	return out.String()
}

// Plain is a remedy for a reader who has no command line, such as somebody at a
// browser: a sentence of its own.
func (r Remedy) Plain() string {
	// What a face with commands runs is left out. What is left of a sentence begins anew.
	text := strings.TrimSpace(r.Words(plainly))
	if text == "" && len(r.Acts) > 0 {
		text = phrase(r.Acts[0])
	}
	return legible.Sentence(text)
}

// Plain is what happened and what to do for a reader who has no command line, in
// sentences. Remedy is empty where there is none.
func (e Explanation) Plain() (what string, remedy string) {
	var sentences []string
	for _, r := range e.Do {
		if text := r.Plain(); text != "" {
			sentences = append(sentences, text)
		}
	}
	return legible.Sentence(e.What), strings.Join(sentences, " ")
}

// plainly are the words for an act inside of a plain sentence; most have none there.
func plainly(a Act) string {
	if a.Do == TryAgain {
		return "try again"
	}
	return ""
}

// phrase is a plain sentence for an act that is all of a remedy.
func phrase(a Act) string {
	switch a.Do {
	case AuthorizeCompany, AuthorizeAny:
		return "Authorize the company again."
	case SetSecret, SetSecretOf:
		return "Enter the client secret of the application again."
	case TryAgain:
		return "Try again."
	case TryLater:
		return "Try again then."
	case CheckVault:
		return "Check the vault first."
	case RepairVault:
		return "Repair the vault to make a new record from the company's secrets."
	case UseFileVault, TryFileVault:
		return "Use the file vault."
	case StartKeychain:
		return "Start the keychain."
	case GivePassphrase, OtherPassphrase:
		return "Give the passphrase of the file vault."
	case NameIdentity, OtherIdentity:
		return "Name the identity file that opens the file vault."
	case ReadableIdentity:
		return "Name an identity file that can be read, or give a passphrase, or use the keychain."
	case OpenByPassphrase:
		return "A passphrase opens this vault: name no identity file, or name the right one."
	case MakeFileVault:
		return "Give the file vault a passphrase or an identity file, or use the keychain."
	case Revoke:
		return "Remove the authorization."
	case Refresh:
		return "Refresh the tokens and try again."
	case RenameCompany:
		return "Give the company another name."
	case AddCompany:
		return "Add the company again."
	case ListCompanies:
		return "Look for the company in the list of companies, or authorize it."
	case ListApplications:
		return "Look for the application in the list of applications."
	case Register, RegisterAgain, RegisterAny, RegisterFree, RegisterSandbox, RegisterFirst, ShowApplication:
		return "Register the application with the values from UPS's developer portal."
	case GiveRedirect:
		return "Register the application with its redirect URI."
	case GiveSecret:
		return "Register the application with its client secret."
	case ChangePKCE:
		return "Register the application without PKCE."
	case Among:
		return "There are: " + among(a.Among) + "."
	case ChooseGrant, ChooseEnvironment, ChooseDefault:
		return "Choose an application and an environment."
	case Export:
		return "Only one copy of an authorization can be in use."
	case ImportIdentity:
		return "Give the identity file of one of the export's recipients."
	case ExportPassphrase:
		return "Give the passphrase that the export was made with."
	case MoveState:
		return "Put the state directory where file locks work, such as a local disk."
	case LengthenRetry, RetrySetting:
		return "Let more time pass before the same token is sent again."
	case ListenElsewhere:
		return "Listen at another address of this machine."
	case GiveCertificate:
		return "Give the certificate of the redirect URI."
	case DeleteFile:
		return "Delete the file."
	case RefuseHeld:
		return "Refuse the user who signed in."
	case PublicRedirect:
		return "Register the public redirect URI of the application."
	case PublicAddress:
		return "Set the address at which customers reach the service."
	case ListInvitations:
		return "Look for the invitation in the list of invitations."
	case ConfirmHeld:
		return "Confirm or refuse the user who signed in."
	case InviteAgain:
		return "Invite the customer again."
	case ServePublic:
		return "Start the service with its public listener."
	case PrintSchema:
		return "Have an administrator of the database run the SQL of the shared vault."
	case MigrateTables:
		return "Make the tables of the shared vault in the database."
	case PrivateAddress:
		return "Give the address of the database by the environment."
	case ConfigureDatabase:
		return "Configure the database that the hosts share."
	case ListHosts:
		return "Look at the hosts that share the vault."
	case AcceptHost:
		return "Accept this host."
	case RemoveHost:
		return "Remove the host that will not come back."
	case AcceptFailover:
		return "Wait no longer for the other hosts."
	case Rekey:
		return "Finish the change of the vault's identity."
	case TakeOver:
		return "Refresh the company's tokens instead of the other host."
	case UseVault:
		return "Use the vault that has the authorization."
	case FinishMove:
		return "Finish the move to the other vault."
	case KnownCompany:
		return "If the company is the known one, use the known name. Otherwise say that the company is another one."
	}
	return ""
}

// among lists grants, or applications, for a reader.
func among(ids []grant.ID) string {
	var names []string
	for _, id := range ids {
		if id.Application == "" {
			names = append(names, id.Environment)
			continue
		}
		names = append(names, fmt.Sprintf("%s in %s", id.Application, id.Environment))
	}
	return strings.Join(names, "; ")
}
