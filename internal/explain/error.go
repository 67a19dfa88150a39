package explain

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"syscall"

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
	"github.com/upsauth/upsauth/internal/session"
	"github.com/upsauth/upsauth/internal/signin"
	"github.com/upsauth/upsauth/internal/ups"
	"github.com/upsauth/upsauth/internal/vault"
)

// Error says what an error means. It is the one place where errors become classes
// and remedies.
func Error(err error) Explanation {
	if err == nil {
		return Explanation{}
	}
	e := Explanation{Class: classOf(err), What: whatOf(err), Do: remediesFor(err)}
	if contact := new(session.ContactError); errors.As(err, &contact) {
		e.Contact = contact.Contact
	}
	return e
}

// is reports whether an error is or wraps one of a type.
func is[E error](err error) bool {
	var e E
	return errors.As(err, &e)
}

func classOf(err error) Class {
	var fromUPS *ups.Error
	switch {
	case errors.Is(err, context.Canceled):
		return Interrupted
	case is[*keeper.TooShortError](err), is[*ups.SettingError](err),
		is[*session.SeveralError](err), is[*session.SettingError](err), is[*session.NameError](err), is[*session.FieldError](err), is[*session.SecretMissingError](err),
		is[*session.RedirectMissingError](err), is[*signin.CertificateError](err),
		is[*keys.NameError](err), is[*keys.ScopeError](err), is[*keys.ExistsError](err),
		is[*session.SeveralHostsError](err),
		is[*session.ReturnURLError](err), is[*session.NearNameError](err), is[*invitation.LastingError](err), is[*invitation.DraftError](err), is[*invitation.SeveralError](err):
		return Usage
	case is[*session.NotFoundError](err), errors.Is(err, grant.ErrNoGrant), is[*keys.NotFoundError](err),
		errors.Is(err, invitation.ErrUnknown), is[*session.HostNotFoundError](err):
		return NotFound
	case isMoved(err):
		return NotFound
	case is[*keeper.GoneError](err):
		return Authorize
	case is[*keeper.ElsewhereError](err), is[*keeper.LostError](err), is[*vault.HomeError](err), is[*vault.MissingError](err),
		is[*vault.JournalKeyError](err), is[*session.SecretGoneError](err), is[*session.HeldGoneError](err):
		return Vault
	case is[*keeper.ClientChangedError](err), is[*session.OtherClientError](err):
		return Refused
	case isShared(err):
		return classOfShared(err)
	case is[*config.Error](err):
		return Failed
	case IsStorage(err), is[*vault.LockError](err), is[*vault.RehearsalError](err):
		return Vault
	case is[*keeper.PendingError](err):
		return UPS
	case errors.As(err, &fromUPS):
		return classOfKind(fromUPS.Kind)
	}
	return Failed
}

func classOfKind(kind ups.Kind) Class {
	switch kind {
	case ups.RefreshTokenRefused:
		return Authorize
	case ups.ClientRefused, ups.HeaderMissing, ups.RedirectURIRefused, ups.Blocked:
		return Refused
	case ups.RateLimited, ups.Down, ups.Unreachable, ups.Lost, ups.Unusable:
		return UPS
	}
	return Failed
}

func whatOf(err error) string {
	switch {
	case is[*keeper.SavedError](err):
		return "interrupted; the tokens were saved first, nothing is lost"
	case errors.Is(err, context.Canceled):
		return "interrupted"
	}
	return err.Error()
}

// sentence is a remedy without an act.
func sentence(text string) Remedy { return Remedy{Text: text} }

// act is a remedy with acts.
func act(text string, acts ...Act) Remedy { return Remedy{Text: text, Acts: acts} }

func run(do Do, id grant.ID) Remedy { return act("[Run: {}]", Act{Do: do, ID: id}) }

// joined is a remedy that goes on in the line of what is before.
func joined(join string, r Remedy) Remedy {
	r.Join = join
	return r
}

// oneLine are remedies on one line of a face that has lines.
func oneLine(remedies ...Remedy) []Remedy {
	for i := range remedies[1:] {
		remedies[i+1].Join = " "
	}
	return remedies
}

func remediesFor(err error) []Remedy {
	var (
		gone     *keeper.GoneError
		changed  *keeper.ClientChangedError
		lost     *keeper.LostError
		tooSoon  *keeper.RetryTooSoonError
		home     *vault.HomeError
		missing  *vault.MissingError
		damaged  *vault.DamagedError
		present  *vault.PresentError
		fromUPS  *ups.Error
		setting  *ups.SettingError
		unserved *loopback.UnservedError
		port     *loopback.PortError
		file     *company.FileError
		unknown  *session.NotFoundError
		several  *session.SeveralError
		clash    *session.ClashError
		twin     *session.TwinError
		secret   *session.SecretGoneError
		stale    *keeper.StaleError
		list     *keys.FileError
		invited  *invitation.FileError
	)
	otherHere := new(vault.OtherHereError)
	switch {
	case isMoved(err):
		return whereMoved(err)
	case errors.As(err, &otherHere):
		return []Remedy{act("Remove the one that is not needed, in its vault[: {}].", Act{Do: Revoke, ID: otherHere.ID})}
	case is[*session.MoveBusyError](err):
		return []Remedy{act("Wait until that move has ended, then {}.", Act{Do: TryAgain})}
	case is[*session.OtherApplicationError](err):
		return []Remedy{sentence("Make the two registrations the same, or remove one of them. Nothing was moved.")}
	case errors.As(err, &stale):
		return []Remedy{act("Start the sign-in again[: {}].", Act{Do: AuthorizeCompany, ID: stale.ID})}
	case errors.Is(err, signin.ErrCutOff):
		return []Remedy{act("Start the sign-in again[: {}].", Act{Do: AuthorizeAny})}
	case errors.As(err, &several):
		return choices(several)
	case is[*session.RedirectMissingError](err):
		return []Remedy{joined(": ", act("[{}]", Act{Do: GiveRedirect}))}
	case is[*session.SecretMissingError](err):
		return []Remedy{joined(": ", act("[{}]", Act{Do: GiveSecret}))}
	case errors.As(err, &clash):
		return []Remedy{joined(". ", act("Remove the authorization that is not needed[: {}][, or {}]", Act{Do: Revoke, ID: clash.One}, Act{Do: Revoke, ID: clash.Other}))}
	case errors.As(err, &twin):
		return []Remedy{joined("; ", act("rename one of the two companies[: {}]", Act{Do: RenameCompany, ID: grant.ID{Company: twin.Company}}))}
	case is[*session.OtherClientError](err):
		return []Remedy{act("If you have not changed the client ID, look at who can write to the database. Register the application again with the right client ID and its secret[: {}].", Act{Do: RegisterAgain})}
	case is[*session.OtherSecretError](err):
		return []Remedy{joined("; ", act("[{} replaces it]", Act{Do: SetSecret}))}
	case errors.As(err, &unknown):
		return searches(unknown)
	case errors.As(err, &secret):
		return []Remedy{run(SetSecret, grant.ID{Application: secret.Application, Environment: secret.Environment})}
	case errors.As(err, &gone) && gone.Void && !gone.Told:
		return []Remedy{
			sentence("Did the person who signed in change the ups.com password? A changed password voids all authorizations of that person."),
			act("Or was another copy of this authorization refreshed[ ({})]?", Act{Do: Export}),
			run(AuthorizeCompany, gone.ID),
		}
	case errors.As(err, &gone):
		return []Remedy{run(AuthorizeCompany, gone.ID)}
	case is[*keeper.ElsewhereError](err):
		return []Remedy{act("Nothing is lost. Do not move that file. Make the state directory writable, then {} to save the tokens.", Act{Do: TryAgain})}
	case errors.As(err, &lost):
		return oneLine(sentence("Make the state directory writable."), act("[Then run: {}]", Act{Do: AuthorizeCompany, ID: lost.ID}))
	case errors.As(err, &home) && home.Advice == "":
		return nil // whoever interrupted it knows
	case errors.As(err, &home):
		return []Remedy{adviceOf(home)}
	case errors.As(err, &missing) && missing.Home == "file":
		return []Remedy{act("Restore the vault's directory from a backup, or authorize the company again[: {}]", Act{Do: AuthorizeCompany, ID: missing.ID})}
	case errors.As(err, &missing):
		return oneLine(sentence("Was the company authorized in another session? Then use that session's keychain."),
			act("[Otherwise run: {}]", Act{Do: AuthorizeCompany, ID: missing.ID}))
	case errors.As(err, &changed):
		return []Remedy{act("Register the application as it was[ ({})], or authorize the company again[: {}]", Act{Do: ShowApplication}, Act{Do: AuthorizeCompany, ID: changed.ID})}
	case is[*keeper.PendingError](err):
		return oneLine(act("[{}]", Act{Do: TryLater}), sentence("Until then, an access token that is still valid can be used."))
	case is[*keeper.OtherUserError](err):
		return []Remedy{act("Sign out at ups.com in the browser, then {} and sign in as the right user.", Act{Do: TryAgain})}
	case is[*keeper.DeclinedError](err):
		return []Remedy{act("To authorize the company, sign in again, tick the agreement and continue[: {}].", Act{Do: AuthorizeAny})}
	case is[*vault.LoginBusyError](err):
		return []Remedy{sentence("Wait until that sign-in ends, or end it: press Ctrl-C in its terminal, or End in the company manager.")}
	case errors.As(err, &setting):
		return []Remedy{sentence(setting.Remedy)}
	case is[*keeper.TooShortError](err):
		return []Remedy{sentence("Ask for a shorter time.")}
	case errors.As(err, &tooSoon):
		return []Remedy{act("[{}]", Act{Do: LengthenRetry, Wait: tooSoon.Least})}
	case is[*vault.JournalDamageError](err):
		return []Remedy{run(CheckVault, grant.ID{})}
	case errors.As(err, &damaged) && damaged.Journal:
		return []Remedy{
			joined("; ", act("{}", Act{Do: TryAgain})),
			joined(". ", sentence("If the journal had UPS's last answer, the company must be authorized again")),
		}
	case errors.As(err, &damaged):
		return []Remedy{
			joined("; ", sentence("all other companies are unaffected")),
			joined(". ", act("[To make a new record from the company's secrets, run: {}]", Act{Do: RepairVault})),
		}
	case errors.As(err, &present) && present.Do == vault.Repair:
		return []Remedy{joined("; ", act("[first run: {}]", Act{Do: RepairVault}))}
	case errors.As(err, &present) && present.Do != "":
		return []Remedy{joined("; ", act("[look with: {}]", Act{Do: Do(present.Do)}))}
	case errors.As(err, &port) && port.SignIn:
		return []Remedy{joined(". ", act("Wait until that sign-in ends, and try again; or use another port in the registered redirect URI[ or with {}]", Act{Do: ListenElsewhere}))}
	case port != nil:
		return []Remedy{joined(": ", act("end that program or wait for its end, and try again; or use another port in the registered redirect URI[ or with {}]", Act{Do: ListenElsewhere}))}
	case errors.As(err, &unserved):
		return []Remedy{serves(unserved)}
	case errors.As(err, &file) && file.Damaged:
		return []Remedy{joined("; ", act("[{} makes a new one]", Act{Do: AddCompany}))}
	case is[*keys.ExistsError](err):
		return []Remedy{sentence("Choose another name, or remove that key first.")}
	case is[*keys.NotFoundError](err):
		return []Remedy{sentence("Look for the name in the list of keys.")}
	case is[*safefile.KindError](err):
		return []Remedy{sentence("Put a regular file there, or a link to one.")}
	case is[*config.Error](err):
		return nil
	case errors.As(err, &invited) && invited.Damaged:
		return []Remedy{act("Delete the file[: {}]", Act{Do: DeleteFile, Path: invited.Path}), sentence("Then invite the customer again: the address that was sent works no more.")}
	case ofInvitation(err) != nil:
		return ofInvitation(err)
	case isShared(err):
		return ofShared(err)
	case errors.As(err, &list) && list.Damaged && list.Key != "":
		return []Remedy{sentence("Remove the key " + legible.Line(list.Key) + ", and make a new one.")}
	case errors.As(err, &list) && list.Damaged:
		return []Remedy{sentence("Restore the file from a backup, or remove the file and make new keys.")}
	case IsStorage(err) && saysItself(err):
		return nil
	case IsStorage(err) && errors.Is(err, fs.ErrPermission):
		return []Remedy{sentence("Check who may write the file and its directory, and whether one of them is immutable (on Linux, lsattr shows that).")}
	case IsStorage(err) && !isLocking(err):
		return []Remedy{sentence("Free some space on the disk, or check why the directory can't be written: it may be mounted read-only.")}
	case isLocking(err):
		return []Remedy{act("Put the state directory where file locks work, such as a local disk[: {}].", Act{Do: MoveState})}
	case errors.As(err, &fromUPS):
		return answers(fromUPS)
	case errors.Is(err, backup.ErrNeedIdentity), errors.Is(err, backup.ErrOtherIdentity):
		return []Remedy{act("[Name it: {}]", Act{Do: ImportIdentity})}
	case errors.Is(err, backup.ErrWrongPassphrase):
		return []Remedy{act("[{}]", Act{Do: ExportPassphrase})}
	}
	return nil
}

// adviceOf is what a home knows best about itself.
func adviceOf(home *vault.HomeError) Remedy {
	var acts []Act
	for _, do := range home.Do {
		acts = append(acts, Act{Do: Do(do)})
	}
	return act(home.Advice, acts...)
}

// choices say how one of several is meant.
func choices(e *session.SeveralError) []Remedy {
	list := func(ids []grant.ID) Remedy { return joined(": ", act("[{}]", Act{Do: Among, Among: ids})) }
	switch {
	case len(e.Grants) > 0:
		return []Remedy{list(e.Grants), act("Choose one[ with {}].", Act{Do: ChooseGrant})}
	case e.Name != "":
		// All have the one name.
		return []Remedy{list(namesOf(e.Applications, false)), act("Choose one[ with {}].", Act{Do: ChooseEnvironment})}
	}
	return []Remedy{list(namesOf(e.Applications, true)), act("Choose one[ with {}].", Act{Do: ChooseDefault})}
}

// namesOf are registrations to choose from, with their names where these differ.
func namesOf(registrations []config.Registration, named bool) []grant.ID {
	var ids []grant.ID
	for _, r := range registrations {
		id := grant.ID{Environment: r.Environment}
		if named {
			id.Application = r.Name
		}
		ids = append(ids, id)
	}
	return ids
}

// searches are what to do where something is not there as it was named.
func searches(e *session.NotFoundError) []Remedy {
	id := grant.ID{Company: e.Company, Application: e.Application, Environment: e.Environment}
	switch e.Kind {
	case session.NoCompany:
		var remedies []Remedy
		if e.Near != "" {
			remedies = append(remedies, sentence(fmt.Sprintf("Did you mean %q?", e.Near)))
		}
		if e.Unused != "" {
			remedies = append(remedies, sentence(legible.Sentence(e.Unused)))
		}
		return oneLine(append(remedies, act("[{} shows all companies; ][{} authorizes one.]", Act{Do: ListCompanies}, Act{Do: AuthorizeAny, ID: grant.ID{Company: "NAME"}}))...)
	case session.NoPattern, session.NothingFits:
		return []Remedy{act("[{} shows all companies.]", Act{Do: ListCompanies})}
	case session.NoAuthorization:
		return []Remedy{act("[Run: {}|Authorize the company.]", Act{Do: AuthorizeCompany, ID: grant.ID{Company: e.Company}})}
	case session.NoGrant:
		return []Remedy{act("[The company has: {}]", Act{Do: Among, Among: e.Has})}
	case session.NoApplication:
		return []Remedy{act("[{} shows all.]", Act{Do: ListApplications})}
	case session.NoApplicationOfName:
		return []Remedy{act("[{} shows all; ][{} registers one.]", Act{Do: ListApplications}, Act{Do: RegisterAny})}
	case session.NotRegistered:
		return []Remedy{run(Register, id)}
	case session.NoRegistration:
		var remedies []Remedy
		if len(e.Registered) > 0 {
			remedies = append(remedies, joined("; ", act("[these are registered: {}]", Act{Do: Among, Among: namesOf(e.Registered, true)})))
		}
		id.Application, id.Environment = cmp.Or(e.Application, config.IntelligentRating), cmp.Or(e.Environment, ups.Production)
		return append(remedies, act("[Run: {}, with the values from UPS's developer portal.][ To try without an account: {}.]", Act{Do: Register, ID: id}, Act{Do: RegisterSandbox}))
	case session.NoEnvironment:
		return []Remedy{sentence(fmt.Sprintf("These environments exist: %s. To define your own, add [environments.NAME] with a base_url to %s.", strings.Join(e.Environments, ", "), e.File))}
	}
	return nil
}

// serves says how a redirect URI can be served.
func serves(e *loopback.UnservedError) Remedy {
	switch e.Why {
	case loopback.Elsewhere:
		return joined(": ", act("give [{} with ]the loopback address at this end of its tunnel", Act{Do: ListenElsewhere}))
	case loopback.AnyPort:
		return joined(", and ", act("[{} names another: ]a redirect URI that is reached through a tunnel must name its port", Act{Do: ListenElsewhere}))
	}
	return joined(": ", act("give its certificate[ with {}]", Act{Do: GiveCertificate}))
}

// IsStorage reports whether upsauth can't write its files on this machine, whichever step
// noticed it: the disk is full, mounted read-only, or fails, or a file can't be changed.
func IsStorage(err error) bool {
	var file *fs.PathError
	if errors.As(err, &file) && strings.HasPrefix(file.Path, "/dev/std") {
		return false // where a shell sent the output
	}
	// applications.toml is the user's, and its error says itself what to do.
	if is[*safefile.WriteError](err) && !is[*config.ReplaceError](err) || (is[*vault.LockError](err) || is[*vault.RehearsalError](err)) && errors.Is(err, fs.ErrPermission) {
		return true
	}
	return slices.ContainsFunc(diskErrors(), func(errno syscall.Errno) bool { return errors.Is(err, errno) })
}

// saysItself reports whether an error of a file says itself what to do.
func saysItself(err error) bool {
	return is[*safefile.LinkError](err) || is[*safefile.PermissionError](err) || is[*safefile.AccessError](err)
}

// isLocking reports whether locks don't work where they have to.
func isLocking(err error) bool {
	if saysItself(err) {
		return false
	}
	return is[*vault.LockError](err) && !IsStorage(err) || slices.ContainsFunc(lockErrors(), func(errno syscall.Errno) bool { return errors.Is(err, errno) })
}

// ofInvitation is what to do about an error of an invitation, nil for all others.
func ofInvitation(err error) []Remedy {
	var (
		redirect *session.PublicRedirectError
		near     *session.NearNameError
		waits    *session.HeldError
		notHeld  *session.NotHeldError
		gone     *session.HeldGoneError
		over     *invitation.OverError
		back     *session.ReturnURLError
	)
	switch {
	case is[*session.NoPublicURLError](err):
		return []Remedy{act("Set the address at which customers reach this service[ as {}], such as https://auth.agency.example. For a trial on this machine, use http://localhost:8489.", Act{Do: PublicAddress})}
	case is[*session.PublicURLError](err):
		return []Remedy{act("See that the service runs with a public listener[ ({})], and that the proxy brings public_url there.", Act{Do: ServePublic})}
	case errors.As(err, &redirect):
		register := Act{
			Do: PublicRedirect, ID: grant.ID{Application: redirect.Application, Environment: redirect.Environment}, URI: redirect.Proposed, Unregistered: redirect.Unregistered,
		}
		if redirect.Environment == config.Sandbox { // it has no portal
			return []Remedy{act("[Run: {}|Register a public redirect URI below public_url.]", register)}
		}
		return []Remedy{
			sentence("In UPS's developer portal (" + portal + "), add this Callback URL: " + redirect.Proposed),
			act("[Then run: {}|Then register that URL as the application's public redirect URI.]", register),
		}
	case errors.As(err, &back):
		return []Remedy{sentence("Use an address below one of return_urls, or add the address to return_urls under [serve] in config.toml.")}
	case errors.As(err, &near):
		return []Remedy{act("[{}]", Act{Do: KnownCompany, ID: grant.ID{Company: near.Near.Known}})}
	case errors.As(err, &waits):
		return []Remedy{act("Confirm or refuse the user first[: {}].", Act{Do: ConfirmHeld, Invitation: waits.Invited.Invitation.ID, ID: waits.Invited.GrantID()})}
	case errors.As(err, &notHeld):
		return []Remedy{act("[{} shows the state of each invitation.]", Act{Do: ListInvitations})}
	case errors.As(err, &gone):
		return []Remedy{act("Refuse the user who signed in[: {}]. Then invite the customer again[: {}].",
			Act{Do: RefuseHeld, Invitation: gone.Invited.Invitation.ID}, Act{Do: InviteAgain, ID: gone.Invited.GrantID()})}
	case errors.As(err, &over) && over.Invitation.End.Why == invitation.Completed:
		return []Remedy{sentence("The company is authorized, so nobody needs the invitation any more.")}
	case errors.As(err, &over):
		i := over.Invitation
		return []Remedy{act("To send a new address, invite the customer again[: {}].", Act{Do: InviteAgain, ID: grant.ID{Company: i.Company, Application: i.Application, Environment: i.Environment}})}
	case is[*invitation.LastingError](err):
		return []Remedy{sentence("Choose a time in between.")}
	case is[*invitation.SeveralError](err):
		return []Remedy{act("Give more letters of the ID.[ {} shows all.]", Act{Do: ListInvitations})}
	case errors.Is(err, invitation.ErrUnknown):
		return []Remedy{act("Give the ID of an invitation, or how it begins.[ {} shows all.]", Act{Do: ListInvitations})}
	case is[*invitation.ConflictError](err):
		return []Remedy{act("Look what the other process did, then {}.", Act{Do: TryAgain})}
	}
	return nil
}
