package safefile

import (
	"fmt"
	"io"
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
	// replacing is what lets others put something else in the place of what lies
	// in a directory; that they may add to it does no harm to that.
	replacing = windows.DELETE | windows.WRITE_DAC | windows.WRITE_OWNER | windows.GENERIC_ALL | deleteChild
	writing   = replacing | windows.FILE_WRITE_DATA | windows.FILE_APPEND_DATA | windows.GENERIC_WRITE
	reading   = windows.FILE_READ_DATA | windows.GENERIC_READ

	deleteChild = 0x40 // FILE_DELETE_CHILD
)

// NoLink is the flag that keeps an open from following a link; Windows has none.
const NoLink = 0

// identity is not needed: access lists name the user.
type identity struct{}

// walk judges a place by its access list, and the directories above the file
// that links lead to by theirs.
func (p *Places) walk(path string, secret bool) error {
	real, err := filepath.EvalSymlinks(path)
	if os.IsNotExist(err) {
		for dir := path; ; dir = filepath.Dir(dir) {
			if info, err := os.Lstat(dir); err == nil {
				if info.Mode()&os.ModeSymlink != 0 {
					target, _ := os.Readlink(dir)
					return &LinkError{Path: dir, Target: target}
				}
				if dir == path {
					return nil // made meanwhile
				}
				return p.walkUp(dir, dir)
			}
			if filepath.Dir(dir) == dir {
				return nil
			}
		}
	}
	if err != nil {
		real = path
	}
	if p.trusts(real) || p.trusts(path) {
		if secret {
			return judgeList(path, real, reading)
		}
		return nil
	}
	forbidden := windows.ACCESS_MASK(writing)
	if secret {
		forbidden |= reading
	}
	if err := judgeList(path, real, forbidden); err != nil {
		return err
	}
	if dir := filepath.Dir(real); dir != real {
		return p.walkUp(path, dir)
	}
	return nil
}

// walkUp judges the directories above a place.
func (p *Places) walkUp(path, dir string) error {
	var good []string
	for ; ; dir = filepath.Dir(dir) {
		if p.good[dir] || p.trusts(dir) {
			break
		}
		if err := judgeList(dir, dir, replacing); err != nil {
			return err
		}
		good = append(good, dir)
		if filepath.Dir(dir) == dir {
			break
		}
	}
	for _, dir := range good {
		p.good[dir] = true
	}
	return nil
}

// judgeList refuses a file whose owner is somebody else, or that others may use.
// Its administrators may do everything in any case.
func judgeList(path, real string, forbidden windows.ACCESS_MASK) error {
	descriptor, err := windows.GetNamedSecurityInfo(real, windows.SE_FILE_OBJECT, windows.DACL_SECURITY_INFORMATION|windows.OWNER_SECURITY_INFORMATION)
	if err != nil {
		return nil //nolint:nilerr // a file system without access lists has nothing to check
	}
	list, _, err := descriptor.DACL()
	if err != nil {
		return nil //nolint:nilerr // as above
	}
	if isOpen(list, forbidden) {
		return open(path, list)
	}
	if owner, _, err := descriptor.Owner(); err == nil && owner != nil && isPerson(owner) {
		return &PermissionError{Path: path, Owner: nameOf(owner), why: "who can change it",
			Remedy: fmt.Sprintf(`takeown /F "%s"`, path)}
	}
	return nil
}

// isPerson reports whether an owner is a user of this machine or of its domain
// other than this process's: not the system, a service or the administrators.
func isPerson(owner *windows.SID) bool {
	if user, err := currentUser(); err != nil || owner.Equals(user) {
		return false
	}
	// S-1-5-21-…-RID are the users and groups that people make.
	return owner.IdentifierAuthority() == windows.SECURITY_NT_AUTHORITY && owner.SubAuthorityCount() == 5 && owner.SubAuthority(0) == 21 && owner.SubAuthority(4) >= 1000
}

func nameOf(sid *windows.SID) string {
	if account, domain, _, err := sid.LookupAccount(""); err == nil {
		return "the user " + domain + `\` + account
	}
	return "the user " + sid.String()
}

// isLink can't be, as NoLink is nothing.
func isLink(error) bool { return false }

// denied can't tell on Windows whose right it is.
func denied(string, error) error { return nil }

// Read returns what is in a file of upsauth's own, in a directory that was
// checked: it is no link.
func (p *Places) Read(path string, _ []byte) ([]byte, error) {
	file, err := OpenOwn(path, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return io.ReadAll(file)
}

// OpenOwn opens a file of upsauth's own, in a directory that was checked: a link
// is not followed. The flags are those of os.OpenFile.
func OpenOwn(path string, flag int) (*os.File, error) {
	if info, err := os.Lstat(path); err == nil && info.Mode()&os.ModeSymlink != 0 {
		return nil, &LinkError{Path: path}
	}
	if flag&os.O_CREATE != 0 {
		return os.OpenFile(path, flag, 0o600)
	}
	return OpenFile(path, flag)
}

// isOpen reports whether an access list allows others one of the forbidden
// things. Where there is none, everybody may do everything.
func isOpen(list *windows.ACL, forbidden windows.ACCESS_MASK) bool {
	if list == nil {
		return true
	}
	return !everyEntry(list, func(sid *windows.SID, mask windows.ACCESS_MASK) bool {
		if mask&forbidden == 0 {
			return true
		}
		for _, group := range others {
			if sid.IsWellKnown(group) {
				return false
			}
		}
		return !isPerson(sid)
	})
}

// everyEntry reports whether all entries of a list that allow something pass.
func everyEntry(list *windows.ACL, pass func(*windows.SID, windows.ACCESS_MASK) bool) bool {
	for i := range uint32(list.AceCount) {
		var entry *windows.ACCESS_ALLOWED_ACE
		if windows.GetAce(list, i, &entry) != nil {
			return false
		}
		if entry.Header.AceType != windows.ACCESS_ALLOWED_ACE_TYPE || entry.Header.AceFlags&windows.INHERIT_ONLY_ACE != 0 {
			continue
		}
		sid := (*windows.SID)(unsafe.Pointer(&entry.SidStart)) //nolint:gosec // an entry ends in the SID, which begins there
		if !pass(sid, entry.Mask) {
			return false
		}
	}
	return true
}

// open is the refusal, with the command that leaves the file to the user alone.
// The command names groups and user by their numbers: names are translated.
func open(path string, list *windows.ACL) error {
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
	if list != nil {
		everyEntry(list, func(sid *windows.SID, _ windows.ACCESS_MASK) bool {
			if isPerson(sid) {
				remedy += fmt.Sprintf(` "*%s"`, sid)
			}
			return true
		})
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
