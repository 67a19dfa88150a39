package safefile

import (
	"encoding/binary"
	"errors"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// accessList reads a POSIX access list as the kernel keeps it (acl(5),
// linux/posix_acl_xattr.h). Where there is one, the group's permissions in the
// mode are the most that anybody named in it has.
func accessList(path string) (acl, error) {
	const (
		userEntry  = 0x02
		ownerGroup = 0x04
		groupEntry = 0x08
		maskEntry  = 0x10
	)
	buf := make([]byte, 4<<10)
	n, err := unix.Getxattr(path, "system.posix_acl_access", buf)
	if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.EOPNOTSUPP) {
		return acl{}, nil
	}
	if err != nil {
		return acl{}, err
	}
	entries := buf[:n]
	if len(entries) < 4 || binary.LittleEndian.Uint32(entries) != 2 {
		return acl{}, errors.New("an access list of an unknown kind")
	}
	list := acl{present: true, users: map[int]uint16{}, groups: map[int]uint16{}}
	mask := uint16(7)
	for entries = entries[4:]; len(entries) >= 8; entries = entries[8:] {
		rights, id := binary.LittleEndian.Uint16(entries[2:]), int(binary.LittleEndian.Uint32(entries[4:]))
		switch binary.LittleEndian.Uint16(entries) {
		case userEntry:
			list.users[id] = rights
		case ownerGroup:
			list.group = rights
		case groupEntry:
			list.groups[id] = rights
		case maskEntry:
			mask = rights
		}
	}
	list.group &= mask
	for id := range list.users {
		list.users[id] &= mask
	}
	for id := range list.groups {
		list.groups[id] &= mask
	}
	return list, nil
}

// OverflowUID is the number that stands for every user of the machine who has none
// in this user namespace, and -1 where every user of the machine has a number here.
func OverflowUID() int {
	mapped, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		return -1
	}
	if f := strings.Fields(string(mapped)); len(f) == 3 && f[0] == "0" && f[1] == "0" && f[2] == "4294967295" {
		return -1
	}
	text, err := os.ReadFile("/proc/sys/kernel/overflowuid")
	if err != nil {
		return 65534
	}
	uid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 65534
	}
	return uid
}
