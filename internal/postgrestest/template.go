package postgrestest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// template is a new cluster's data directory, in memory: so that it is made once only in
// a test binary, and is never left on the disk.
type template []templateFile

type templateFile struct {
	path string // within the data directory
	dir  bool
	data []byte
}

// newTemplate is called once in a test binary, as initdb takes a second.
var newTemplate = sync.OnceValues(func() (template, error) {
	n, err := newNest(false)
	if err != nil {
		return nil, err
	}
	t, err := n.makeTemplate()
	return t, errors.Join(err, n.remove())
})

func (n *nest) makeTemplate() (template, error) {
	data, password := filepath.Join(n.dir, "data"), filepath.Join(n.dir, "password")
	if err := n.write(password, []byte(Password+"\n")); err != nil {
		return nil, err
	}
	// A language's order, so that a test sees what depends on the order by mistake:
	// C.UTF-8 is there everywhere, and a database of ICU can be made in any cluster.
	if _, err := n.run(nil, "initdb", "--pgdata="+data, "--username="+Superuser, "--pwfile="+password,
		"--auth-local=trust", "--auth-host=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8",
		"--no-sync", "--wal-segsize=1"); err != nil {
		return nil, err
	}
	var t template
	err := filepath.WalkDir(data, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == data {
			return err
		}
		f := templateFile{dir: d.IsDir()}
		if f.path, err = filepath.Rel(data, path); err != nil {
			return err
		}
		if !f.dir {
			f.data, err = os.ReadFile(path) //nolint:gosec // nobody else can write below it
		}
		t = append(t, f)
		return err
	})
	return t, err
}

// copyTo makes a cluster in an empty directory. It has a system identifier of its own,
// as if initdb had made it.
func (t template) copyTo(dir string, user account) error {
	identifier := rand.Uint64() >> 1
	for _, f := range t {
		path := filepath.Join(dir, f.path)
		if f.dir {
			if err := os.Mkdir(path, 0o700); err != nil {
				return err
			}
		} else {
			data, err := f.withIdentifier(identifier)
			if err != nil {
				return err
			}
			if err := os.WriteFile(path, data, 0o600); err != nil {
				return err
			}
		}
		if err := user.own(path); err != nil {
			return err
		}
	}
	return nil
}

// withIdentifier returns a file's content with another system identifier, which is in two
// places: at the beginning of pg_control, and behind the 24 bytes of the header that each
// file of the write-ahead log has.
func (f templateFile) withIdentifier(identifier uint64) ([]byte, error) {
	switch {
	case f.path == "global/pg_control":
		data := bytes.Clone(f.data)
		// The sum's place differs from version to version: it is where the sum of all
		// that comes before is found.
		table := crc32.MakeTable(crc32.Castagnoli)
		for at := 8; at+4 <= len(data); at += 4 {
			if binary.NativeEndian.Uint32(data[at:]) == crc32.Checksum(data[:at], table) {
				binary.NativeEndian.PutUint64(data, identifier)
				binary.NativeEndian.PutUint32(data[at:], crc32.Checksum(data[:at], table))
				return data, nil
			}
		}
		return nil, errors.New("pg_control has no checksum that is known here")
	case strings.HasPrefix(f.path, "pg_wal/0"):
		data := bytes.Clone(f.data)
		binary.NativeEndian.PutUint64(data[24:], identifier)
		return data, nil
	}
	return f.data, nil
}
