package powerloss

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// seen writes a disk as one line.
func seen(d *disk) string {
	var parts []string
	d.walk(func(path string, data []byte) {
		switch {
		case data == nil:
			path += "/"
		case len(data) > 20:
			var runs []string
			for i := 0; i < len(data); i += sector {
				runs = append(runs, fmt.Sprintf("%q", data[i]))
			}
			path += "=" + strings.Join(runs, "")
		default:
			path += fmt.Sprintf("=%q", data)
		}
		parts = append(parts, path)
	})
	return strings.Join(parts, " ")
}

// The states are those that the file systems are known for, and none that no file
// system makes of what was synced.
func TestSimulation(t *testing.T) {
	const replace = `1 openat(5</r/s>, ".old1", O_RDWR|O_CREAT|O_EXCL, 0600) = 3</r/s/.old1>
1 write(3</r/s/.old1>, "new", 3) = 3
`
	const synced = "1 fsync(3</r/s/.old1>) = 0\n"
	const renamed = `1 renameat(5</r/s>, ".old1", 5</r/s>, "old") = 0
`
	tests := []struct {
		name, trace string
		want        []string // are among the states
		never       []string // are in none of them
		only        bool     // want is all that there is
	}{
		{name: "nothing happens", want: []string{`d/ s/ s/old="old"`}, only: true},
		{
			name: "a file replaced without a sync", trace: replace + renamed,
			want:  []string{`d/ s/ s/old="old"`, `d/ s/ s/old="new"`, `d/ s/ s/old=""`, `d/ s/ s/old="\x00\x00\x00"`, `d/ s/ s/.old1="new" s/old="old"`},
			never: []string{"s/ s/.old1=\"new\"\n"},
		},
		{
			name: "a file replaced with a sync, and none of its directory", trace: replace + synced + renamed,
			want: []string{`d/ s/ s/old="old"`, `d/ s/ s/old="new"`, `d/ s/ s/.old1="new" s/old="old"`},
			only: true,
		},
		{
			name: "with both", trace: replace + synced + renamed + "1 fsync(5</r/s>) = 0",
			want: []string{`d/ s/ s/old="new"`}, only: true,
		},
		{
			name: "the file is synced behind the rename", trace: replace + renamed + "1 fsync(5</r/s>) = 0",
			want: []string{`d/ s/ s/old="new"`, `d/ s/ s/old=""`, `d/ s/ s/old="\x00\x00\x00"`}, only: true,
		},
		{
			name: "names of two directories",
			trace: `1 openat(5</r/s>, "a", O_RDWR|O_CREAT, 0600) = 3</r/s/a>
1 openat(6</r/d>, "b", O_RDWR|O_CREAT, 0600) = 4</r/d/b>
1 unlinkat(5</r/s>, "old", 0) = 0`,
			want: []string{`d/ s/ s/old="old"`, `d/ d/b="" s/ s/old="old"`, `d/ d/b="" s/ s/a=""`, `d/ s/ s/a=""`, `d/ d/b="" s/ s/a="" s/old="old"`},
		},
		{
			name:  "a rename from one directory to another has both names or neither",
			trace: `1 renameat(5</r/s>, "old", 6</r/d>, "new") = 0`,
			want:  []string{`d/ s/ s/old="old"`, `d/ d/new="old" s/`}, only: true,
		},
		{
			name: "a directory without its name takes what is in it along",
			trace: `1 mkdirat(5</r/s>, "n", 0700) = 0
1 openat(7</r/s/n>, "f", O_RDWR|O_CREAT, 0600) = 3</r/s/n/f>
1 fsync(3</r/s/n/f>) = 0
1 fsync(7</r/s/n>) = 0`,
			want: []string{`d/ s/ s/old="old"`, `d/ s/ s/n/ s/n/f="" s/old="old"`}, only: true,
		},
		{name: "everything synced", trace: replace + renamed + "1 sync() = 0", want: []string{`d/ s/ s/old="new"`}, only: true},
		{
			name: "an overwrite within a sector is whole or not there",
			trace: `1 pwrite64(3</r/s/old>, "NEW", 3, 0) = 3
1 fsync(6</r/d>) = 0`,
			want: []string{`d/ s/ s/old="old"`, `d/ s/ s/old="NEW"`}, only: true,
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			base := newDisk()
			base.add("d", nil)
			base.add("s", nil)
			base.add("s/old", []byte("old"))
			got := states(t, base, inHex(test.trace))
			for _, want := range test.want {
				if !slices.Contains(got, want) {
					t.Errorf("no state is %s", want)
				}
			}
			if test.only && len(got) != len(test.want) || slices.ContainsFunc(test.never, func(s string) bool { return slices.Contains(got, s) }) {
				t.Errorf("the states are\n%s", strings.Join(got, "\n"))
			}
		})
	}
}

// states are the disks after the whole trace.
func states(t *testing.T, base *disk, trace string) []string {
	t.Helper()
	r := newRecorder("/r", base)
	if err := r.trace(trace); err != nil {
		t.Fatal(err)
	}
	s := newSimulation(base)
	for _, o := range r.list {
		s.step(o)
	}
	var list []string
	s.crashes(30, rand.New(rand.NewPCG(1, 2)), func(c crash) {
		if line := seen(c.disk); !slices.Contains(list, line) {
			list = append(list, line)
		}
	})
	return list
}

// A write tears between sectors of the disk, not of the write.
func TestTornWrite(t *testing.T) {
	base := newDisk()
	base.add("f", bytes.Repeat([]byte("o"), 4*sector))
	o := operation{kind: write, node: 1, offset: sector + 100, data: bytes.Repeat([]byte("n"), 3*sector), words: "write f"}
	for fate, want := range map[dataFate][]int{ // how many bytes of each sector are new
		kept:        {0, 412, 512, 512, 100},
		dropped:     {0, 0, 0, 0},
		zeroed:      {0, 0, 0, 0, 0},
		firstHalf:   {0, 412, 512, 0, 0},
		secondHalf:  {0, 0, 0, 512, 100},
		interleaved: {0, 0, 512, 0, 100},
	} {
		d := base.clone()
		applied(d, o, fate, nil)
		var got []int
		for piece := range slices.Chunk(d.files[1], sector) {
			got = append(got, bytes.Count(piece, []byte("n")))
		}
		if !slices.Equal(got, want) {
			t.Errorf("fate %d: %v, want %v", fate, got, want)
		}
	}
	if !bytes.Equal(base.files[1], bytes.Repeat([]byte("o"), 4*sector)) {
		t.Error("a clone changed what it was made of")
	}
}

// An answer is durable with the first file that is synced behind it; a new file needs
// its name too.
func TestSealed(t *testing.T) {
	const answer = `1 write(9<socket:[1]>, "POST /security/v1/oauth/refresh HTTP/1.1", 40) = 40
1 read(9<socket:[1]>, "HTTP/1.1 200 OK", 4096) = 15
`
	for name, test := range map[string]struct {
		trace string
		want  int
	}{
		"into a file that is there": {answer + `1 fsync(6</r/d>) = 0
1 pwrite64(3</r/s/old>, "new", 3, 0) = 3
1 fdatasync(3</r/s/old>) = 0
1 fsync(5</r/s>) = 0`, 5},
		"another file is synced first": {answer + `1 pwrite64(3</r/s/old>, "new", 3, 0) = 3
1 fsync(4</r/s/other>) = 0
1 fsync(3</r/s/old>) = 0`, 5},
		"into a new file": {answer + `1 openat(5</r/s>, ".new", O_RDWR|O_CREAT|O_EXCL, 0600) = 3</r/s/.new>
1 write(3</r/s/.new>, "new", 3) = 3
1 fsync(3</r/s/.new>) = 0
1 fsync(5</r/s>) = 0
1 renameat(5</r/s>, ".new", 6</r/d>, "new") = 0
1 fsync(6</r/d>) = 0`, 8},
		"of everything": {answer + `1 pwrite64(3</r/s/old>, "new", 3, 0) = 3
1 sync() = 0`, 4},
		"never": {answer + `1 pwrite64(3</r/s/old>, "new", 3, 0) = 3
1 fsync(5</r/s>) = 0`, 0},
	} {
		t.Run(name, func(t *testing.T) {
			base := newDisk()
			base.add("d", nil)
			base.add("s", nil)
			base.add("s/old", []byte("old"))
			base.add("s/other", []byte("other"))
			r := newRecorder("/r", base)
			if err := r.trace(inHex(test.trace)); err != nil {
				t.Fatal(err)
			}
			if got := sealed(r.list, 2); got != test.want {
				t.Errorf("durable behind %d operations, want %d: %v", got, test.want, r.list)
			}
		})
	}
}
