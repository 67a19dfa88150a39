package keychain

import (
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/zalando/go-keyring"

	"github.com/upsauth/upsauth/internal/vault"
)

// What each sentence has to say, whatever its words.
const (
	saysNoBus     = "no D-Bus session bus"
	saysNoService = "offers the Secret Service"
	saysLocked    = "locked"
	saysNoKeyring = "no keyring"
	saysRefused   = "refuses access to upsauth"
	saysNoSession = "no credentials for this kind of logon"
)

type explained struct {
	name  string
	err   error
	wants string
}

// windowsError is an error in Windows' own words.
type windowsError string

func (e windowsError) Error() string { return string(e) }

// denied is a denial whose text nobody knows.
type denied struct{}

func (denied) Error() string { return "Zugriff verweigert" }

func (denied) Is(target error) bool { return target == fs.ErrPermission }

func checkExplained(t *testing.T, tests []explained) {
	t.Helper()
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := newRing()
			r.before = func(string, string) error { return test.err }
			h := New(r, 0, 0, nil)
			_, getErr := h.Get(t.Context(), key)
			for _, err := range []error{getErr, h.Put(t.Context(), key, 1, []byte("{}")), h.Delete(t.Context(), key)} {
				e := homeError(t, err)
				if !strings.Contains(e.What, test.wants) {
					t.Errorf("%v is explained as %q, want %q in it", test.err, e.What, test.wants)
				}
				if !errors.Is(err, test.err) && e.Err.Error() != test.err.Error() {
					t.Errorf("the cause is lost: %v", e.Err)
				}
				// Each must name the way out.
				if !slices.Contains(e.Do, vault.UseFileVault) || strings.Count(e.Advice, "{}") != len(e.Do) {
					t.Errorf("the advice is %q, %q", e.Advice, e.Do)
				}
				if e.TimedOut || e.Damaged {
					t.Errorf("got %+v", e)
				}
			}
		})
	}
}

func TestExplain(t *testing.T) {
	checkExplained(t, []explained{
		{"no dbus-launch", &exec.Error{Name: "dbus-launch", Err: exec.ErrNotFound}, saysNoBus},
		{"no dbus-launch, wrapped", fmt.Errorf("dbus: %w", &exec.Error{Name: "dbus-launch", Err: exec.ErrNotFound}), saysNoBus},
		{"dbus-launch says nothing", errors.New("dbus: couldn't determine address of session bus"), saysNoBus},
		{"locked and dismissed", errors.New("failed to unlock correct collection '/org/freedesktop/secrets/collection/login'"), saysLocked},
		{"no login keyring and no default", errors.New("failed to unlock correct collection '/org/freedesktop/secrets/aliases/default'"), saysNoKeyring + " named login"},
		{"locked macOS keychain over SSH", errors.New("exit status 36"), saysLocked},
		{"macOS prompt cancelled", errors.New("exit status 128"), saysLocked},
		{"macOS refuses", errors.New("exit status 51"), saysRefused},
		{"no permission", fs.ErrPermission, saysRefused},
		{"no permission, in another language", &fs.PathError{Op: "set", Path: "item", Err: denied{}}, saysRefused},
		{"Windows without a logon session", syscall.Errno(1312), saysNoSession},
		{"Windows refuses", windowsError("Access is denied."), saysRefused},
		{"too large", keyring.ErrSetDataTooBig, "too large for the keychain"},
		{"too large, wrapped", fmt.Errorf("set: %w", keyring.ErrSetDataTooBig), "too large for the keychain"},
		{"no keychain in this build", keyring.ErrUnsupportedPlatform, "This build of upsauth has no keychain"},
		{"something else", errors.New("the moon is in the wrong phase"), "the moon is in the wrong phase"},
	})
}

func TestNotFoundIsNoProblem(t *testing.T) {
	r := newRing()
	r.before = func(string, string) error { return fmt.Errorf("wrapped: %w", keyring.ErrNotFound) }
	h := New(r, 0, 0, nil)
	if _, err := h.Get(t.Context(), key); !errors.Is(err, vault.ErrNoItem) {
		t.Errorf("Get: %v", err)
	}
	if err := h.Delete(t.Context(), key); err != nil {
		t.Errorf("Delete: %v", err)
	}
}
