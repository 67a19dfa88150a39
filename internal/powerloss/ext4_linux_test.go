package powerloss

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// device is a real ext4 in a file, which can be copied as it is at any instant: what
// the kernel has not yet written to it is what a loss of power takes.
type device struct {
	t     *testing.T
	image string
	dir   string // where it is mounted
	now   *disk
}

// newDevice makes and mounts one. Where that may not be done, it skips the test: only
// root may, and not in every container.
func newDevice(t *testing.T, dir string, base *disk) *device {
	t.Helper()
	v := &device{t: t, image: filepath.Join(dir, "image"), dir: filepath.Join(dir, "mounted"), now: base.clone()}
	if err := os.Mkdir(v.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(v.image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(v.image, 16<<20); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs.ext4", "-q", "-F", v.image).CombinedOutput(); err != nil {
		t.Skipf("an ext4 can't be made here: %v: %s", err, out)
	}
	if out, err := exec.Command("mount", "-o", "loop", v.image, v.dir).CombinedOutput(); err != nil {
		t.Skipf("an ext4 can't be mounted here: %v: %s", err, out)
	}
	t.Cleanup(func() { unmount(t, v.dir) })
	if err := os.Mkdir(v.home(), 0o700); err != nil {
		t.Fatal(err)
	}
	base.materialize(t, v.home())
	v.syncAll()
	return v
}

func unmount(t *testing.T, dir string) {
	if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
		t.Errorf("umount: %v: %s", err, out)
	}
}

func (v *device) home() string { return filepath.Join(v.dir, "home") }

func (v *device) syncAll() {
	f, err := os.Open(v.dir)
	if err != nil {
		v.t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		v.t.Fatal(err)
	}
}

// path is where a node is now; there is none of what has no name any more.
func (v *device) path(n node) (string, bool) {
	if n == top {
		return v.home(), true
	}
	var find func(dir node, path string) (string, bool)
	find = func(dir node, path string) (string, bool) {
		for name, at := range v.now.dirs[dir] {
			below := filepath.Join(path, name)
			if at == n {
				return below, true
			}
			if found, ok := find(at, below); ok {
				return found, true
			}
		}
		return "", false
	}
	return find(top, v.home())
}

// do does what an operation did.
func (v *device) do(o operation) {
	v.t.Helper()
	var err error
	in := func(dir node, name string) string {
		path, _ := v.path(dir)
		return filepath.Join(path, name)
	}
	switch o.kind {
	case create:
		err = os.WriteFile(in(o.dir, o.name), nil, 0o600)
	case mkdir:
		err = os.Mkdir(in(o.dir, o.name), 0o700)
	case link:
		from, _ := v.path(o.node)
		err = os.Link(from, in(o.dir, o.name))
	case rename:
		err = os.Rename(in(o.dir, o.name), in(o.to, o.toName))
	case remove:
		err = os.Remove(in(o.dir, o.name))
	case syncAll:
		v.syncAll()
	case write, resize, sync:
		err = v.doTo(o)
	}
	if err != nil {
		v.t.Fatalf("%s: %v", o, err)
	}
	o.introduce(v.now)
	o.apply(v.now)
}

func (v *device) doTo(o operation) error {
	path, ok := v.path(o.node)
	if !ok {
		return nil
	}
	how := os.O_WRONLY
	if _, isDir := v.now.dirs[o.node]; isDir {
		how = os.O_RDONLY
	}
	f, err := os.OpenFile(path, how, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	switch o.kind {
	case write:
		_, err = f.WriteAt(o.data, o.offset)
	case resize:
		err = f.Truncate(o.size)
	case sync:
		err = f.Sync()
	}
	return err
}

// lose is what a loss of power leaves behind now, once the journal of ext4 is replayed.
func (v *device) lose() *disk {
	v.t.Helper()
	image, err := os.ReadFile(v.image)
	if err != nil {
		v.t.Fatal(err)
	}
	dir, err := os.MkdirTemp(filepath.Dir(v.image), "lost")
	if err != nil {
		v.t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	copied, mounted := filepath.Join(dir, "image"), filepath.Join(dir, "mounted")
	if err := os.WriteFile(copied, image, 0o600); err != nil {
		v.t.Fatal(err)
	}
	if err := os.Mkdir(mounted, 0o700); err != nil {
		v.t.Fatal(err)
	}
	if out, err := exec.Command("mount", "-o", "loop", copied, mounted).CombinedOutput(); err != nil {
		v.t.Fatalf("mount: %v: %s", err, out)
	}
	defer unmount(v.t, mounted)
	return read(v.t, filepath.Join(mounted, "home"))
}

// TestPowerLossOnExt4 does what commands did on a real ext4, and lets the power fail
// behind every operation. What the simulation says of ext4 is judged in TestPowerLoss;
// here ext4 says it.
func TestPowerLossOnExt4(t *testing.T) {
	program := programForStrace(t)
	if os.Getuid() != 0 {
		t.Skip("only root may mount a file system")
	}
	dir := fast(t)
	for _, s := range scenarios {
		if !*allOf && s.name != "refresh" {
			continue
		}
		t.Run(s.name, func(t *testing.T) {
			rec := record(t, program, s)
			v := newDevice(t, fast(t), rec.base)
			var list []state
			seen := map[string]bool{}
			for step := range len(rec.list) + 1 {
				if step > 0 {
					v.do(rec.list[step-1])
				}
				if step > 0 && step < len(rec.list) && rec.list[step-1].kind == create {
					continue // nothing has reached the disk for it
				}
				d := v.lose()
				for ups, m := range rec.moments(step) {
					if key := fmt.Sprintf("%s %d %+v", d.sum(), ups, m); !seen[key] {
						seen[key] = true
						list = append(list, state{step, "as ext4 has it", d, rec.ups[ups], m})
					}
				}
			}
			failures := rec.judge(t, dir, list)
			report(t, failures, rec.name)
			t.Logf("%d operations, %d states, %d wrong", len(rec.list), len(list), len(failures))
		})
	}
}
