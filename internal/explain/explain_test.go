package explain

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/backup"
	"github.com/upsauth/upsauth/internal/company"
	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/invitation"
	"github.com/upsauth/upsauth/internal/keeper"
	"github.com/upsauth/upsauth/internal/legible"
	"github.com/upsauth/upsauth/internal/loopback"
	"github.com/upsauth/upsauth/internal/safefile"
	"github.com/upsauth/upsauth/internal/serve/keys"
	"github.com/upsauth/upsauth/internal/service"
	"github.com/upsauth/upsauth/internal/session"
	"github.com/upsauth/upsauth/internal/signin"
	"github.com/upsauth/upsauth/internal/terminal"
	"github.com/upsauth/upsauth/internal/ups"
	"github.com/upsauth/upsauth/internal/vault"
	"github.com/upsauth/upsauth/internal/vault/agefile"
	"github.com/upsauth/upsauth/internal/vault/ledger"
	"github.com/upsauth/upsauth/internal/vault/postgres"
	"github.com/upsauth/upsauth/internal/vault/shared"
)

// Guards against: a page that tells a customer to run a command; an error that a new
// package returns and no face can explain; an exit code and a program's class that
// differ; a remedy that ends in the middle of a sentence where its command is left out.

const secret = "s3cr3t-refresh-token"

var (
	acme     = grant.ID{Company: "Acme [{}] Corp", Application: "batch-suite", Environment: "cie"}
	other    = grant.ID{Company: "Other", Application: "batch-suite", Environment: "cie"}
	errCause = errors.New("this is the cause")
)

// sample is an error as a face gets it, with what it must mean.
type sample struct {
	err   error
	class Class
	// do is whether there is anything to do; where not, the error says so itself, or
	// nobody can do anything.
	do bool
}

// samples has every exported error of the packages below the faces, by its name.
var samples = map[string][]sample{
	"backup.ErrDamaged":        {{backup.ErrDamaged, Failed, false}},
	"backup.ErrMixed":          {{backup.ErrMixed, Failed, false}},
	"backup.ErrNeedIdentity":   {{backup.ErrNeedIdentity, Failed, true}},
	"backup.ErrNeedPassphrase": {{backup.ErrNeedPassphrase, Failed, false}},
	"backup.ErrNoRecipient":    {{backup.ErrNoRecipient, Failed, false}},
	"backup.ErrNotAge":         {{backup.ErrNotAge, Failed, false}},
	"backup.ErrNotExport":      {{backup.ErrNotExport, Failed, false}},
	"backup.ErrOtherIdentity":  {{backup.ErrOtherIdentity, Failed, true}},
	"backup.ErrPrivateKey":     {{backup.ErrPrivateKey, Failed, false}},
	"backup.ErrTooBig":         {{backup.ErrTooBig, Failed, false}},
	"backup.ErrWrongPassphrase": {
		{backup.ErrWrongPassphrase, Failed, true},
		{fmt.Errorf("the export: %w", backup.ErrWrongPassphrase), Failed, true},
	},
	"backup.InvalidError":    {{&backup.InvalidError{Kind: "grant", Number: 2, Name: "Acme", Err: errCause}, Failed, false}},
	"backup.NewerError":      {{&backup.NewerError{Version: 9, Known: 2}, Failed, false}},
	"backup.WorkFactorError": {{&backup.WorkFactorError{WorkFactor: 40}, Failed, false}},
	"company.FileError": {
		{&company.FileError{Path: "/s/c.json", Err: errCause}, Failed, false},
		{&company.FileError{Path: "/s/c.json", Err: errCause, Damaged: true}, Failed, true},
	},
	"company.ConflictError": {{&company.ConflictError{Row: company.Row{Place: "/s/c.json"}}, Failed, false}},
	"config.ConflictError":  {{&config.ConflictError{Path: "/c/a.toml"}, Failed, false}},
	"config.Error":          {{&config.Error{Path: "/c/config.toml", Err: errCause}, Failed, false}},
	"config.ReplaceError":   {{&config.ReplaceError{Path: "/c/a.toml", Err: errCause}, Failed, false}, {&config.ReplaceError{Path: "/c/a.toml", Err: &safefile.WriteError{What: "/c/a.toml can't be written", Err: fs.ErrPermission}}, Failed, false}},

	"grant.ErrConflict":     {{grant.ErrConflict, Failed, false}},
	"grant.ErrLeft":         {{grant.ErrLeft, Failed, false}},
	"grant.ErrLoginBusy":    {{grant.ErrLoginBusy, Failed, false}},
	"grant.ErrNoAnswer":     {{grant.ErrNoAnswer, Failed, false}},
	"grant.ErrOvertaken":    {{grant.ErrOvertaken, UPS, true}},
	"grant.ErrNoGrant":      {{grant.ErrNoGrant, NotFound, false}},
	"grant.ErrSetAside":     {{grant.ErrSetAside, NotFound, false}},
	"grant.ErrRemoving":     {{grant.ErrRemoving, NotFound, false}},
	"grant.ErrOlder":        {{grant.ErrOlder, Failed, false}},
	"grant.ErrNoSecrets":    {{grant.ErrNoSecrets, Failed, false}},
	"grant.ErrNothingThere": {{grant.ErrNothingThere, Failed, false}},

	"invitation.ConflictError": {{&invitation.ConflictError{Row: invitation.Row{Place: "/s/i.json"}}, Failed, true}},
	"invitation.DraftError":    {{&invitation.DraftError{Err: errCause}, Usage, false}},
	"invitation.ErrUnknown":    {{invitation.ErrUnknown, NotFound, true}},
	"invitation.FileError": {
		{&invitation.FileError{Path: "/s/i.json", Err: errCause}, Failed, false},
		{&invitation.FileError{Path: "/s/i.json", Err: errCause, Damaged: true}, Failed, true},
	},
	"invitation.LastingError": {{&invitation.LastingError{Lasts: time.Hour}, Usage, true}},
	"invitation.OverError": {
		{&invitation.OverError{Invitation: invited(invitation.Withdrawn).Invitation}, Failed, true},
		{&invitation.OverError{Invitation: invited(invitation.Completed).Invitation}, Failed, true},
	},
	"invitation.SeveralError": {{&invitation.SeveralError{ID: "a", Count: 2}, Usage, true}},

	"keeper.AwaitedError":       {{&keeper.AwaitedError{Err: &keeper.DeclinedError{Code: "access_denied"}}, Failed, true}},
	"keeper.ClientChangedError": {{&keeper.ClientChangedError{ID: acme, What: "client ID", Made: "a", Have: "b"}, Refused, true}},
	"keeper.DeclinedError":      {{&keeper.DeclinedError{Code: "access_denied"}, Failed, true}},
	"keeper.ElsewhereError":     {{&keeper.ElsewhereError{ID: acme, Path: "/tmp/x", Err: errCause}, Vault, true}},
	"keeper.ContestedError":     {{&keeper.ContestedError{ID: acme, Why: "UPS refused it.", Err: errCause}, UPS, true}},
	"keeper.GoneError": {
		{&keeper.GoneError{ID: acme, Why: "it expired"}, Authorize, true},
		{&keeper.GoneError{ID: acme, Why: "UPS refused it", Void: true}, Authorize, true},
	},
	"keeper.LostError":         {{&keeper.LostError{ID: acme, Err: errCause}, Vault, true}},
	"keeper.OtherGrantError":   {{&keeper.OtherGrantError{Here: "a newer grant stands in its place"}, Failed, false}},
	"keeper.OtherUserError":    {{&keeper.OtherUserError{ID: acme, User: "jane", Expect: "joe"}, Failed, true}},
	"keeper.PendingError":      {{&keeper.PendingError{ID: acme, Again: time.Minute, What: "HTTP 503"}, UPS, true}},
	"keeper.RetryTooSoonError": {{&keeper.RetryTooSoonError{Least: time.Minute}, Failed, true}},
	"keeper.SavedError":        {{&keeper.SavedError{Err: context.Canceled}, Interrupted, false}},
	"keeper.StaleError": {
		{&keeper.StaleError{ID: acme, Why: keeper.StaleExpired}, Failed, true},
		{&keeper.StaleError{ID: acme, Why: keeper.StaleClient}, Failed, true},
		{&keeper.StaleError{ID: acme, Why: keeper.StaleOvertaken}, Failed, true},
	},
	"keeper.TooLongError":  {{&keeper.TooLongError{ID: acme}, Failed, false}},
	"keeper.TooShortError": {{&keeper.TooShortError{Asked: time.Hour, Lifetime: time.Minute}, Usage, true}},
	"keeper.UnreadError":   {{&keeper.UnreadError{Path: "/s/x", Err: &ups.Error{Kind: ups.Unusable, Endpoint: ups.RefreshEndpoint, Status: 200}}, UPS, true}},

	"loopback.BindError": {{&loopback.BindError{Err: errCause}, Failed, false}},
	"loopback.ErrClosed": {{loopback.ErrClosed, Failed, false}},
	"loopback.PortError": {
		{&loopback.PortError{Port: 8400, Addr: "127.0.0.1", Owner: "nc (process 8)"}, Failed, true},
		{&loopback.PortError{Port: 8400, Addr: "127.0.0.1", Owner: "the upsauth service (process 8), for the sign-in of Acme until 2026-11-21 16:05:03 UTC", SignIn: true}, Failed, true},
	},
	"loopback.UnservedError": {
		{&loopback.UnservedError{RedirectURI: "https://a.example/cb", Why: loopback.Elsewhere}, Failed, true},
		{&loopback.UnservedError{RedirectURI: "http://localhost:0/cb", Why: loopback.AnyPort}, Failed, true},
		{&loopback.UnservedError{RedirectURI: "https://localhost/cb", Why: loopback.NeedsCertificate}, Failed, true},
	},

	"safefile.AccessError":     {{&safefile.AccessError{Path: "/s", Owner: "root", Mode: 0o700, Remedy: "chmod u+rwx /s", Err: fs.ErrPermission}, Failed, false}},
	"safefile.LinkError":       {{&safefile.LinkError{Path: "/s"}, Failed, false}},
	"safefile.PermissionError": {{&safefile.PermissionError{Path: "/s", Mode: 0o777, Remedy: "chmod 700 /s"}, Failed, false}},
	"safefile.WriteError": {
		{&safefile.WriteError{What: "the journal can't be written", Err: errCause}, Vault, true},
		{&safefile.WriteError{What: "the journal can't be written", Err: fs.ErrPermission}, Vault, true},
		{&safefile.WriteError{What: "the journal can't be written", Err: &safefile.LinkError{Path: "/s"}}, Vault, false},
	},
	"safefile.TooLongError": {{&safefile.TooLongError{Name: "it", Most: 1 << 20}, Failed, false}},

	"keys.ErrWrong":      {{keys.ErrWrong, Failed, false}},
	"keys.ExistsError":   {{&keys.ExistsError{Name: "web"}, Usage, true}},
	"keys.FileError":     {{&keys.FileError{Path: "/state/keys.json", Err: errCause}, Failed, false}, {&keys.FileError{Path: "/state/keys.json", Err: errCause, Damaged: true}, Failed, true}, {&keys.FileError{Path: "the row", Key: "shop", Err: errCause, Damaged: true}, Failed, true}},
	"keys.NameError":     {{&keys.NameError{Err: errCause}, Usage, false}},
	"keys.NotFoundError": {{&keys.NotFoundError{Name: "web"}, NotFound, true}},
	"keys.ScopeError":    {{&keys.ScopeError{Err: errCause}, Usage, false}},
	"session.ClashError": {{&session.ClashError{One: acme, Other: other}, Failed, true}},
	"session.ContactError": {
		{session.WithContact(&keeper.GoneError{ID: acme, Why: "it expired"}, "Jane, 555"), Authorize, true},
	},
	"session.ForeignPressError": {{&session.ForeignPressError{Err: errCause}, Failed, false}},
	"session.HeldGoneError":     {{&session.HeldGoneError{Invited: invited(invitation.Withdrawn)}, Vault, true}},
	"session.NearNameError":     {{&session.NearNameError{Near: session.NearName{Name: "Acme Crop", Known: "Acme Corp"}}, Usage, true}},
	"session.NoPublicURLError":  {{&session.NoPublicURLError{}, Failed, true}},
	"session.HeldError":         {{&session.HeldError{Invited: heldBy("jane")}, Failed, true}},
	"session.NotHeldError":      {{&session.NotHeldError{Invited: invited(invitation.Withdrawn)}, Failed, true}},
	"session.PublicRedirectError": {
		{&session.PublicRedirectError{Application: "a", Environment: "cie", Proposed: "https://auth.example/callback"}, Failed, true},
		{&session.PublicRedirectError{Application: "a", Environment: "cie", Has: "https://else.example/cb", Proposed: "https://auth.example/callback"}, Failed, true},
	},
	"session.PublicURLError": {
		{&session.PublicURLError{URL: "https://auth.example", Err: errCause}, Failed, true},
		{&session.PublicURLError{URL: "https://auth.example", Status: 502}, Failed, true},
	},
	"session.ReturnURLError":       {{&session.ReturnURLError{URL: "https://else.example/"}, Usage, true}},
	"session.NameError":            {{&session.NameError{Err: errCause}, Usage, false}},
	"session.OtherClientError":     {{&session.OtherClientError{Application: "a", Environment: "cie", Has: "theirs", Made: "ours"}, Refused, true}},
	"session.OtherSecretError":     {{&session.OtherSecretError{Application: "a", Environment: "cie"}, Failed, true}},
	"session.TwinError":            {{&session.TwinError{Company: "Acme\u200b"}, Failed, true}},
	"service.ErrNotBegun":          {{service.ErrNotBegun, Failed, false}},
	"session.NotFoundError":        notFound(),
	"session.PatienceError":        {{&session.PatienceError{ID: acme, Waited: time.Minute}, Failed, false}},
	"session.FieldError":           {{&session.FieldError{Field: session.FieldClientID, Err: errCause}, Usage, false}},
	"session.RedirectMissingError": {{&session.RedirectMissingError{Application: "a", Environment: "cie"}, Usage, true}},
	"session.SecretGoneError":      {{&session.SecretGoneError{Application: "a", Environment: "cie", Vault: "keychain"}, Vault, true}},
	"session.SecretMissingError":   {{&session.SecretMissingError{Application: "a", Environment: "cie"}, Usage, true}},
	"session.SettingError": {
		{&session.SettingError{Variable: config.EnvClientID, Unclean: true, Err: errCause}, Usage, false},
		{&session.SettingError{Variable: config.EnvClientSecret, Unclean: true, Err: errCause}, Usage, false},
		{&session.SettingError{Variable: config.EnvRedirectURI, Err: errCause}, Usage, false},
		{&session.SettingError{Variable: "UPSAUTH_NEW", Err: errCause}, Usage, false},
	},
	"session.SeveralError": {
		{&session.SeveralError{Grants: []grant.ID{acme, {Company: acme.Company, Application: "x", Environment: "production"}}}, Usage, true},
		{&session.SeveralError{Name: "a", Applications: registered()}, Usage, true},
		{&session.SeveralError{Applications: registered()}, Usage, true},
	},

	"signin.ErrCutOff":        {{signin.ErrCutOff, Failed, true}},
	"signin.CertificateError": {{&signin.CertificateError{Certificate: "/c.pem", Key: "/k.pem", Err: errCause}, Usage, false}},
	"signin.NobodyError": {
		{&signin.NobodyError{Waited: time.Minute}, Failed, false},
		{&signin.NobodyError{Waited: time.Minute, Last: errCause}, Failed, false},
	},

	"terminal.ErrDiffer": {{terminal.ErrDiffer, Failed, false}},

	"ups.Error":        refusals(),
	"ups.ProxyError":   {{&ups.ProxyError{Proxy: "p:1", Host: "h:443", Err: errCause}, Failed, false}},
	"ups.SettingError": {{&ups.SettingError{Variable: "HTTPS_PROXY", Problem: "can't be used", Remedy: "Write it as http://HOST:PORT."}, Usage, true}},

	"vault.DamagedError": {
		{&vault.DamagedError{Path: "/s/r.json", Cause: "no JSON"}, Failed, true},
		{&vault.DamagedError{Path: "/s/r.journal", Cause: "cut", Journal: true}, Failed, true},
	},
	"vault.JournalDamageError": {{&vault.JournalDamageError{Path: "/s/r.journal", Cause: "it ends too soon"}, Failed, true}},
	"ups.NotReadyError":        {{&ups.NotReadyError{Err: &ledger.LateError{After: 7 * time.Second}}, UPS, true}},
	"vault.ErrNoItem":          {{vault.ErrNoItem, Failed, false}},
	"vault.ErrNoList":          {{vault.ErrNoList, Failed, false}},
	"vault.FileError":          {{&vault.FileError{What: "a record", Path: "/s/r", Err: errCause}, Failed, false}},
	"vault.HomeError":          homes(),
	"vault.JournalKeyError":    {{&vault.JournalKeyError{ID: acme}, Vault, false}},
	"vault.LeftError":          {{&vault.LeftError{ID: acme, Err: errCause}, Failed, false}},
	"vault.LockError":          {{&vault.LockError{Of: "Acme", Err: errCause}, Vault, true}, {&vault.LockError{Of: "Acme", Err: fs.ErrPermission}, Vault, true}},
	"vault.LoginBusyError":     {{&vault.LoginBusyError{Company: "Acme", PID: 8}, Failed, true}},
	"vault.MissingError": {
		{&vault.MissingError{ID: acme, Home: "file"}, Vault, true},
		{&vault.MissingError{ID: acme, Home: "keychain"}, Vault, true},
	},
	"vault.MovedError": {
		{&vault.MovedError{Records: []grant.Record{movedRecord(grant.Moved{Home: "shared", At: sharedAt})}}, NotFound, true},
		{&vault.MovedError{Records: []grant.Record{movedRecord(grant.Moved{Home: "file", Host: "web-1", At: sharedAt})}}, NotFound, true},
		{&vault.MovedError{Records: []grant.Record{movedRecord(grant.Moved{Home: "shared", At: sharedAt, Arriving: true})}}, NotFound, true},
		{&vault.MovedError{Records: []grant.Record{movedRecord(grant.Moved{Home: "shared", At: sharedAt, Arriving: true})}, Err: &session.NoDatabaseError{}}, Vault, true},
	},
	"vault.OtherHereError":          {{&vault.OtherHereError{ID: acme, Where: "shared vault"}, Failed, true}, {&vault.OtherHereError{ID: acme, Where: "shared vault", Same: true}, Failed, true}},
	"session.MoveBusyError":         {{&session.MoveBusyError{PID: 8}, Failed, true}},
	"session.OtherApplicationError": {{&session.OtherApplicationError{Application: "x", Environment: "lab", What: "client ID"}, Failed, true}},
	"vault.NewerError":              {{&vault.NewerError{Path: "/s/r", Version: 9}, Failed, false}},
	"vault.NothingThereError":       {{&vault.NothingThereError{ID: acme, Home: "keychain"}, Failed, false}},
	"vault.PresentError": {
		{&vault.PresentError{Where: "under the name Acme"}, Failed, false},
		{&vault.PresentError{Where: "with a damaged record", Do: vault.Repair}, Failed, true},
		{&vault.PresentError{Where: "in the keychain and without a record", Do: vault.Check}, Failed, true},
	},
	"safefile.KindError":     {{&safefile.KindError{Kind: "a directory"}, Failed, true}},
	"vault.RehearsalError":   {{&vault.RehearsalError{Dir: "/s", Step: "no lock can be taken", Err: errCause}, Vault, false}},
	"vault.ServiceBusyError": {{&vault.ServiceBusyError{Dir: "/s", PID: 8}, Failed, false}},
	"vault.TakenError":       {{&vault.TakenError{ID: acme}, Failed, false}},

	"shared.AwaitedError":      {{&shared.AwaitedError{ID: acme}, UPS, true}},
	"shared.ForgedError":       {{&shared.ForgedError{What: "The secrets of Acme"}, Failed, false}},
	"shared.HostFileError":     {{&shared.HostFileError{Path: "/s/shared/host.json", Err: errCause}, Failed, true}},
	"shared.IdentityError":     {{&shared.IdentityError{Have: "age1a", Want: "age1b"}, Vault, true}},
	"shared.RekeyError":        {{&shared.RekeyError{Next: "age1b"}, Vault, true}},
	"shared.SameIdentityError": {{&shared.SameIdentityError{Public: "age1a"}, Failed, true}},
	"shared.RolledBackError":   {{&shared.RolledBackError{ID: acme, Have: 1, Seen: 2}, Authorize, true}},
	"shared.RowError":          {{&shared.RowError{Slot: "0a1b"}, Vault, true}},
	"shared.StaleError":        {{&shared.StaleError{Read: sharedAt, Err: &postgres.Error{Reason: postgres.Away, What: "the database does not answer", Advice: "try again in a while"}}, Vault, true}},
	"shared.VaultError":        {{&shared.VaultError{Dir: "/s"}, Vault, true}},

	"ledger.ClaimedError": {
		{&ledger.ClaimedError{Claim: ledger.Claim{Host: "0a1b", At: sharedAt}, Name: "web-2", Until: sharedAt.Add(10 * time.Minute)}, UPS, true},
		{&ledger.ClaimedError{Claim: ledger.Claim{Host: "0a1b", At: sharedAt}}, UPS, true},
	},
	"ledger.ConflictError": {
		{&ledger.ConflictError{}, Failed, true},
		{&ledger.ConflictError{WentBack: true}, UPS, true},
		{&ledger.ConflictError{Missing: true}, Authorize, true},
	},
	"ledger.FrozenError": {
		{&ledger.FrozenError{Epoch: 2, Waiting: []string{"web-1", "web-2"}}, UPS, true},
		{&ledger.FrozenError{Epoch: 2, Answer: true}, UPS, true},
	},
	"ledger.HostError": {
		{&ledger.HostError{Host: "0a1b", Name: "web-2", Reason: ledger.Stranger}, Vault, true},
		{&ledger.HostError{Host: "0a1b", Name: "web-2", Reason: ledger.RemovedHost}, Vault, true},
		{&ledger.HostError{Host: "0a1b", Reason: ledger.Alone}, Vault, true},
	},
	"ledger.LateError":    {{&ledger.LateError{After: 7 * time.Second}, UPS, true}},
	"ledger.SettledError": {{&ledger.SettledError{Claim: ledger.Claim{Outcome: ledger.Unsent}}, Failed, true}},

	"postgres.ErrNothing":   {{postgres.ErrNothing, Failed, false}},
	"postgres.Error":        databases(),
	"postgres.UnknownError": {{&postgres.UnknownError{What: "the connection broke off", Err: errors.New(secret)}, Vault, true}},

	"session.HostNotFoundError": {
		{&session.HostNotFoundError{Name: "web-2"}, NotFound, true},
		{&session.HostNotFoundError{}, NotFound, true},
	},
	"session.NoDatabaseError":   {{&session.NoDatabaseError{}, Vault, true}},
	"session.SeveralHostsError": {{&session.SeveralHostsError{Name: "web-2", Hosts: []session.Host{{Host: ledger.Host{ID: "0a1b", Name: "web-2"}}, {Host: ledger.Host{ID: "0c1d", Name: "web-2"}}}}, Usage, true}},

	"agefile.ErrNoPassphrase":    {{agefile.ErrNoPassphrase, Failed, false}},
	"agefile.ErrNotByPassphrase": {{agefile.ErrNotByPassphrase, Failed, false}},
}

// invited is an invitation that has ended.
// heldBy is an invitation whose user waits for the sender.
func heldBy(user string) session.Invited {
	i := invited(invitation.Withdrawn)
	i.End, i.SignIn = nil, &invitation.SignIn{Visit: invitation.Visit{User: user}, Held: true}
	return i
}

func invited(why invitation.Why) session.Invited {
	return session.Invited{Invitation: invitation.Invitation{
		ID: "abcdefghij", Company: acme.Company, Application: acme.Application, Environment: acme.Environment,
		SignIn: &invitation.SignIn{Home: "keychain", Held: true}, End: &invitation.End{Why: why},
	}}
}

func registered() []config.Registration {
	return []config.Registration{{Name: "a", Environment: "cie"}, {Name: "a", Environment: "production"}}
}

func notFound() (all []sample) {
	for kind := session.NoCompany; kind <= session.NoEnvironment; kind++ {
		e := &session.NotFoundError{Kind: kind, Company: acme.Company, Application: "a", Environment: "cie", Near: "Acme [: {}]", Unused: "nothing is kept here yet",
			Has: []grant.ID{acme}, Registered: registered(), Environments: []string{"cie"}, File: "/c/config.toml"}
		all = append(all, sample{e, NotFound, kind != session.RemovedMeanwhile})
	}
	return all
}

func refusals() (all []sample) {
	kinds := map[ups.Kind]Class{
		ups.RefreshTokenRefused: Authorize, ups.CodeRefused: Failed, ups.ClientRefused: Refused, ups.HeaderMissing: Refused,
		ups.RedirectURIRefused: Refused, ups.Blocked: Refused, ups.RateLimited: UPS, ups.Down: UPS, ups.Unreachable: UPS, ups.Lost: UPS,
		ups.Unusable: UPS, ups.AccessTokenRefused: Failed, ups.ProductMissing: Failed, ups.AccountMissing: Failed, ups.UserLocked: Failed,
		ups.RequestRefused: Failed, ups.Unknown: Failed,
	}
	for kind, class := range kinds {
		for _, endpoint := range []ups.Endpoint{ups.RefreshEndpoint, ups.TokenEndpoint, ups.APIEndpoint} {
			all = append(all, sample{&ups.Error{Endpoint: endpoint, Kind: kind, Status: 400, Code: "10400", Message: "said by UPS", User: "jane@acme.example"}, class, true})
		}
	}
	unreachable := func(e ups.Error) {
		e.Endpoint, e.Kind, e.Message = ups.RefreshEndpoint, ups.Unreachable, "no connection"
		all = append(all, sample{&e, UPS, true})
	}
	for _, distrust := range []ups.Distrust{ups.UnknownAuthority, ups.Expired, ups.NotYetValid, ups.WrongName, ups.NoTLS} {
		unreachable(ups.Error{Distrust: distrust})
	}
	for _, status := range []int{0, 403, 407, 502} {
		unreachable(ups.Error{Err: &ups.ProxyError{Proxy: "p:1", Host: "h:443", Status: status, Err: errCause}})
	}
	unreachable(ups.Error{Err: &ups.ProxyError{Proxy: "p:1", Host: "h:443", Status: 407, Schemes: []string{"NTLM"}}})
	return all
}

// sharedAt is when another host asked UPS.
var sharedAt = time.Date(2026, 11, 21, 16, 5, 3, 0, time.UTC)

// databases are an error of a database for each reason, and those with acts as the package
// makes them.
func databases() (all []sample) {
	for _, reason := range []postgres.Reason{
		postgres.BadSettings, postgres.Away, postgres.ReadOnly, postgres.Refused, postgres.Untrusted, postgres.TooOld, postgres.WrongEncoding,
		postgres.StrangeTables, postgres.NoIdentity, postgres.Busy, postgres.Failed,
	} {
		all = append(all, sample{&postgres.Error{Reason: reason, What: "the database is not as it must be", Advice: "look at " + acme.Company + " there", Err: errors.New(secret)}, Vault, true})
	}
	add := func(err error) {
		e := err.(*postgres.Error)
		all = append(all, sample{e, Vault, true})
	}
	good := postgres.State{Server: 150000, Encoding: "UTF8", Database: "shop", Role: "web", Owner: acme.Company, Schema: true, Version: postgres.SchemaVersion}
	for _, change := range []func(*postgres.State){
		func(s *postgres.State) { s.Schema, s.Version = false, 0 },
		func(s *postgres.State) { s.Schema, s.Version, s.MayCreate = false, 0, true },
		func(s *postgres.State) { s.Version = postgres.SchemaVersion + 1 },
		func(s *postgres.State) { s.Lacking = []string{"SELECT on meta"} },
		func(s *postgres.State) { s.Version = 0 },
		func(s *postgres.State) { s.Missing = []string{"outbox"} },
		func(s *postgres.State) { s.Server = 120000 },
		func(s *postgres.State) { s.Encoding = "LATIN1" },
	} {
		s := good
		change(&s)
		add(s.Check())
	}
	add(postgres.Settings{URL: "postgres://u:" + secret + "@localhost/d"}.Check())
	return append(all, sample{&postgres.Error{Reason: postgres.Failed, What: "the database did not do it"}, Vault, false})
}

// homes are an error of a home for each act.
func homes() (all []sample) {
	for _, do := range []vault.Act{
		vault.Authorize, vault.SetSecret, vault.TryAgain, vault.UseFileVault, vault.TryFileVault, vault.StartKeychain, vault.GivePassphrase,
		vault.OtherPassphrase, vault.NameIdentity, vault.OtherIdentity, vault.ReadableIdentity, vault.OpenByPassphrase, vault.MakeFileVault, vault.RefuseHeld,
	} {
		for _, advice := range []string{"[{}]", "Unlock it, or go on[: {}]."} {
			all = append(all, sample{&vault.HomeError{Home: "file", What: "It is locked.", Advice: advice, Do: []vault.Act{do}, Err: errors.New(secret)}, Vault, true})
		}
	}
	return append(all,
		sample{&vault.HomeError{Home: "keychain", What: "It is locked.", Advice: "Start one[ ({})], or use the other[: {}].", Do: []vault.Act{vault.StartKeychain, vault.UseFileVault}}, Vault, true},
		sample{&vault.HomeError{Home: "keychain", What: "It was interrupted.", TimedOut: true}, Vault, false})
}

// unfit is what no page may say: a command or a flag of upsauth, a variable of its
// environment, or what is left of a remedy's form.
var unfit = regexp.MustCompile(`upsauth [a-z]+ --|upsauth (authorize|status|refresh|revoke|token|exec|api|company|app|vault|doctor|sandbox|demo|serve|invite|help)\b|(^|[^-a-z])--[a-z]{3,}|UPSAUTH_|[Rr]un the command|\{\}|\[: |%!|  |: *\.|\( *\)|, *\.`)

func movedRecord(m grant.Moved) grant.Record {
	return grant.Record{Facts: grant.Facts{ID: acme, Home: "keychain"}, Local: grant.Local{Moved: &m}}
}

func TestEveryErrorIsExplainedToAReaderWithoutACommandLine(t *testing.T) {
	for name, list := range samples {
		for i, s := range list {
			t.Run(fmt.Sprintf("%s/%d", name, i), func(t *testing.T) {
				e := Error(s.err)
				if e.Class != s.class {
					t.Errorf("its class is %s, want %s", e.Class, s.class)
				}
				what, remedy := e.Plain()
				if len(strings.Fields(what)) < 3 || !strings.HasSuffix(what, ".") {
					t.Errorf("it says %q: that is no sentence", what)
				}
				if (remedy != "") != s.do || (len(e.Do) > 0) != s.do {
					t.Errorf("what to do is %q, wanted any: %t", remedy, s.do)
				}
				// Company names may have anything in them.
				text := strings.NewReplacer(acme.Company, "Acme", "Acme [: {}]", "Acme").Replace(what + " " + remedy)
				if bad := unfit.FindString(text); bad != "" {
					t.Errorf("a page says %q in %q", bad, text)
				}
				if strings.Contains(text, secret) {
					t.Errorf("a page has a secret: %q", text)
				}
				for _, r := range e.Do {
					if n := strings.Count(r.Text, "{}"); len(r.Acts) > 0 && n != len(r.Acts) {
						t.Errorf("%q has room for %d acts, and there are %d", r.Text, n, len(r.Acts))
					}
					for _, act := range r.Acts {
						if phrase(act) == "" {
							t.Errorf("there is no phrase for the act %q", act.Do)
						}
					}
				}
			})
		}
	}
}

// below are the packages below the faces, and those that faces use for what is no words
// of theirs.
var below = []string{"ups", "vault", "vault/agefile", "vault/keychain", "vault/postgres", "vault/ledger", "vault/shared", "loopback", "keeper", "grant", "session", "signin", "service", "checkup", "config", "company", "safefile", "backup", "legible", "browser", "process", "terminal", "serve/keys", "invitation"}

// A new error without a sample above fails here.
func TestNoErrorWithoutAnExplanation(t *testing.T) {
	found := map[string]bool{}
	walkFiles(t, func(pkg string, file *ast.File, _ *token.FileSet) {
		for _, d := range file.Decls {
			decl, ok := d.(*ast.GenDecl)
			if !ok {
				if method, ok := d.(*ast.FuncDecl); ok && method.Recv != nil && method.Name.Name == "Error" {
					if name := receiver(method); ast.IsExported(name) {
						found[pkg+"."+name] = true
					}
				}
				continue
			}
			for _, spec := range decl.Specs {
				if value, ok := spec.(*ast.ValueSpec); ok && decl.Tok == token.VAR {
					for _, name := range value.Names {
						if strings.HasPrefix(name.Name, "Err") {
							found[pkg+"."+name.Name] = true
						}
					}
				}
			}
		}
	})
	for name := range found {
		if len(samples[name]) == 0 {
			t.Errorf("%s has no sample: say in error.go what it means, and put it into samples", name)
		}
	}
	for name, list := range samples {
		if !found[name] {
			t.Errorf("there is no %s any more", name)
		}
		for _, s := range list {
			kind := reflect.TypeOf(s.err)
			if kind.Kind() == reflect.Pointer && !strings.Contains(name, ".Err") || kind.Kind() == reflect.Pointer && name == "ups.Error" {
				if got := strings.TrimPrefix(kind.String(), "*"); got != name {
					t.Errorf("the sample of %s is a %s", name, got)
				}
			}
		}
	}
}

func receiver(method *ast.FuncDecl) string {
	kind := method.Recv.List[0].Type
	if pointer, ok := kind.(*ast.StarExpr); ok {
		kind = pointer.X
	}
	name, _ := kind.(*ast.Ident)
	if name == nil {
		return ""
	}
	return name.Name
}

// A package below the faces names no command and no flag in what a person reads.
func TestNothingBelowTheFacesNamesACommand(t *testing.T) {
	command := regexp.MustCompile(`upsauth (authorize|status|refresh|revoke|token|exec|api|company|app|vault|doctor|sandbox|demo|serve|invite|help)\b|(^|[^-a-z])--[a-z]{3,}`)
	variable := regexp.MustCompile(`UPSAUTH_`)
	walkFiles(t, func(pkg string, file *ast.File, set *token.FileSet) {
		ast.Inspect(file, func(n ast.Node) bool {
			literal, ok := n.(*ast.BasicLit)
			if !ok || literal.Kind != token.STRING {
				return true
			}
			text, err := strconv.Unquote(literal.Value)
			if err != nil {
				t.Fatal(err)
			}
			// The names of the variables themselves are the configuration's.
			if command.MatchString(text) || pkg != "config" && variable.MatchString(text) {
				t.Errorf("%s: %q is a face's to say", set.Position(literal.Pos()), text)
			}
			return true
		})
	})
}

func walkFiles(t *testing.T, visit func(pkg string, file *ast.File, set *token.FileSet)) {
	t.Helper()
	for _, dir := range below {
		paths, err := filepath.Glob(filepath.Join("..", filepath.FromSlash(dir), "*.go"))
		if err != nil || len(paths) == 0 {
			t.Fatalf("no files in %s: %v", dir, err)
		}
		for _, path := range paths {
			if strings.HasSuffix(path, "_test.go") {
				continue
			}
			source, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			set := token.NewFileSet()
			file, err := parser.ParseFile(set, path, source, 0)
			if err != nil {
				t.Fatal(err)
			}
			visit(file.Name.Name, file, set)
		}
	}
}

func TestClassesHaveNames(t *testing.T) {
	want := []string{"failed", "usage", "not-found", "authorize", "vault", "ups", "refused", "interrupted"}
	for i, name := range want {
		if got := Class(i).String(); got != name {
			t.Errorf("class %d is %q, want %q", i, got, name)
		}
	}
	if got := Class(99).String(); got != "failed" {
		t.Errorf("an unknown class is %q", got)
	}
}

func TestRemedyInAFacesWords(t *testing.T) {
	say := func(a Act) string { return "<" + string(a.Do) + ">" }
	a, b := Act{Do: "a"}, Act{Do: "b"}
	for _, test := range []struct {
		remedy           Remedy
		worded, unworded string
	}{
		{act("Restore it, or authorize again[: {}].", a), "Restore it, or authorize again: <a>.", "Restore it, or authorize again."},
		{act("As it was[ ({})], or anew[: {}]", a, b), "As it was (<a>), or anew: <b>", "As it was, or anew"},
		{act("Restore it, or [run: {}|authorize again].", a), "Restore it, or run: <a>.", "Restore it, or authorize again."},
		{act("[Run: {}|Repair it]", a), "Run: <a>", "Repair it"},
		{act("[{} shows all; ][{} makes one.]", a, b), "<a> shows all; <b> makes one.", ""},
		{act("See it, and {}. Then rest.", a), "See it, and <a>. Then rest.", "See it, and . Then rest."},
		{act("In [environments.NAME], set {}.", a), "In [environments.NAME], set <a>.", "In [environments.NAME], set ."},
		{sentence("Did you mean \"[{}]\"?"), "Did you mean \"[{}]\"?", "Did you mean \"[{}]\"?"},
	} {
		if got := test.remedy.Words(say); got != test.worded {
			t.Errorf("%q: %q, want %q", test.remedy.Text, got, test.worded)
		}
		if got := test.remedy.Words(func(Act) string { return "" }); got != test.unworded {
			t.Errorf("%q without words: %q, want %q", test.remedy.Text, got, test.unworded)
		}
	}
}

func TestSentence(t *testing.T) {
	for in, want := range map[string]string{"": "", "a b": "A b.", "ümit": "Ümit.", "Done.": "Done.", "why?": "Why?", "株": "株."} {
		if got := legible.Sentence(in); got != want {
			t.Errorf("legible.Sentence(%q) = %q", in, got)
		}
	}
}
