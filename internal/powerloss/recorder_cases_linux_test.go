package powerloss

import (
	"encoding/hex"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// inHex writes the texts and paths of a trace as strace -xx does.
func inHex(trace string) string {
	escape := func(s string) string {
		var out strings.Builder
		for _, b := range []byte(s) {
			out.WriteString(`\x` + hex.EncodeToString([]byte{b}))
		}
		return out.String()
	}
	trace = regexp.MustCompile(`"[^"]*"`).ReplaceAllStringFunc(trace, func(s string) string {
		return `"` + escape(strings.ReplaceAll(s[1:len(s)-1], `\n`, "\n")) + `"`
	})
	return regexp.MustCompile(`</[^>]*>`).ReplaceAllStringFunc(trace, func(s string) string {
		return "<" + escape(s[1:len(s)-1]) + ">"
	})
}

// The recorder follows files through every call by which a program can change them,
// and refuses what it can't follow.
func TestRecorder(t *testing.T) {
	base := newDisk()
	base.add("s", nil)
	base.add("s/old", []byte("old"))
	tests := []struct {
		name, trace string
		want        []string
		disk        map[string]string // below s
		refused     string
	}{
		{
			name: "a file that is replaced",
			trace: `1 openat(AT_FDCWD</w>, "/r/s/.old1", O_RDWR|O_CREAT|O_EXCL|O_CLOEXEC, 0600) = 3</r/s/.old1>
1 write(3</r/s/.old1>, "new one", 7) = 7
1 fsync(3</r/s/.old1>)          = 0
1 renameat(AT_FDCWD</w>, "/r/s/.old1", AT_FDCWD</w>, "/r/s/old") = 0
1 openat(AT_FDCWD</w>, "/r/s", O_RDONLY|O_CLOEXEC) = 3</r/s>
1 fsync(3</r/s>)                = 0`,
			want: []string{"create s/.old1", "write s/.old1, 7 bytes at 0", "sync s/.old1", "rename s/.old1 to s/old", "sync s"},
			disk: map[string]string{"old": "new one"},
		},
		{
			name: "calls of two threads that overlap count from their end",
			trace: `1 fsync(3</r/s/old> <unfinished ...>
2 pwrite64(4</r/s/old>, "XY", 2, 1 <unfinished ...>
2 <... pwrite64 resumed>) = 2
1 <... fsync resumed>) = 0`,
			want: []string{"write s/old, 2 bytes at 1", "sync s/old"},
			disk: map[string]string{"old": "oXY"},
		},
		{
			name: "a text that comes only when the call ends",
			trace: `1 read(9<socket:[1]>,  <unfinished ...>
2 write(9<socket:[1]>, "POST /security/v1/oauth/refresh HTTP/1.1", 40 <unfinished ...>
2 <... write resumed>) = 40
1 <... read resumed>"HTTP/1.1 200 OK", 4096) = 15
1 read(9<socket:[1]>, "more", 4096) = 4`,
			want: []string{"UPS is asked at /security/v1/oauth/refresh", "UPS has answered"},
			disk: map[string]string{"old": "old"},
		},
		{
			name: "an empty answer is none, nor is another request one",
			trace: `1 write(9<socket:[1]>, "POST /security/v1/oauth/tokens HTTP/1.1", 39) = 39
1 write(9<socket:[1]>, "POST /security/v1/oauth/token HTTP/1.1", 38) = 38
1 read(9<socket:[1]>, 0xc000, 4096) = -1 EAGAIN (Resource temporarily unavailable)
1 read(9<socket:[1]>, "", 4096) = 0
1 read(8<socket:[2]>, "HTTP/1.1 200 OK", 4096) = 15`,
			want: []string{"UPS is asked at /security/v1/oauth/token"},
			disk: map[string]string{"old": "old"},
		},
		{
			name: "calls that fail do nothing",
			trace: `1 unlinkat(AT_FDCWD</w>, "/r/s/old", AT_REMOVEDIR) = -1 ENOTDIR (Not a directory)
1 pwrite64(4</r/s/old>, "XY", 2, 1) = -1 EIO (Input/output error) (INJECTED)
1 fsync(4</r/s/old>) = ? ERESTARTSYS (To be restarted if SA_RESTART is set)
2 read(5<socket:[1]>,  <unfinished ...>
1 fsync(4</r/s/old> <unfinished ...>) = ?
2 <... read resumed> <unfinished ...>) = ?
3 ???( <detached ...>
1 +++ exited with 0 +++`,
			disk: map[string]string{"old": "old"},
		},
		{
			name: "names in directories that are open, outside, and removed",
			trace: `1 mkdirat(5</r/s>, "d", 0700) = 0
1 openat(6</r/s/d>, "f", O_WRONLY|O_CREAT, 0600) = 7</r/s/d/f>
1 writev(7</r/s/d/f>, [{iov_base="ab", iov_len=2}, {iov_base="c", iov_len=1}], 2) = 3
1 linkat(AT_FDCWD</r>, "s/d/f", 5</r/s>, "g", 0) = 0
1 unlinkat(6</r/s/d>, "f", 0) = 0
1 write(7</r/s/d/f>(deleted), "lost", 4) = 4
1 unlinkat(5</r/s>, "d", AT_REMOVEDIR) = 0
1 openat(AT_FDCWD</r>, "/elsewhere", O_WRONLY|O_CREAT, 0600) = 8</elsewhere>
1 write(8</elsewhere>, "x", 1) = 1
1 rename("/elsewhere", "/r2/s") = 0`,
			want: []string{"mkdir s/d", "create s/d/f", "write s/d/f, 3 bytes at 0", "link s/d/f as s/g", "remove s/d/f", "remove s/d"},
			disk: map[string]string{"old": "old", "g": "abc"},
		},
		{
			name: "from where a descriptor stands",
			trace: `1 openat(AT_FDCWD</w>, "/r/s/old", O_RDWR) = 3</r/s/old>
1 read(3</r/s/old>, "o", 1) = 1
1 write(3</r/s/old>, "r", 1) = 1
1 lseek(3</r/s/old>, 0, SEEK_SET) = 0
1 write(3</r/s/old>, "O", 1) = 1
1 openat(AT_FDCWD</w>, "/r/s/old", O_WRONLY|O_CREAT|O_APPEND, 0600) = 4</r/s/old>
1 write(4</r/s/old>, "er", 2) = 2`,
			want: []string{"write s/old, 1 bytes at 1", "write s/old, 1 bytes at 0", "write s/old, 2 bytes at 3"},
			disk: map[string]string{"old": "Order"},
		},
		{
			name: "sizes",
			trace: `1 openat(AT_FDCWD</r>, "/r/s/old", O_WRONLY|O_CREAT|O_TRUNC, 0600) = 7</r/s/old>
1 fallocate(7</r/s/old>, 0, 0, 4) = 0
1 fallocate(7</r/s/old>, FALLOC_FL_KEEP_SIZE, 0, 4096) = 0
1 fallocate(7</r/s/old>, 0, 1, 2) = 0
1 pwrite64(7</r/s/old>, "ab", 2, 1) = 1
1 ftruncate(7</r/s/old>, 3) = 0
1 fdatasync(7</r/s/old>) = 0
1 sync() = 0`,
			want: []string{"resize s/old to 0 bytes", "resize s/old to 4 bytes", "write s/old, 1 bytes at 1", "resize s/old to 3 bytes", "sync s/old", "sync everything"},
			disk: map[string]string{"old": "\x00a\x00"},
		},
		{name: "a text that is cut short", trace: `1 write(7</r/s/old>, "ab"..., 9) = 9`, refused: "cut a text short"},
		{name: "a copy by the kernel", trace: `1 copy_file_range(7</r/s/old>, NULL, 8</r/s/new>, NULL, 9, 0) = 9`, refused: "can't follow copy_file_range"},
		{name: "a copy elsewhere", trace: `1 copy_file_range(7</a>, NULL, 8</b>, NULL, 9, 0) = 9`, disk: map[string]string{"old": "old"}},
		{name: "a link by name", trace: `1 symlinkat("old", AT_FDCWD</w>, "/r/s/new") = 0`, refused: "can't follow symlinkat"},
		{name: "a rename to elsewhere", trace: `1 rename("/r/s/old", "/elsewhere") = 0`, refused: "can't follow this rename"},
		{name: "an exchange", trace: `1 renameat2(5</r/s>, "old", 5</r/s>, "old", RENAME_EXCHANGE) = 0`, refused: "can't follow this rename"},
		{
			name: "writes that are durable at once",
			trace: `1 openat(5</r/s>, "old", O_WRONLY|O_DSYNC) = 3</r/s/old>
1 pwrite64(3</r/s/old>, "X", 1, 0) = 1`,
			want: []string{"write s/old, 1 bytes at 0", "sync s/old, at once"},
			disk: map[string]string{"old": "Xld"},
		},
		{name: "a file that has no name", trace: `1 openat(AT_FDCWD</w>, "/r/s", O_RDWR|O_TMPFILE, 0600) = 3</r/s/#1>`, refused: "can't follow open with"},
		{name: "a file nobody has seen", trace: `1 fsync(3</r/s/new>) = 0`, refused: "s/new is not known"},
		{name: "a change that nobody has seen the end of", trace: `1 unlink("/r/s/old" <detached ...>`, refused: "it is no call"},
		{name: "the end of nothing", trace: `1 <... fsync resumed>) = 0`, refused: "it resumes nothing"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := newRecorder("/r", base)
			err := r.trace(inHex(test.trace))
			if test.refused != "" {
				if err == nil || !strings.Contains(err.Error(), test.refused) {
					t.Fatalf("the error is %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, o := range r.list {
				got = append(got, o.String())
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("it recorded %q", got)
			}
			want := newDisk()
			want.add("s", nil)
			for path, data := range test.disk {
				want.add("s/"+path, []byte(data))
			}
			if r.now.sum() != want.sum() {
				r.now.walk(func(path string, data []byte) { t.Logf("%s: %q", path, data) })
				t.Error("the disk is another")
			}
		})
	}
}
