//go:build !windows

package safefile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// maxLinks is how many links a path may lead through, as on Linux.
const maxLinks = 40

// node is a file or directory on the way to a place.
type node struct {
	path string
	info fs.FileInfo
}

func (n node) uid() uint32 { return n.info.Sys().(*syscall.Stat_t).Uid }
func (n node) gid() uint32 { return n.info.Sys().(*syscall.Stat_t).Gid }

// walk goes to a place as the system does, and judges all that it comes by: the
// directories on the way, links, and those that lead to where they point.
func (p *Places) walk(path string, secret bool) error {
	var way []node // from the root to where we are
	left := strings.Split(strings.TrimPrefix(path, "/"), "/")
	var link, target string // the last link that was followed
	ofLink := 0             // how many of what is left came out of it
	at := "/"
	if dir := filepath.Dir(path); p.whole[dir] {
		at, left = dir, []string{filepath.Base(path)}
	}
	if info, err := os.Lstat(at); err == nil {
		way = append(way, node{at, info})
	}
	top := at
	for links := 0; len(left) > 0; {
		name := left[0]
		left = left[1:]
		fromLink := ofLink > 0
		ofLink = max(ofLink-1, 0)
		switch name {
		case "", ".":
			continue
		case "..":
			if err := p.judge(way, false); err != nil {
				return err
			}
			at = filepath.Dir(at)
			way = way[:max(len(way)-1, 1)]
			continue
		}
		next := filepath.Join(at, name)
		info, err := os.Lstat(next)
		switch {
		case os.IsNotExist(err) && fromLink:
			return &LinkError{Path: link, Target: target}
		case os.IsNotExist(err):
			return p.judge(way, false)
		case err != nil:
			return fmt.Errorf("%s can't be examined: %w", path, Explain(next, err))
		}
		if info.Mode()&fs.ModeSymlink == 0 {
			at = next
			way = append(way, node{at, info})
			continue
		}
		if top != "/" {
			return p.walkAll(path, secret)
		}
		if err := p.judge(append(slices.Clone(way), node{next, info}), false); err != nil {
			return err
		}
		if links++; links > maxLinks {
			return fmt.Errorf("%s can't be examined: %w", path, syscall.ELOOP)
		}
		link = next
		if target, err = os.Readlink(next); err != nil {
			return fmt.Errorf("%s can't be examined: %w", path, Explain(next, err))
		}
		if filepath.IsAbs(target) {
			at, way = "/", way[:1]
		}
		more := strings.Split(strings.Trim(target, "/"), "/")
		left = append(more, left...)
		ofLink += len(more)
	}
	if last := way[len(way)-1]; secret && int(last.uid()) == p.who().uid {
		// One remedy for both, where others can write it as well.
		if err := p.judgeSecret(last); err != nil {
			return err
		}
	}
	if err := p.judge(way, true); err != nil {
		return err
	}
	if n := way[len(way)-1]; n.path == path && n.info.IsDir() {
		p.whole[path] = true
	}
	if !secret {
		return nil
	}
	return p.judgeSecret(way[len(way)-1])
}

// walkAll begins at the root.
func (p *Places) walkAll(path string, secret bool) error {
	delete(p.whole, filepath.Dir(path))
	return p.walk(path, secret)
}

// judge looks at a way from its end on, up to the root or a directory in which
// nobody can touch what is another's. Whole says that the last one is the place
// itself.
func (p *Places) judge(way []node, whole bool) error {
	own := false // a directory of our own was on the way
	var good []string
	for i := len(way) - 1; i >= 0; i-- {
		n, last := way[i], whole && i == len(way)-1
		if p.trusts(n.path) {
			break
		}
		// What is above one of our own is judged otherwise.
		key := n.path
		if own {
			key += "/"
		}
		if !last {
			if p.good[key] {
				break
			}
			good = append(good, key)
		}
		if err := p.judgeOne(n, own, last); err != nil {
			return err
		}
		if n.info.IsDir() && n.info.Mode()&fs.ModeSticky != 0 && !last {
			break
		}
		own = own || n.info.IsDir() && int(n.uid()) == p.who().uid
	}
	for _, key := range good {
		p.good[key] = true
	}
	return nil
}

func (p *Places) judgeOne(n node, own, last bool) error {
	us := p.who()
	uid := int(n.uid())
	if uid != us.uid && uid != 0 && (!own || uid != us.overflow()) {
		return us.foreign(n)
	}
	mode := n.info.Mode()
	switch {
	case mode&fs.ModeSymlink != 0, mode.Perm()&0o022 == 0:
		return nil
	case mode.IsDir() && mode&fs.ModeSticky != 0 && !last:
		return nil
	case mode.Perm()&0o002 == 0 && us.isPrivate(int(n.gid())):
		return nil
	case mode.Perm()&0o002 == 0 && mode.IsDir() && uid == 0 && p.names(n.path):
		return nil
	}
	return &PermissionError{Path: n.path, Mode: mode, Remedy: us.sudo(uid) + "chmod go-w " + shellQuote(n.path)}
}

// judgeSecret refuses what others can read. What is root's may be there for a
// group of this process alone, or by an access list for this user alone: so
// systemd, Kubernetes and administrators keep secrets for a service.
func (p *Places) judgeSecret(n node) error {
	us := p.who()
	mode, gid := n.info.Mode().Perm(), int(n.gid())
	if mode&0o077 == 0 {
		return nil
	}
	if p.Credentials != "" && mode&0o027 == 0 {
		if dir, err := filepath.EvalSymlinks(p.Credentials); err == nil && dir == filepath.Dir(n.path) {
			return nil
		}
	}
	uid := int(n.uid())
	if uid == 0 && mode&0o027 == 0 && (us.uid != 0 || gid != os.Getegid()) {
		list, err := accessList(n.path)
		if err == nil && list.isFor(us, gid) {
			return nil
		}
	}
	remedy := "chmod go-rwx "
	if uid != us.uid {
		remedy = us.sudo(uid) + "chmod o-rwx,g-w "
		if !us.isMember(gid) {
			remedy = us.sudo(uid) + "chmod go-rwx "
		}
	}
	return &PermissionError{Path: n.path, Mode: n.info.Mode(), Remedy: remedy + shellQuote(n.path)}
}

// acl is who has which rights to a file beside its owner.
type acl struct {
	group   uint16 // of the owning group
	users   map[int]uint16
	groups  map[int]uint16
	present bool // there is a list; else the mode says all
}

// isFor reports whether a list lets nobody read but this user and its groups.
func (l acl) isFor(us *identity, gid int) bool {
	const read = 4
	if !l.present {
		return us.isMember(gid)
	}
	if l.group&read != 0 && !us.isMember(gid) {
		return false
	}
	for uid, rights := range l.users {
		if rights&read != 0 && uid != us.uid && uid != 0 {
			return false
		}
	}
	for gid, rights := range l.groups {
		if rights&read != 0 && !us.isMember(gid) {
			return false
		}
	}
	return true
}

// identity is who this process is.
type identity struct {
	uid    int
	groups []int

	overflown int // the overflow uid, -1 where it counts for nothing
	looked    bool
}

func (p *Places) who() *identity {
	if p.us == nil {
		p.us = &identity{uid: os.Geteuid()}
	}
	return p.us
}

func (us *identity) isMember(gid int) bool {
	if us.groups == nil {
		us.groups, _ = syscall.Getgroups()
		us.groups = append(us.groups, os.Getegid())
	}
	return slices.Contains(us.groups, gid)
}

// overflow is whose everything seems to be that belongs to nobody in this user
// namespace, -1 outside of one.
func (us *identity) overflow() int {
	if !us.looked {
		us.looked, us.overflown = true, OverflowUID()
	}
	return us.overflown
}

// isPrivate reports whether a group has no other member than this user, whose
// name it has.
func (us *identity) isPrivate(gid int) bool {
	self, err := user.LookupId(strconv.Itoa(us.uid))
	if err != nil {
		return false
	}
	return isPrivateGroup(self.Username, gid, readDatabase("/etc/passwd"), readDatabase("/etc/group"))
}

// isPrivateGroup looks through the lines of passwd(5) and group(5). A group that
// is not in them is nobody's private one, as nobody can tell who is in it.
func isPrivateGroup(name string, gid int, passwd, groups [][]string) bool {
	number := strconv.Itoa(gid)
	found := false
	for _, f := range groups {
		if len(f) < 4 || f[2] != number {
			continue
		}
		if f[0] != name {
			return false
		}
		found = true
		for member := range strings.SplitSeq(f[3], ",") {
			if member = strings.TrimSpace(member); member != "" && member != name {
				return false
			}
		}
	}
	for _, f := range passwd {
		if len(f) >= 4 && f[3] == number && f[0] != name {
			return false
		}
	}
	return found
}

func readDatabase(path string) (lines [][]string) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(text)) {
		lines = append(lines, strings.Split(strings.TrimSpace(line), ":"))
	}
	return lines
}

// foreign is the refusal of what belongs to another user.
func (us *identity) foreign(n node) error {
	uid := int(n.uid())
	e := &PermissionError{Path: n.path, Owner: ownerName(uid),
		why:    "who can change it",
		Remedy: fmt.Sprintf("sudo chown -R %s %s", us.name(), shellQuote(n.path))}
	if us.uid == 0 {
		e.why = "and root does not work in another user's directories"
		e.Remedy = fmt.Sprintf("sudo -u %s upsauth …", accountOf(uid))
	}
	return e
}

// name is how a command names this user.
func (us *identity) name() string {
	if u, err := user.LookupId(strconv.Itoa(us.uid)); err == nil {
		return u.Username
	}
	return strconv.Itoa(us.uid)
}

// sudo begins the remedy for what is not this user's.
func (us *identity) sudo(uid int) string {
	if uid == us.uid || us.uid == 0 {
		return ""
	}
	return "sudo "
}

func ownerName(uid int) string {
	if u, err := user.LookupId(strconv.Itoa(uid)); err == nil {
		return "the user " + u.Username
	}
	return fmt.Sprintf("the user number %d", uid)
}

// accountOf is how sudo takes a user.
func accountOf(uid int) string {
	if u, err := user.LookupId(strconv.Itoa(uid)); err == nil {
		return u.Username
	}
	return fmt.Sprintf("'#%d'", uid)
}

// denied finds whose right it is that keeps this user from a path: the file's, or
// that of a directory above it. Nil where that can't be told.
func denied(path string, cause error) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil //nolint:nilerr // it can't be told
	}
	info, err := os.Stat(path)
	for err != nil && path != "/" {
		path = filepath.Dir(path)
		info, err = os.Stat(path)
	}
	if err != nil {
		return nil //nolint:nilerr // as above
	}
	us := &identity{uid: os.Geteuid()}
	n := node{path, info}
	uid := int(n.uid())
	e := &AccessError{Path: path, Owner: ownerName(uid), Mode: info.Mode(), Err: cause}
	switch {
	case us.uid == 0:
		return nil // it is no question of whose it is
	case uid == us.uid && info.IsDir():
		e.Remedy = "chmod u+rwx " + shellQuote(path)
	case uid == us.uid:
		e.Remedy = "chmod u+rw " + shellQuote(path)
	case info.IsDir():
		e.Remedy = fmt.Sprintf("sudo chown -R %s %s", us.name(), shellQuote(path))
	default:
		e.Remedy = fmt.Sprintf("sudo chown %s %s", us.name(), shellQuote(path))
	}
	return e
}

// Read returns what is in a file of upsauth's own, in a directory that was
// checked: it is no link, and nobody else can write it. The content is in buf
// where that is large enough; errors are those of os.ReadFile, of Explain, or a
// *PermissionError. Where a file is one of thousands it takes half the time of
// os.ReadFile: os.Open first tries in five calls whether a file can be waited for.
func (p *Places) Read(path string, buf []byte) ([]byte, error) {
	fd, err := again(func() (int, error) {
		return syscall.Open(path, syscall.O_RDONLY|syscall.O_CLOEXEC|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	})
	if err != nil {
		return nil, notOpened(path, err)
	}
	defer func() { _ = syscall.Close(fd) }()
	var stat syscall.Stat_t
	if err := syscall.Fstat(fd, &stat); err != nil {
		return nil, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	if err := checkKind(path, kindIn(uint32(stat.Mode))); err != nil { //nolint:unconvert // other systems have other types
		return nil, err
	}
	if stat.Uid != 0 && int(stat.Uid) != os.Geteuid() || stat.Mode&0o022 != 0 {
		if err := p.Check(path); err != nil {
			return nil, err
		}
	}
	return readAll(fd, path, stat.Size, buf)
}

// OpenOwn opens a file of upsauth's own, in a directory that was checked: a link
// is not followed, and what is no regular file is a *KindError. The flags are those of
// os.OpenFile; a file that it makes has mode 0600.
func OpenOwn(path string, flag int) (*os.File, error) {
	file, err := open(path, flag|syscall.O_NOFOLLOW|syscall.O_NONBLOCK|syscall.O_NOCTTY)
	if err != nil {
		if info, statErr := os.Lstat(path); statErr == nil && info.Mode()&os.ModeSymlink == 0 {
			if err := checkKind(path, info.Mode()); err != nil {
				return nil, err
			}
		}
		return nil, Explain(path, err)
	}
	if err := checkOpen(file); err != nil {
		_ = file.Close()
		return nil, err
	}
	return file, nil
}

// isLink reports whether an error says that a link was not followed.
func isLink(err error) bool {
	// FreeBSD says EMLINK.
	return errors.Is(err, syscall.ELOOP) || errors.Is(err, syscall.EMLINK)
}

// NoLink is the flag that keeps an open from following a link.
const NoLink = syscall.O_NOFOLLOW
