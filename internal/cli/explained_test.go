//go:build unix

package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/backup"
	"github.com/upsauth/upsauth/internal/company"
	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/invitation"
	"github.com/upsauth/upsauth/internal/keeper"
	"github.com/upsauth/upsauth/internal/loopback"
	"github.com/upsauth/upsauth/internal/safefile"
	"github.com/upsauth/upsauth/internal/session"
	"github.com/upsauth/upsauth/internal/signin"
	"github.com/upsauth/upsauth/internal/signin/pages"
	"github.com/upsauth/upsauth/internal/ups"
	"github.com/upsauth/upsauth/internal/vault"
	"github.com/upsauth/upsauth/internal/vault/agefile"
	"github.com/upsauth/upsauth/internal/vault/ledger"
	"github.com/upsauth/upsauth/internal/vault/postgres"
)

var updateExplained = flag.Bool("update-explained", false, "write testdata/explained.txt")

// Guards the words of a terminal: what each error says there, what to do about it, and
// its exit code. A face that has no commands is tested beside them, in explain.
func TestErrorsInATerminal(t *testing.T) {
	var (
		id    = grant.ID{Company: "Acme [{}] Corp", Application: "batch-suite", Environment: "cie"}
		other = grant.ID{Company: "Other", Application: "x", Environment: "production"}
		cause = errors.New("this is the cause")
		at    = time.Date(2026, 11, 21, 16, 5, 3, 0, time.UTC)
		apps  = []config.Registration{{Name: "a", Environment: "cie"}, {Name: "b", Environment: "production"}}
		list  []error
	)
	add := func(errs ...error) { list = append(list, errs...) }
	for kind := session.NoCompany; kind <= session.NoEnvironment; kind++ {
		e := session.NotFoundError{Kind: kind, Company: id.Company, Application: "mine", Environment: "cie", Has: []grant.ID{id, other}, Environments: []string{"cie", "lab"}, File: "/c/config.toml"}
		add(&e)
		more := e
		more.Near, more.Unused, more.Registered = "Acme", "nothing is kept here yet", apps
		add(&more, fmt.Errorf("the company: %w", &more))
	}
	add(&session.NotFoundError{Kind: session.NoRegistration}, grant.ErrNoGrant,
		&session.SeveralError{Grants: []grant.ID{id, other}}, &session.SeveralError{Name: "a", Applications: apps}, &session.SeveralError{Applications: apps},
		&session.SettingError{Variable: config.EnvClientID, Unclean: true, Err: cause}, &session.SettingError{Variable: config.EnvRedirectURI, Err: cause},
		&session.NameError{Err: cause}, &session.SecretMissingError{Application: "a", Environment: "cie"},
		&session.RedirectMissingError{Application: "a", Environment: "cie"}, &signin.CertificateError{Certificate: "c.pem", Key: "k.pem", Err: cause},
		&session.TwinError{Company: "Acme\u200b"}, &session.OtherSecretError{Application: "a", Environment: "cie"},
		&session.SecretGoneError{Application: "a", Environment: "cie", Vault: "file"}, &session.ClashError{One: id, Other: other},
		session.WithContact(&keeper.GoneError{ID: id, Why: "it expired"}, "Jane"), session.WithContact(cause, "Jane"),
		&session.PatienceError{ID: id, Waited: time.Minute},
		&keeper.GoneError{ID: id, Why: "it expired"}, &keeper.GoneError{ID: id, Why: "refused", Void: true},
		&keeper.ElsewhereError{ID: id, Path: "/t", Err: cause}, &keeper.LostError{ID: id, Err: cause},
		&keeper.ClientChangedError{ID: id, What: "client ID", Made: "a", Have: "b"},
		&keeper.PendingError{ID: id, Again: time.Minute, What: "HTTP 503"}, &keeper.PendingError{ID: id, Again: time.Minute, What: "HTTP 200", Kept: "/k"},
		&keeper.OtherUserError{ID: id, User: "jane", Expect: "joe"}, &keeper.DeclinedError{Code: "access_denied"}, &keeper.DeclinedError{Code: "x", Description: "y"},
		&keeper.AwaitedError{Err: &keeper.DeclinedError{Code: "access_denied"}}, &signin.NobodyError{Waited: time.Minute}, &signin.NobodyError{Waited: time.Minute, Last: cause},
		&keeper.StaleError{ID: id, Why: keeper.StaleExpired}, &keeper.TooLongError{ID: id},
		&keeper.RetryTooSoonError{Least: time.Minute}, &keeper.TooShortError{Asked: time.Hour, Lifetime: time.Minute},
		&keeper.SavedError{Err: context.Canceled}, context.Canceled, context.DeadlineExceeded,
		&keeper.UnreadError{Path: "/k", Err: &ups.Error{Kind: ups.Unusable, Endpoint: ups.RefreshEndpoint, Status: 200}},
		&vault.MissingError{ID: id, Home: "file"}, &vault.MissingError{ID: id, Home: "keychain"},
		&vault.DamagedError{Path: "/r", Cause: "cut"}, &vault.DamagedError{Path: "/r", Cause: "cut", Journal: true}, fmt.Errorf("it: %w", &vault.DamagedError{Path: "/r", Cause: "cut"}),
		&vault.FileError{What: "a record", Path: "/r", Err: cause}, &vault.NewerError{Path: "/r", Version: 9}, &vault.JournalKeyError{ID: id},
		&vault.LoginBusyError{Company: "Acme", PID: 8}, &vault.LockError{Of: "Acme", Err: cause}, &vault.LockError{Of: "Acme", Err: syscall.ENOSPC}, &vault.LockError{Of: "Acme", Err: syscall.ENOLCK}, &vault.LockError{Of: "Acme", Err: syscall.EACCES},
		&safefile.KindError{Kind: "a directory"}, &config.Error{Path: "/c", Err: &safefile.KindError{Kind: "a named pipe"}},
		&safefile.WriteError{What: "the journal can't be written", Err: syscall.EPERM}, &safefile.WriteError{What: "the journal can't be written", Err: syscall.EISDIR},
		&vault.RehearsalError{Dir: "/s", Step: "no lock can be taken", Err: cause}, &vault.LeftError{ID: id, Err: cause}, &vault.LeftError{ID: id, Err: &vault.HomeError{Home: "file", What: "Locked.", Advice: "Unlock it."}},
		&vault.NothingThereError{ID: id, Home: "keychain"}, &vault.TakenError{ID: id}, &vault.PresentError{Where: "under the name Acme"},
		&vault.HomeError{Home: "file", What: "Locked.", Advice: "Unlock it."}, &vault.HomeError{Home: "file", What: "Locked.", Err: context.Canceled}, &vault.HomeError{Home: "file", What: "Late.", TimedOut: true},
		&fs.PathError{Op: "write", Path: "/s/j", Err: syscall.ENOSPC}, &fs.PathError{Op: "write", Path: "/dev/stdout", Err: syscall.ENOSPC}, &fs.PathError{Op: "open", Path: "/s/j", Err: syscall.ENOENT},
		&outputError{&fs.PathError{Op: "write", Path: "/e", Err: syscall.ENOSPC}}, &outputError{cause}, &config.Error{Path: "/c", Err: syscall.ENOSPC}, &config.Error{Path: "/c", Err: cause},
		&loopback.PortError{Port: 8400, Addr: "127.0.0.1", Owner: "nc (process 8)"}, fmt.Errorf("it: %w", &loopback.PortError{Port: 8400, Addr: "::1"}), &loopback.BindError{Err: cause},
		backup.ErrNeedIdentity, backup.ErrOtherIdentity, fmt.Errorf("/x: %w", backup.ErrWrongPassphrase), backup.ErrDamaged,
		&ups.SettingError{Variable: "HTTPS_PROXY", Problem: "can't be used", Remedy: "Unset it."},
		&session.NoPublicURLError{}, &session.PublicRedirectError{Application: "mine", Environment: "cie", Proposed: "https://auth.example/callback"},
		&session.PublicRedirectError{Application: "mine", Environment: "cie", Has: "https://else.example/cb", Proposed: "https://auth.example/callback", Unregistered: true},
		&session.PublicRedirectError{Application: "mine", Environment: "sandbox", Proposed: "http://localhost:8489/callback", Unregistered: true},
		&session.PublicURLError{URL: "https://auth.example", Err: cause}, &session.PublicURLError{URL: "https://auth.example", Status: 502},
		&session.ReturnURLError{URL: "https://else.example/"}, &session.NearNameError{Near: session.NearName{Name: "Acme Crop", Known: "Acme Corp"}},
		&session.HeldError{Invited: waiting("jane")}, &session.NotHeldError{Invited: invited(invitation.Withdrawn)}, &session.HeldGoneError{Invited: invited(invitation.Withdrawn)},
		&invitation.OverError{Invitation: invited(invitation.Expired).Invitation}, &invitation.OverError{Invitation: invited(invitation.Completed).Invitation},
		&invitation.LastingError{Lasts: time.Hour}, &invitation.DraftError{Err: cause}, &invitation.SeveralError{ID: "ab", Count: 2}, invitation.ErrUnknown,
		&invitation.FileError{Path: "/i.json", Err: cause, Damaged: true}, &invitation.FileError{Path: "/i.json", Err: cause}, &invitation.ConflictError{Row: invitation.Row{Place: "/i.json"}},
		&vault.HomeError{Home: "file", What: "The sign-in that waits to be confirmed under held/x in the file vault is damaged.", Damaged: true, Advice: "Refuse the sign-in[: {}]. Then invite the customer again.", Do: []vault.Act{vault.RefuseHeld}},
		&ledger.ClaimedError{Claim: ledger.Claim{Host: "0a1b", At: at}, Name: "web-2", Until: at.Add(10 * time.Minute), ID: id}, &ledger.ClaimedError{Claim: ledger.Claim{Host: "0a1b", At: at}},
		&ledger.FrozenError{Epoch: 2, Waiting: []string{"web-1", "web-2"}}, &ledger.FrozenError{Epoch: 2, Answer: true},
		&ledger.HostError{Host: "0a1b", Name: "web-2", Reason: ledger.Stranger}, &ledger.HostError{Host: "0a1b", Name: "web-2", Reason: ledger.RemovedHost}, &ledger.HostError{Host: "0a1b", Name: "web-2", Reason: ledger.Alone},
		&ledger.ConflictError{}, &ledger.ConflictError{WentBack: true}, &ledger.ConflictError{Missing: true},
		&ledger.SettledError{Claim: ledger.Claim{Outcome: ledger.Unsent}}, &ledger.LateError{After: 7 * time.Second},
		postgres.State{Server: 150000, Encoding: "UTF8", Database: "shop", Role: "web [{}]"}.Check(), postgres.State{Server: 150000, Encoding: "UTF8", Database: "shop", Role: "owner", MayCreate: true}.Check(),
		postgres.State{Server: 150000, Encoding: "UTF8", Database: "shop", Role: "upsauth", Owner: "owner", Schema: true, Version: 9}.Check(),
		postgres.State{Server: 150000, Encoding: "UTF8", Database: "shop", Role: "upsauth", Owner: "owner", Schema: true, Version: 1, Lacking: []string{"SELECT on meta", "UPDATE on meta"}}.Check(),
		postgres.State{Server: 150000, Encoding: "UTF8", Database: "shop", Role: "upsauth", Owner: "owner", Schema: true, Missing: []string{"outbox"}}.Check(), postgres.State{Server: 120004}.Check(),
		postgres.Settings{URL: "postgres://u:pw@localhost/d"}.Check(), &postgres.Error{Reason: postgres.Away, What: "the database at 127.0.0.1:5432 can't be reached: connection refused", Advice: "look whether it runs, and whether this machine reaches it"},
		&postgres.UnknownError{What: "the connection broke off", Err: cause}, &session.NoDatabaseError{}, &session.HostNotFoundError{Name: "web-2"}, &session.HostNotFoundError{},
		&session.SeveralHostsError{Name: "web-2", Hosts: []session.Host{{Host: ledger.Host{ID: "0a1b", Name: "web-2"}}, {Host: ledger.Host{ID: "0c1d", Name: "web-2"}}}},
		usagef("give --x"), &notFoundError{what: "nothing", advice: "Do."}, &advisedError{cause, "Do."}, &statusError{code: 9, what: "it"}, cause)
	for _, c := range []loopback.Place{
		{RedirectURI: "https://login.example/cb"}, {RedirectURI: "https://localhost:0/cb"},
		{RedirectURI: "http://localhost:0/cb", Listen: "127.0.0.1:8400"},
	} {
		_, err := loopback.Listen(t.Context(), c)
		add(err)
	}
	for _, endpoint := range []ups.Endpoint{ups.RefreshEndpoint, ups.TokenEndpoint, ups.APIEndpoint} {
		for _, kind := range []ups.Kind{
			ups.RefreshTokenRefused, ups.CodeRefused, ups.ClientRefused, ups.HeaderMissing, ups.RedirectURIRefused, ups.Blocked, ups.RateLimited, ups.Down,
			ups.Unreachable, ups.Lost, ups.Unusable, ups.AccessTokenRefused, ups.ProductMissing, ups.AccountMissing, ups.UserLocked, ups.RequestRefused, ups.Unknown,
		} {
			add(&ups.Error{Endpoint: endpoint, Kind: kind, Status: 400, Code: "10400", Message: "said"})
		}
	}
	add(&ups.Error{Endpoint: ups.RefreshEndpoint, Kind: ups.RateLimited, Status: 429, RetryAfter: 9 * time.Second},
		&ups.Error{Endpoint: ups.APIEndpoint, Kind: ups.AccountMissing, Status: 400, User: "jane", Account: "A1"})
	for _, distrust := range []ups.Distrust{ups.UnknownAuthority, ups.Expired, ups.NotYetValid, ups.WrongName, ups.NoTLS} {
		add(&ups.Error{Endpoint: ups.TokenEndpoint, Kind: ups.Unreachable, Message: "m", Distrust: distrust})
	}
	for _, status := range []int{0, 403, 407, 502} {
		add(&ups.Error{Endpoint: ups.RefreshEndpoint, Kind: ups.Unreachable, Message: "m", Err: &ups.ProxyError{Proxy: "p:1", Host: "h:443", Status: status, Err: cause}})
	}
	add(&ups.Error{Endpoint: ups.RefreshEndpoint, Kind: ups.Unreachable, Message: "m", Err: &ups.ProxyError{Proxy: "p:1", Host: "h:443", Status: 407, Schemes: []string{"NTLM"}}})

	var got strings.Builder
	for _, err := range list {
		fmt.Fprintf(&got, "%d %s\n", exitCode(err), message(err))
		if text := advice(err); text != "" {
			fmt.Fprintf(&got, "  %s\n", text)
		}
	}
	const path = "testdata/explained.txt"
	if *updateExplained {
		if err := os.WriteFile(path, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	gotLines, wantLines := strings.Split(got.String(), "\n"), strings.Split(string(want), "\n")
	for i := range max(len(gotLines), len(wantLines)) {
		if i >= len(gotLines) || i >= len(wantLines) || gotLines[i] != wantLines[i] {
			t.Fatalf("line %d differs from %s:\n%s", i+1, path, strings.Join(gotLines[min(i, len(gotLines)):min(i+2, len(gotLines))], "\n"))
		}
	}
}

// What a home advises has a command line's words in a terminal.
func TestAdviceOfHomesInATerminal(t *testing.T) {
	const elsewhere = "use the file vault for new authorizations[: {}]"
	for _, test := range []struct {
		advice string
		do     []vault.Act
		want   string
	}{
		{"The company must be authorized again[: {}].", []vault.Act{vault.Authorize}, "The company must be authorized again: upsauth authorize."},
		{"Enter it again[: {}].", []vault.Act{vault.SetSecret}, "Enter it again: upsauth app set-secret."},
		{"See that the file answers, then {}.", []vault.Act{vault.TryAgain}, "See that the file answers, then run the command again."},
		{"Unlock it and try again, or " + elsewhere + ".", []vault.Act{vault.UseFileVault},
			"Unlock it and try again, or use the file vault for new authorizations: UPSAUTH_VAULT=file with UPSAUTH_PASSPHRASE or UPSAUTH_IDENTITY (upsauth help environment)."},
		{"Start one[ ({})], or " + elsewhere + ".", []vault.Act{vault.StartKeychain, vault.UseFileVault},
			"Start one (gnome-keyring-daemon --components=secrets, KWallet, KeePassXC), or use the file vault for new authorizations: UPSAUTH_VAULT=file with UPSAUTH_PASSPHRASE or UPSAUTH_IDENTITY (upsauth help environment)."},
		{"Unlock the keychain and try again, or use the file vault[: {}].", []vault.Act{vault.TryFileVault}, "Unlock the keychain and try again, or use the file vault: UPSAUTH_VAULT=file."},
		{"[{}]", []vault.Act{vault.GivePassphrase}, "Set UPSAUTH_PASSPHRASE, or name a file in UPSAUTH_PASSPHRASE_FILE."},
		{"Give the passphrase of that identity[: {}].", []vault.Act{vault.OtherPassphrase}, "Give the passphrase of that identity: UPSAUTH_PASSPHRASE, UPSAUTH_PASSPHRASE_FILE, or at the question."},
		{"Name it[: {}]. Where", []vault.Act{vault.NameIdentity}, "Name it: UPSAUTH_IDENTITY=FILE, or identity = \"FILE\" in config.toml. Where"},
		{"Name the right identity file[ in {}].", []vault.Act{vault.OtherIdentity}, "Name the right identity file in UPSAUTH_IDENTITY, or in config.toml as identity."},
		{"[{}]", []vault.Act{vault.OpenByPassphrase}, "This vault opens with a passphrase: unset UPSAUTH_IDENTITY, and remove identity from config.toml. Or name the right identity file there."},
		{"[{}]", []vault.Act{vault.ReadableIdentity}, "Name an age identity file in UPSAUTH_IDENTITY (age-keygen -o FILE makes one), or name none and set UPSAUTH_PASSPHRASE. Or use the keychain: UPSAUTH_VAULT=keychain."},
		{"[{}]", []vault.Act{vault.MakeFileVault}, "Set UPSAUTH_PASSPHRASE or UPSAUTH_PASSPHRASE_FILE. Or make an identity file with age-keygen -o FILE and name it: UPSAUTH_IDENTITY=FILE, or identity = \"FILE\" in config.toml. Or use the keychain: UPSAUTH_VAULT=keychain."},
	} {
		if got := advice(&vault.HomeError{Home: "file", What: "Locked.", Advice: test.advice, Do: test.do}); got != test.want {
			t.Errorf("%q\nwant %q", got, test.want)
		}
	}
	for _, test := range []struct {
		err  error
		want string
	}{
		{&vault.PresentError{Where: "with a damaged record", Do: vault.Repair},
			"it was not imported: its Token Vault Key is here already, with a damaged record; first run: upsauth vault check --repair"},
		{&vault.PresentError{Where: "in the keychain and without a record", Do: vault.Check},
			"it was not imported: its Token Vault Key is here already, in the keychain and without a record; look with: upsauth vault check"},
		{&company.FileError{Path: "/c", Err: errors.New("no JSON"), Damaged: true}, "/c can't be used: no JSON; upsauth company add makes a new one"},
		{&vault.HomeError{What: fmt.Sprintf("The file vault has secrets, and no identity to open them: %s, and there is no /i.", agefile.NoIdentityNamed)},
			"The file vault has secrets, and no identity to open them: UPSAUTH_IDENTITY is not set, and there is no /i."},
	} {
		if got := message(test.err); got != test.want {
			t.Errorf("%q\nwant %q", got, test.want)
		}
	}
}

// The browser's last page names no command, whatever went wrong.
func TestLastPageNamesNoCommand(t *testing.T) {
	id := grant.ID{Company: "Acme", Application: "batch-suite", Environment: "cie"}
	page := pages.Done(id, grant.Grant{}, &ups.Error{Endpoint: ups.TokenEndpoint, Kind: ups.ClientRefused, Status: 401, Code: "10401", Message: "Invalid"})
	text := strings.Join(page.Text, " ") + " " + page.Next
	if strings.Contains(text, "upsauth") || strings.Contains(text, "--") || !strings.Contains(page.Next, "developer portal") {
		t.Errorf("the page says %q", text)
	}
}

// invited is an invitation that has ended, of a sign-in that was held.
// waiting is an invitation whose user waits for the sender.
func waiting(user string) session.Invited {
	i := invited(invitation.Withdrawn)
	i.End, i.SignIn = nil, &invitation.SignIn{Visit: invitation.Visit{User: user}, Held: true}
	return i
}

func invited(why invitation.Why) session.Invited {
	return session.Invited{Invitation: invitation.Invitation{
		ID: "abcdefghij", Company: "Nord AG", Application: "mine", Environment: "cie",
		SignIn: &invitation.SignIn{Home: "keychain", Held: true}, End: &invitation.End{Why: why},
	}}
}
