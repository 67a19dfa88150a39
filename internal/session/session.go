// Package session is what every face of upsauth does with companies, applications
// and grants: it opens the vault, finds what is meant, adds, moves and removes. It
// prints nothing and knows no flag: what went wrong is a typed error, and what
// should be known although it went well is a Notice.
package session

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/upsauth/upsauth/internal/company"
	companyfiles "github.com/upsauth/upsauth/internal/company/files"
	companypostgres "github.com/upsauth/upsauth/internal/company/postgres"
	"github.com/upsauth/upsauth/internal/config"
	configpostgres "github.com/upsauth/upsauth/internal/config/postgres"
	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/invitation"
	invitationfiles "github.com/upsauth/upsauth/internal/invitation/files"
	invitationpostgres "github.com/upsauth/upsauth/internal/invitation/postgres"
	"github.com/upsauth/upsauth/internal/keeper"
	"github.com/upsauth/upsauth/internal/lately"
	"github.com/upsauth/upsauth/internal/legible"
	"github.com/upsauth/upsauth/internal/safefile"
	"github.com/upsauth/upsauth/internal/vault"
	"github.com/upsauth/upsauth/internal/vault/agefile"
	"github.com/upsauth/upsauth/internal/vault/files"
	"github.com/upsauth/upsauth/internal/vault/keychain"
	"github.com/upsauth/upsauth/internal/vault/ledger"
	"github.com/upsauth/upsauth/internal/vault/postgres"
	"github.com/upsauth/upsauth/internal/vault/shared"
)

// Options are what a session works with of the world outside.
type Options struct {
	Getenv func(string) string
	Now    func() time.Time
	// Transport carries the requests to UPS, UserAgent is what they call themselves.
	Transport http.RoundTripper
	UserAgent string
	Keychain  keychain.Ring
	// KeychainDeadline bounds a call to the keychain. Waiting, where set, is called
	// when one takes longer than a moment: a person may be looking at a question.
	KeychainDeadline time.Duration
	Waiting          func()
	// Passphrase opens the file vault where no identity file does, or the identity
	// file that is named. Fresh says that it is chosen now.
	Passphrase func(ctx context.Context, identity string, fresh bool) (string, error)
	// Retry, where set, reports whether a passphrase that does not open the named file
	// may be asked for once more.
	Retry func(path string) bool
	// WorkFactor is the cost of guessing passphrases, as a power of two; zero is
	// what is usual.
	WorkFactor int
	// Wait waits for a moment or for the context, whichever is first; nil waits by
	// the system's clock.
	Wait func(context.Context, time.Duration) error
	// LockPatience is how long a grant's lock is waited for; zero is for as long as
	// the context lasts.
	LockPatience time.Duration
	// Remember keeps in memory what is read of all companies together, for a service that
	// lists them again and again.
	Remember bool
	// Lately, where set, is what an earlier session has read of the database that hosts share.
	Lately *lately.Memory
	// Notice, where set, is told what should be known by whoever asked, with the
	// context that they asked with. It may be called by several goroutines at once.
	Notice func(context.Context, Notice)
}

// Session is the rooms of one configuration and state directory. It may be used by
// several goroutines at once.
type Session struct {
	Config    config.Config
	Places    *safefile.Places // the rule for who else may change files
	Vault     *vault.Vault
	Disk      *files.Store  // what the vault has on this machine
	Shared    *shared.Store // what it has in a database, nil where no hosts share it
	Files     *agefile.Home // the vault's home of files
	Ring      *keychain.Home
	Keeper    *keeper.Keeper
	Companies *company.Book // what is known of companies beside their grants
	// Invitations are those of customers who sign in elsewhere.
	Invitations *invitation.Book

	options   Options
	local     *files.Store // what this machine has of its own, also where the vault is shared
	endMemory func()       // ends what is in memory
	register  Register
	connects  atomic.Bool // the settings about proxies and certificates are good
	// sealing is the key that seals what browsers keep, as it was read last.
	sealing atomic.Pointer[sealing]

	// lately is what was read of the database that hosts share, nil where none do.
	lately     *lately.Memory
	identified *lately.Of[struct{}, *company.Identified]

	databaseMu sync.Mutex
	database   *postgres.DB // what hosts share, nil before it is needed

	sandboxOnce sync.Once
	sandbox     *http.Server
	sandboxErr  error
}

// Open reads the configuration. No home of the vault is opened before it is needed.
// The caller closes the session.
func Open(o Options) (*Session, error) {
	loaded, err := config.Load(o.Getenv)
	if err != nil {
		return nil, err
	}
	places, err := config.FindPlaces(o.Getenv)
	if err != nil {
		return nil, err
	}
	if o.Wait == nil {
		o.Wait = Wait
	}
	s := &Session{Config: loaded, Places: places, options: o}
	s.Files = agefile.New(filepath.Join(loaded.Paths.State, "vault"), loaded.Identity)
	s.Files.Places = places
	s.Files.Passphrase = func(ctx context.Context, fresh bool) (string, error) {
		return o.Passphrase(ctx, loaded.Identity, fresh)
	}
	s.Files.Retry = o.Retry
	s.Files.WorkFactor = o.WorkFactor
	s.Files.Shared = loaded.Vault == config.HomeShared
	s.Ring = keychain.New(o.Keychain, keychain.Limit(runtime.GOOS), o.KeychainDeadline, o.Waiting)
	s.Disk = files.New(loaded.Paths.State, vault.Homes{s.Ring, s.Files})
	s.Disk.Places, s.Disk.Elsewhere = places, otherPlaces(o.Getenv, loaded.Paths)
	s.local = s.Disk
	if loaded.Vault == config.HomeShared {
		if err := s.share(); err != nil {
			return nil, err
		}
	} else {
		s.keepHere()
	}
	s.Keeper = &keeper.Keeper{
		Vault: s.Vault, Client: s.ClientFor, Now: o.Now, RetryUnknownAfter: loaded.RetryUnknownAfter, Wait: o.Wait,
		Happened: s.happened, Notice: s.keeperSays,
	}
	if o.LockPatience > 0 {
		s.Keeper.Vault = patientVault{s.Vault, o.LockPatience}
	}
	return s, nil
}

// keepHere has everything in this machine's files and homes.
func (s *Session) keepHere() {
	state := s.Config.Paths.State
	s.Disk.HasLeft = s.hasLeftShared
	s.Vault = vault.New(s.Disk)
	companies := companyfiles.New(filepath.Join(state, "companies"), s.Places)
	s.Companies = company.Open(companies)
	invitations := invitationfiles.New(filepath.Join(state, "invitations"), s.Places)
	s.Invitations = invitation.Open(invitations)
	if s.options.Remember {
		s.Disk.Remember()
		companies.Remember()
		invitations.Remember()
	}
	s.endMemory = func() { s.Disk.EndMemory(); companies.EndMemory(); invitations.EndMemory() }
	s.register = config.NewRegister(s.Config.Paths.Config)
}

// share has everything in the database that hosts share, and what this host needs for it on
// its disk. The team's identity is that of the file vault.
func (s *Session) share() error {
	db, err := s.Database()
	if err != nil {
		return err
	}
	c := s.Config.Shared
	s.Shared = shared.New(shared.Options{
		DB: db, Dir: s.sharedDir(), Keys: s.Files.Keys, Host: c.Host,
		Terms:     ledger.Terms{TakeOverAfter: c.TakeOverAfter, Never: c.Never},
		Elsewhere: s.Disk.Elsewhere, Places: s.Places, HasLeft: s.hasLeftLocal, Machine: shared.MachineID, Now: s.options.Now, Elapsed: shared.Elapsed, Wait: s.options.Wait,
	})
	s.Shared.Prepare()
	s.Disk = s.Shared.Disk()
	s.Vault = vault.New(s.Shared)
	if s.lately = s.options.Lately; s.lately == nil {
		s.lately = lately.New(lately.Options{Dir: s.sharedDir(), Now: s.options.Now, Away: shared.IsAway})
	}
	s.identified = lately.Keep[struct{}, *company.Identified](s.lately, "companies")
	s.Companies = company.Open(toldCompanies{companypostgres.New(db), s.identified.Changed})
	s.Invitations = invitation.Open(invitationpostgres.New(db, s.Shared.Code))
	s.register = keptRegister{configpostgres.New(db), lately.Keep[struct{}, config.Applications](s.lately, "applications")}
	s.endMemory = func() {}
	return nil
}

// sharedDir is where this host has what belongs to the shared vault.
func (s *Session) sharedDir() string { return filepath.Join(s.Config.Paths.State, SharedDir) }

// SharedDir is the directory in a state directory that has what belongs to a shared vault.
const SharedDir = "shared"

// Now is the session's clock.
func (s *Session) Now() time.Time { return s.options.Now() }

// Getenv is the session's environment variables.
func (s *Session) Getenv(name string) string { return s.options.Getenv(name) }

// EndMemory empties the memory that Remember of the options began, for good. The
// session may be in use.
func (s *Session) EndMemory() { s.endMemory() }

// Close ends what the session has begun.
func (s *Session) Close() {
	if s.sandbox != nil {
		_ = s.sandbox.Close()
	}
	s.closeDatabase()
}

// otherPlaces are this user's directories outside of the state directory, for an
// answer of UPS's that can't be sealed there: what survives a restart of the
// machine first. They are made when they are needed.
func otherPlaces(getenv func(string) string, paths config.Paths) []string {
	places := []string{filepath.Join(paths.Config, "answers")}
	if cache, err := os.UserCacheDir(); err == nil {
		places = append(places, filepath.Join(cache, "upsauth", "answers"))
	}
	own := "upsauth-answers"
	if uid := os.Getuid(); uid >= 0 { // temporary directories are everybody's, but on Windows
		own = fmt.Sprintf("upsauth-answers-%d", uid)
		places = append(places, filepath.Join("/var/tmp", own))
	}
	places = append(places, filepath.Join(os.TempDir(), own))
	if run := getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(run) {
		places = append(places, filepath.Join(run, own))
	}
	if runtime.GOOS == "linux" {
		places = append(places, filepath.Join("/dev/shm", own))
	}
	return places
}

// Wait waits by the system's clock for a moment or for the context, whichever is
// first.
func Wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// happened notes in a company's history what became of its grants, also where the
// request was canceled meanwhile: it has happened.
func (s *Session) happened(ctx context.Context, e grant.Event) {
	ctx = context.WithoutCancel(ctx)
	if err := s.Companies.Note(ctx, e); err != nil {
		s.step(ctx, err.Error())
	}
	if e.What == grant.EventAuthorized || e.What == grant.EventImported {
		if err := s.settled(ctx, e.ID); err != nil {
			s.step(ctx, err.Error())
		}
	}
}

// keeperSays passes on what the keeper tells whoever asked.
func (s *Session) keeperSays(ctx context.Context, n keeper.Notice) {
	kind := Warning
	if n.Level == keeper.Detail {
		kind = Step
	}
	s.notice(ctx, Notice{Kind: kind, ID: n.ID, Text: n.Text, About: n.About, Err: n.Err})
}

// PatienceError says that another process has a grant's lock for too long.
type PatienceError struct {
	ID     grant.ID
	Waited time.Duration
}

func (e *PatienceError) Error() string {
	return fmt.Sprintf("another process has held the lock of %s for longer than %s", e.ID, legible.Duration(e.Waited))
}

// patientVault waits for locks, and not for ever: whoever has one for longer hangs,
// and a service has nobody who ends it.
type patientVault struct {
	keeper.Vault
	patience time.Duration
}

func (p patientVault) Lock(ctx context.Context, id grant.ID) (unlock func(), err error) {
	waiting, cancel := context.WithTimeout(ctx, p.patience)
	defer cancel()
	unlock, err = p.Vault.Lock(waiting, id)
	if err != nil && ctx.Err() == nil && waiting.Err() != nil {
		return nil, &PatienceError{ID: id, Waited: p.patience}
	}
	return unlock, err
}

// Open makes the homes ready that hold the secrets of grants and their journals'
// keys, and with spend those of their applications.
func (s *Session) Open(ctx context.Context, spend bool, records ...grant.Record) error {
	homes := HomesOf(records, nil)
	var interrupted []grant.ID
	for _, r := range records {
		if r.Interrupted {
			interrupted = append(interrupted, r.ID)
		}
	}
	more, err := s.Vault.HomesOf(ctx, interrupted...)
	if err != nil {
		return err
	}
	homes = append(homes, more...)
	if spend {
		applications, err := s.Applications(ctx)
		if err != nil {
			return err
		}
		for _, r := range records {
			homes = append(homes, HomesOf(nil, applications.Find(r.Application, r.Environment))...)
		}
	}
	return s.OpenHomes(ctx, homes)
}

// OpenHomes makes homes ready before any lock is taken, because it may ask for a
// passphrase and compute for a while. Whoever needs a home reports what is wrong
// with it.
func (s *Session) OpenHomes(ctx context.Context, homes []string) error {
	slices.Sort(homes)
	for _, home := range slices.Compact(homes) {
		if err := s.Vault.Open(ctx, home); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			s.step(ctx, err.Error())
		}
	}
	return nil
}

// HomesOf are the homes that have the secrets of some grants and applications.
func HomesOf(records []grant.Record, applications []config.Registration) []string {
	var homes []string
	for _, r := range records {
		homes = append(homes, r.Home)
	}
	for _, r := range applications {
		homes = append(homes, r.Home)
	}
	slices.Sort(homes)
	return slices.Compact(homes)
}

// HomesInUse are HomesOf and the one that gets what is new.
func (s *Session) HomesInUse(records []grant.Record, applications []config.Registration) []string {
	homes := append(HomesOf(records, applications), s.Config.Vault)
	slices.Sort(homes)
	return slices.Compact(homes)
}

// Prove shows that a home takes what is new: it is made where there is none yet, and a
// secret is put there, read back and removed again.
func (s *Session) Prove(ctx context.Context, home string) error {
	if err := s.Vault.Make(ctx, home); err != nil {
		return err
	}
	return s.Probe(ctx, home)
}

// Usable does the same as Prove for a home that must not be made or opened yet.
func (s *Session) Usable(ctx context.Context, home string) error {
	if home != s.Files.Name() {
		return s.Probe(ctx, home)
	}
	if made, err := s.Files.Made(); err != nil || !made {
		return err
	}
	return s.Files.Ready()
}

// Probe shows that a home takes a secret, gives it back and forgets it.
func (s *Session) Probe(ctx context.Context, home string) error {
	const roomy = 2500 // bytes, as a grant's
	return s.Disk.Probe(ctx, s.Vault, home, roomy)
}

// Probes returns the probes in a listing that lie in homes although nobody is at work
// with them, as vault.Probes does.
func (s *Session) Probes(ctx context.Context, l vault.Listing) (ofGrants, ofNobody []grant.Place, err error) {
	works, _ := s.Disk.UnfinishedWork() // what can't be read is told by whoever finishes it
	return s.Vault.Probes(ctx, l, func(key string) bool {
		return slices.ContainsFunc(works, func(w files.Work) bool { return w.Kind == files.WorkProbe && w.Account == key })
	})
}

// OpenedBy says what opens a home, behind a sentence about it.
func (s *Session) OpenedBy(home string) string {
	switch {
	case home != s.Files.Name() && home != shared.HomeName:
		return ""
	case s.Config.Identity != "":
		return "; the identity in " + s.Config.Identity + " opens it"
	}
	return "; a passphrase opens it"
}

// OpensWith are the files that decide how the vault's home of files is opened, whether
// they are there or not: once one of them changes, a session that has opened the home
// may no longer fit.
func (s *Session) OpensWith() []string {
	paths := []string{s.Files.Opener()}
	if file := s.options.Getenv(config.EnvPassphraseFile); file != "" {
		paths = append(paths, file)
	}
	return paths
}
