package safefile

import (
	"fmt"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/windows"
)

// others are the groups that other users of the machine are in, whoever they are.
// Its administrators may do everything in any case.
var others = [...]windows.WELL_KNOWN_SID_TYPE{
	windows.WinWorldSid, windows.WinAuthenticatedUserSid, windows.WinBuiltinUsersSid,
	windows.WinBuiltinGuestsSid, windows.WinAnonymousSid, windows.WinInteractiveSid,
}

const (
	writing = windows.FILE_WRITE_DATA | windows.FILE_APPEND_DATA | windows.DELETE | windows.WRITE_DAC | windows.WRITE_OWNER |
		windows.GENERIC_WRITE | windows.GENERIC_ALL | deleteChild
	reading     = windows.FILE_READ_DATA | windows.GENERIC_READ
	deleteChild = 0x40 // FILE_DELETE_CHILD
)

// CheckPrivate refuses a file or directory that others may read or write, with
// a *PermissionError. One that is not there is no error.
func CheckPrivate(path string) error { return check(path, reading|writing) }

// CheckUnwritable refuses a file or directory that others may write, with a
// *PermissionError. One that is not there is no error.
func CheckUnwritable(path string) error { return check(path, writing) }

func check(path string, forbidden windows.ACCESS_MASK) error {
	// The access list is that of the file behind a link.
	real, err := filepath.EvalSymlinks(path)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		real = path
	}
	descriptor, err := windows.GetNamedSecurityInfo(real, windows.SE_FILE_OBJECT, windows.DACL_SECURITY_INFORMATION)
	if err != nil {
		return nil //nolint:nilerr // a file system without access lists has nothing to check
	}
	list, _, err := descriptor.DACL()
	if err != nil {
		return nil //nolint:nilerr // as above
	}
	if !isOpen(list, forbidden) {
		return nil
	}
	return open(path)
}

// isOpen reports whether an access list allows others one of the forbidden
// things. Where there is none, everybody may do everything.
func isOpen(list *windows.ACL, forbidden windows.ACCESS_MASK) bool {
	if list == nil {
		return true
	}
	for i := range uint32(list.AceCount) {
		var entry *windows.ACCESS_ALLOWED_ACE
		if windows.GetAce(list, i, &entry) != nil {
			return true
		}
		if entry.Header.AceType != windows.ACCESS_ALLOWED_ACE_TYPE || entry.Header.AceFlags&windows.INHERIT_ONLY_ACE != 0 || entry.Mask&forbidden == 0 {
			continue
		}
		sid := (*windows.SID)(unsafe.Pointer(&entry.SidStart)) //nolint:gosec // an entry ends in the SID, which begins there
		for _, group := range others {
			if sid.IsWellKnown(group) {
				return true
			}
		}
	}
	return false
}

// open is the refusal, with the command that leaves the file to the user alone.
// The command names groups and user by their numbers: names are translated.
func open(path string) error {
	rights := ":F"
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		rights = ":(OI)(CI)F"
	}
	remedy := fmt.Sprintf(`icacls "%s" /inheritance:r /remove:g`, path)
	for _, group := range others {
		if sid, err := windows.CreateWellKnownSid(group); err == nil {
			remedy += fmt.Sprintf(` "*%s"`, sid)
		}
	}
	if user, err := currentUser(); err == nil {
		remedy += fmt.Sprintf(` /grant:r "*%s%s"`, user, rights)
	}
	return &PermissionError{Path: path, Remedy: remedy}
}

func currentUser() (*windows.SID, error) {
	user, err := windows.GetCurrentProcessToken().GetTokenUser()
	if err != nil {
		return nil, err
	}
	return user.User.Sid, nil
}

// mkdirAll makes directories that are the user's, the administrators' and the
// system's alone, as they are below a user's profile: elsewhere a directory
// inherits that all users may use it.
func mkdirAll(dir string) error {
	if info, err := os.Stat(dir); err == nil && info.IsDir() {
		return nil
	}
	if parent := filepath.Dir(dir); parent != dir {
		if err := mkdirAll(parent); err != nil {
			return err
		}
	}
	failed := func(err error) error { return &os.PathError{Op: "mkdir", Path: dir, Err: err} }
	user, err := currentUser()
	if err != nil {
		return failed(err)
	}
	descriptor, err := windows.SecurityDescriptorFromString(
		fmt.Sprintf("D:P(A;OICI;FA;;;%s)(A;OICI;FA;;;BA)(A;OICI;FA;;;SY)", user))
	if err != nil {
		return failed(err)
	}
	attributes := &windows.SecurityAttributes{SecurityDescriptor: descriptor}
	attributes.Length = uint32(unsafe.Sizeof(*attributes))
	name, err := windows.UTF16PtrFromString(dir)
	if err != nil {
		return failed(err)
	}
	err = windows.CreateDirectory(name, attributes)
	if info, statErr := os.Stat(dir); err != nil && statErr == nil && info.IsDir() {
		return nil // somebody else made it meanwhile
	}
	if err != nil {
		return failed(err)
	}
	return nil
}
