package keychain

import (
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/zalando/go-keyring"

	"github.com/upsauth/upsauth/internal/vault"
)

// elsewhere names the other home, as every sentence about a keychain that
// can't be used has to.
const elsewhere = "use the file vault for new authorizations[: {}]"

// explain is the one place that tells the keychains' errors apart. What is the
// matter stands in texts, D-Bus names and the exit statuses of macOS's tool; a
// call that was never answered comes from timeout and not through here.
func explain(what string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, keyring.ErrNotFound):
		return vault.ErrNoItem
	}
	text := strings.ToLower(errorName(err) + " " + err.Error())
	has := func(words ...string) bool {
		for _, w := range words {
			if strings.Contains(text, w) {
				return true
			}
		}
		return false
	}
	problem := func(sentence, advice string) error {
		return &vault.HomeError{Home: "keychain", What: sentence, Advice: advice, Do: []vault.Act{vault.UseFileVault}, Err: err}
	}
	var noBus *exec.Error
	var unsearched *unsearchedError
	switch {
	case errors.As(err, &unsearched):
		return problem(fmt.Sprintf("No open keyring of the keychain has the secret. Another may have it: %s is locked, so upsauth can't look inside.", strings.Join(unsearched.keyrings, ", ")),
			"Unlock it and try again, or "+elsewhere+".")
	case errors.Is(err, keyring.ErrUnsupportedPlatform):
		return problem("This build of upsauth has no keychain.", "Please "+elsewhere+".")
	case errors.Is(err, keyring.ErrSetDataTooBig):
		return problem("The secret is too large for the keychain.", "Please "+elsewhere+".")
	case has("org.freedesktop.secrets was not provided", "serviceunknown", "namehasnoowner", "spawn.", "not activatable"):
		return &vault.HomeError{Home: "keychain", What: "There is no keychain here: nothing on this session's bus offers the Secret Service.",
			Advice: "Start one[ ({})], or " + elsewhere + ".", Do: []vault.Act{vault.StartKeychain, vault.UseFileVault}, Err: err}
	case errors.As(err, &noBus), has("dbus-launch", "dbus_session_bus_address", "couldn't determine address of session bus", "no such file or directory", "connection refused"):
		return problem("There is no keychain here: this session has no D-Bus session bus.",
			"Log in to a desktop session or start one with dbus-run-session, or "+elsewhere+".")
	case has("secrets/aliases/default"):
		// go-keyring falls back on the default keyring where none is named login.
		return problem("The keychain has no keyring named login, and its default keyring is missing or locked.",
			"Unlock it, create a keyring named login or make one the default (seahorse does it; in KeePassXC, open a database that it exposes to the Secret Service), or "+elsewhere+".")
	case has("failed to unlock correct collection", "islocked", "is locked", "locked object", "locked collection", "prompt dismissed",
		"user interaction is not allowed", "errsecinteractionnotallowed", "exit status 36", "exit status 128"):
		return problem("The keychain is locked, or the question to unlock it was dismissed.",
			"Unlock it and try again, or "+elsewhere+".")
	case has("no such object", "nosuchobject", "unknownobject", "unknownmethod", "object does not exist", "no such collection"):
		return problem("The keychain service runs and has no keyring to put secrets in.",
			"Create a keyring named login or make one the default (seahorse does it), or "+elsewhere+".")
	case errors.Is(err, errNoLogonSession):
		return problem("Windows keeps no credentials for this kind of logon, such as SSH with a key, a service, or a task that runs without the user's password.",
			"Log on with the password, or "+elsewhere+".")
	case errors.Is(err, fs.ErrPermission), has("access denied", "access is denied", "accessdenied", "permission denied", "errsecauthfailed", "exit status 51"):
		return problem("The keychain refuses access to upsauth.", "Allow it in the keychain's own program, or "+elsewhere+".")
	}
	return problem(fmt.Sprintf("The keychain can't be %s: %v.", what, err), "Try again, or "+elsewhere+".")
}

// unsearchedError says that no keyring has an item, of those that can be searched.
type unsearchedError struct{ keyrings []string }

func (e *unsearchedError) Error() string {
	return "not found, and locked: " + strings.Join(e.keyrings, ", ")
}

// errNoLogonSession is ERROR_NO_SUCH_LOGON_SESSION; no other system has the number.
const errNoLogonSession = syscall.Errno(1312)

func timeout(deadline time.Duration) error {
	return &vault.HomeError{
		Home:     "keychain",
		What:     fmt.Sprintf("The keychain gave no answer within %s.", deadline),
		Advice:   "The keychain may be asking somebody to unlock it. Look for its window and try again. If nobody can answer it, " + elsewhere + ".",
		Do:       []vault.Act{vault.UseFileVault},
		TimedOut: true,
	}
}

// givenUp is a call that nobody waits for any more; like one that timed out it
// may still land.
func givenUp(cause error) error {
	return &vault.HomeError{
		Home:     "keychain",
		What:     "The keychain had not answered yet when upsauth was interrupted.",
		TimedOut: true,
		Err:      cause,
	}
}
