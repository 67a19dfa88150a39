package explain

import (
	"errors"
	"fmt"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/keeper"
	"github.com/upsauth/upsauth/internal/legible"
	"github.com/upsauth/upsauth/internal/session"
	"github.com/upsauth/upsauth/internal/vault"
	"github.com/upsauth/upsauth/internal/vault/ledger"
	"github.com/upsauth/upsauth/internal/vault/postgres"
	"github.com/upsauth/upsauth/internal/vault/shared"
)

// isShared reports whether an error is about a vault that several hosts share.
func isShared(err error) bool {
	return is[*postgres.Error](err) || is[*postgres.UnknownError](err) || is[*session.NoDatabaseError](err) ||
		is[*session.HostNotFoundError](err) || is[*session.SeveralHostsError](err) ||
		is[*ledger.ClaimedError](err) || is[*ledger.FrozenError](err) || is[*ledger.HostError](err) ||
		is[*ledger.ConflictError](err) || is[*ledger.SettledError](err) || is[*ledger.LateError](err) ||
		is[*keeper.ContestedError](err) || errors.Is(err, grant.ErrOvertaken) ||
		is[*shared.AwaitedError](err) || is[*shared.RolledBackError](err) || is[*shared.VaultError](err) ||
		is[*shared.IdentityError](err) || is[*shared.RekeyError](err) || is[*shared.SameIdentityError](err) || is[*shared.RowError](err) ||
		is[*shared.HostFileError](err)
}

func classOfShared(err error) Class {
	conflict := new(ledger.ConflictError)
	switch {
	case is[*ledger.ClaimedError](err), is[*ledger.FrozenError](err), is[*ledger.LateError](err),
		is[*keeper.ContestedError](err), is[*shared.AwaitedError](err), errors.Is(err, grant.ErrOvertaken):
		return UPS // not for now
	case is[*shared.RolledBackError](err):
		return Authorize
	case is[*shared.SameIdentityError](err):
		return Failed
	case errors.As(err, &conflict) && conflict.Missing:
		return Authorize
	case errors.As(err, &conflict) && conflict.WentBack:
		return UPS // until all hosts have answered the roll call
	case is[*ledger.ConflictError](err), is[*ledger.SettledError](err), is[*shared.HostFileError](err):
		return Failed
	}
	return Vault
}

// ofShared is what to do about an error of a vault that several hosts share.
func ofShared(err error) []Remedy {
	var (
		database *postgres.Error
		claimed  *ledger.ClaimedError
		frozen   *ledger.FrozenError
		host     *ledger.HostError
		conflict *ledger.ConflictError
		self     *shared.HostFileError
	)
	again := Act{Do: TryAgain}
	switch {
	case is[*keeper.ContestedError](err), is[*shared.AwaitedError](err):
		return []Remedy{act("Wait for the host that has asked UPS: it delivers its answer as soon as it reaches the database.[ {} shows all hosts.] If it will never come, authorize the company again[: {}].", Act{Do: ListHosts}, Act{Do: AuthorizeAny})}
	case is[*shared.RolledBackError](err):
		return []Remedy{act("Was an older backup of the database put back? Put back a newer one, or authorize the company again[: {}].", Act{Do: AuthorizeAny})}
	case is[*shared.VaultError](err):
		return []Remedy{sentence("Use the database that this machine has used before, or another state directory for the other one.")}
	case is[*shared.IdentityError](err):
		return []Remedy{act("All hosts need the same identity file, or the same file that a passphrase protects. Name it[: {}].", Act{Do: Do(vault.NameIdentity)})}
	case is[*shared.RekeyError](err):
		return []Remedy{act("Finish it with that identity, on any host that has both[: {}].", Act{Do: Rekey})}
	case is[*shared.SameIdentityError](err):
		return []Remedy{sentence("Name the file of another identity.")}
	case errors.As(err, &self):
		return []Remedy{
			act("Delete the file[: {}]. This machine is a new host then, and delivers what it holds.", Act{Do: DeleteFile, Path: self.Path}),
			act("Afterwards, remove the host that it was[: {}].", Act{Do: RemoveHost}),
		}
	case is[*shared.RowError](err):
		return []Remedy{sentence("Look at who can write to the database, and put back a backup of it.")}
	case errors.Is(err, grant.ErrOvertaken) && !is[*ledger.ClaimedError](err) && !is[*ledger.FrozenError](err) && !is[*ledger.HostError](err):
		return []Remedy{act("Another host was faster. Look what it did, then {}.", again)}
	case errors.As(err, &claimed):
		return takingOver(claimed)
	case errors.As(err, &frozen) && frozen.Answer:
		return []Remedy{act("This host tells the database what it holds when it refreshes next[: {}].", Act{Do: Refresh})}
	case errors.As(err, &frozen):
		return []Remedy{
			sentence("Start the hosts that are awaited. Until all of them have answered, access tokens that are still valid can be used."),
			act("If a host will never come, remove the host[: {}]. If the hosts can't come now, wait for them no longer[: {}].", Act{Do: RemoveHost}, Act{Do: AcceptFailover}),
		}
	case errors.As(err, &host):
		return admitting(host)
	case errors.As(err, &conflict) && conflict.Missing:
		return []Remedy{act("Start a host that was removed or is off, if it may have the newer token. Otherwise authorize the company again[: {}].", Act{Do: AuthorizeAny})}
	case errors.As(err, &conflict) && conflict.WentBack:
		return []Remedy{act("Another host may have the newer token. See that all hosts run[ ({} shows them)], then {}.", Act{Do: ListHosts}, again)}
	case is[*ledger.ConflictError](err), is[*ledger.SettledError](err):
		return []Remedy{act("Another process was faster. Look what it did, then {}.", again)}
	case is[*ledger.LateError](err):
		return []Remedy{act("This machine or the database is too slow, or was suspended. Nothing is lost: {}.", again)}
	case errors.As(err, &database) && database.Advice == "":
		return nil
	case errors.As(err, &database):
		return []Remedy{adviceOfDatabase(database)}
	case is[*postgres.UnknownError](err):
		return []Remedy{act("Look whether the change is there. If it is not, {}.", again)}
	case is[*session.NoDatabaseError](err):
		return []Remedy{act("Name the database[: {}]. libpq's variables, such as PGHOST and PGSERVICE, do as well.", Act{Do: ConfigureDatabase})}
	case is[*session.SeveralHostsError](err):
		return []Remedy{sentence("Give the ID, or more letters of it.")}
	}
	unknown := new(session.HostNotFoundError)
	if errors.As(err, &unknown) && unknown.Name == "" {
		return []Remedy{act("A host is known from its first use of the shared vault on. If you mean another host, name it.[ {} shows all hosts.]", Act{Do: ListHosts})}
	}
	return []Remedy{act("[{} shows all hosts.]", Act{Do: ListHosts})}
}

// takingOver is what to do while another host may have an answer.
func takingOver(e *ledger.ClaimedError) []Remedy {
	wait := "Wait for that host: it delivers the answer as soon as it reaches the database."
	if !e.Until.IsZero() {
		wait += fmt.Sprintf(" At %s UTC, any host may ask UPS again.", e.Until.UTC().Format(time.TimeOnly))
	}
	return []Remedy{
		sentence(wait),
		act("If the answer will never come, refresh the tokens from here[: {}]. If that host has the answer after all, UPS may void the authorization.", Act{Do: TakeOver, ID: e.ID}),
	}
}

// admitting is what to do where a host may refresh no token.
func admitting(e *ledger.HostError) []Remedy {
	switch e.Reason {
	case ledger.Alone:
		return []Remedy{
			sentence("Is this a copy of the database that other hosts use? Then use another database: two copies void each other's authorizations."),
			act("If the database is the right one, accept this host[: {}].", Act{Do: AcceptHost}),
		}
	case ledger.RemovedHost:
		return []Remedy{act("The host still delivers what it holds. Refresh the tokens from another host.[ {} shows all hosts.] To use this machine again, give it a state directory that was never used.", Act{Do: ListHosts})}
	}
	return []Remedy{act("A host makes itself known when it uses the shared vault next: {}.[ {} shows all hosts.]", Act{Do: TryAgain}, Act{Do: ListHosts})}
}

// adviceOfDatabase is what a database's error knows best about itself.
func adviceOfDatabase(e *postgres.Error) Remedy {
	var acts []Act
	for _, do := range e.Do {
		acts = append(acts, Act{Do: Do(do), Role: e.Role})
	}
	return act(legible.Sentence(e.Advice), acts...)
}

// isMoved reports whether an error says where grants live that are not here. Where nobody can
// say that, its cause counts.
func isMoved(err error) bool {
	moved := new(vault.MovedError)
	return errors.As(err, &moved) && moved.Err == nil
}

// whereMoved is what to do about a grant that lives elsewhere.
func whereMoved(err error) []Remedy {
	moved := new(vault.MovedError)
	errors.As(err, &moved)
	m := moved.Moved()
	switch {
	case m.Arriving:
		return []Remedy{act("Finish the move[: {}].", Act{Do: FinishMove, Home: moved.Records[0].Home})}
	case m.Host != "":
		return []Remedy{act(legible.Line(m.Host)+" has the authorization. Use it there[: {}].", Act{Do: UseVault, Home: m.Home})}
	}
	return []Remedy{act("Use that vault[: {}].", Act{Do: UseVault, Home: m.Home})}
}
