package powerloss

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// node is a file or directory, whatever it is called at the moment. A temporary file
// that is written, synced and renamed is one node throughout.
type node int

// top is the directory that the recording watches.
const top node = 0

// disk is a tree of files. Directories that nothing leads to any more stay in it and
// are not seen.
type disk struct {
	dirs  map[node]map[string]node
	files map[node][]byte // never changed in place: clones and operations share them
}

func newDisk() *disk {
	return &disk{dirs: map[node]map[string]node{top: {}}, files: map[node][]byte{}}
}

func (d *disk) clone() *disk {
	c := &disk{dirs: make(map[node]map[string]node, len(d.dirs)), files: maps.Clone(d.files)}
	for n, names := range d.dirs {
		c.dirs[n] = maps.Clone(names)
	}
	return c
}

// next is a node that nothing has yet.
func (d *disk) next() node { return node(len(d.dirs) + len(d.files)) }

// find is the node of a path below top, in slashes, empty for top itself.
func (d *disk) find(path string) (node, bool) {
	n := top
	if path == "" {
		return n, true
	}
	for name := range strings.SplitSeq(path, "/") {
		var ok bool
		if n, ok = d.dirs[n][name]; !ok {
			return 0, false
		}
	}
	return n, true
}

// write puts data at an offset. What lies between the old end and the offset is zero.
func (d *disk) write(n node, offset int64, data []byte) {
	old := d.files[n]
	if offset == 0 && len(data) >= len(old) {
		d.files[n] = data
		return
	}
	fresh := make([]byte, max(int64(len(old)), offset+int64(len(data))))
	copy(fresh, old)
	copy(fresh[offset:], data)
	d.files[n] = fresh
}

func (d *disk) resize(n node, size int64) {
	fresh := make([]byte, size)
	copy(fresh, d.files[n])
	d.files[n] = fresh
}

// walk calls f for every file and directory below top, in order; data is nil for a
// directory.
func (d *disk) walk(f func(path string, data []byte)) { d.walkFrom(top, "", f) }

func (d *disk) walkFrom(dir node, prefix string, f func(path string, data []byte)) {
	for _, name := range slices.Sorted(maps.Keys(d.dirs[dir])) {
		n := d.dirs[dir][name]
		if _, isDir := d.dirs[n]; isDir {
			f(prefix+name, nil)
			d.walkFrom(n, prefix+name+"/", f)
			continue
		}
		data := d.files[n]
		if data == nil {
			data = []byte{}
		}
		f(prefix+name, data)
	}
}

// sum is the same for disks that look the same.
func (d *disk) sum() string {
	h := sha256.New()
	d.walk(func(path string, data []byte) {
		size := int64(-1)
		if data != nil {
			size = int64(len(data))
		}
		fmt.Fprintf(h, "%q ", path)
		_ = binary.Write(h, binary.LittleEndian, size)
		h.Write(data)
	})
	return hex.EncodeToString(h.Sum(nil))
}

// read makes a disk of what lies in a directory.
func read(tb testing.TB, dir string) *disk {
	tb.Helper()
	d := newDisk()
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		if entry.IsDir() {
			d.add(rel, nil)
			return nil
		}
		data, err := os.ReadFile(path)
		d.add(rel, append([]byte{}, data...))
		return err
	})
	if err != nil {
		tb.Fatal(err)
	}
	return d
}

// add puts a file there, or a directory where data is nil. Its directory is there.
func (d *disk) add(path string, data []byte) {
	dir := top
	name := path
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		dir, _ = d.find(path[:i])
		name = path[i+1:]
	}
	n := d.next()
	if data == nil {
		d.dirs[n] = map[string]node{}
	} else {
		d.files[n] = data
	}
	d.dirs[dir][name] = n
}

// inAnotherRun is the disk as it is once the system has started anew: what names the run
// of the system, as boot_id in random(4), names an earlier one.
func (d *disk) inAnotherRun(tb testing.TB) *disk {
	tb.Helper()
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		tb.Fatal(err)
	}
	now := bytes.TrimSpace(text)
	then := bytes.Repeat([]byte("0"), len(now))
	other := d.clone()
	for n, data := range other.files {
		if bytes.Contains(data, now) {
			other.files[n] = bytes.ReplaceAll(data, now, then)
		}
	}
	return other
}

// materialize writes the disk into a directory that is empty, readable to this user
// alone, as upsauth leaves it.
func (d *disk) materialize(tb testing.TB, dir string) {
	tb.Helper()
	d.walk(func(path string, data []byte) {
		path = filepath.Join(dir, path)
		var err error
		if data == nil {
			err = os.Mkdir(path, 0o700)
		} else {
			err = os.WriteFile(path, data, 0o600)
		}
		if err != nil {
			tb.Fatal(err)
		}
	})
}
