package powerloss

import "fmt"

// kind is what an operation does.
type kind int

const (
	// Data: of one file, on disk once that file is synced.
	write  kind = iota // data at an offset
	resize             // to a size; what is new is zero

	// Names: of one directory or two, on disk once one of them is synced.
	create // a file under a new name
	mkdir
	link
	rename // in one step, over what has the name
	remove // a file or an empty directory

	// Syncs.
	sync    // of a file's data or of a directory's names
	syncAll // of everything

	// Moments, which do nothing to the disk.
	asked    // the first byte of a request to UPS's token endpoints has been sent
	answered // the first byte of its answer has come
	ended    // a command has ended
)

// operation is one step of the recorded commands, in the order in which they happened.
type operation struct {
	kind   kind
	node   node   // the file or directory; of sync too
	dir    node   // of a name
	name   string // in dir
	to     node   // of a rename: the directory and the name
	toName string
	offset int64
	data   []byte
	size   int64
	words  string // for people
}

func (o operation) String() string { return o.words }

func (o operation) isData() bool { return o.kind == write || o.kind == resize }

func (o operation) isName() bool { return create <= o.kind && o.kind <= remove }

func (o operation) isMoment() bool { return o.kind >= asked }

// touches reports whether the operation changes names of a directory.
func (o operation) touches(dir node) bool {
	return o.isName() && (o.dir == dir || o.kind == rename && o.to == dir)
}

// add makes what the operation creates known to a disk, without a name.
func (o operation) introduce(d *disk) {
	switch o.kind {
	case create:
		if _, ok := d.files[o.node]; !ok {
			d.files[o.node] = []byte{}
		}
	case mkdir:
		if _, ok := d.dirs[o.node]; !ok {
			d.dirs[o.node] = map[string]node{}
		}
	}
}

// apply does to a disk what the operation does. An operation whose forerunners are
// missing does what is left of it: a rename puts its file under the new name, whatever
// had the old one.
func (o operation) apply(d *disk) {
	switch o.kind {
	case write:
		d.write(o.node, o.offset, o.data)
	case resize:
		d.resize(o.node, o.size)
	case create, mkdir, link:
		d.dirs[o.dir][o.name] = o.node
	case rename:
		if d.dirs[o.dir][o.name] == o.node {
			delete(d.dirs[o.dir], o.name)
		}
		d.dirs[o.to][o.toName] = o.node
	case remove:
		if d.dirs[o.dir][o.name] == o.node {
			delete(d.dirs[o.dir], o.name)
		}
	}
}

var kindWords = map[kind]string{
	write: "write", resize: "resize", create: "create", mkdir: "mkdir", link: "link", rename: "rename", remove: "remove",
	sync: "sync", syncAll: "sync everything", asked: "UPS is asked", answered: "UPS has answered", ended: "the command has ended",
}

func words(k kind, format string, args ...any) string {
	return kindWords[k] + fmt.Sprintf(format, args...)
}
