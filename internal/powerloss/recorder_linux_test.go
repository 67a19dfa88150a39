package powerloss

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// traced are the system calls that change a file, make a change durable, or talk to
// UPS, and those that the recorder can't follow and therefore must see.
const traced = "open,openat,openat2,creat,lseek,read,readv,recvfrom,recvmsg,write,pwrite64,writev,pwritev,pwritev2,sendto,sendmsg," +
	"rename,renameat,renameat2,unlink,unlinkat,rmdir,mkdir,mkdirat,link,linkat,symlink,symlinkat,mknod,mknodat," +
	"truncate,ftruncate,fallocate,fsync,fdatasync,sync,syncfs,sync_file_range,msync,copy_file_range,sendfile,splice"

// straceArgs has strace write to a file what the recorder reads. Every text is in
// hexadecimal digits, so no name or data can be taken for a part of the trace.
func straceArgs(output string) []string {
	return []string{"-f", "-qq", "-y", "-xx", "-s", "4194304", "-o", output, "-e", "trace=" + traced, "-e", "signal=none"}
}

// recorder turns traces of commands that ran one after another into one list of
// operations below a directory. A trace is in the order in which strace saw the calls
// begin and end. A call counts from its end, as nothing is promised before; only a
// request to UPS counts from its beginning, as it may have arrived before its call
// returns.
type recorder struct {
	root string // absolute
	now  *disk  // as the commands see it
	list []operation

	// Of the trace that is being read:
	unfinished map[string]string // by thread: a call that has begun
	awaiting   map[string]bool   // by socket: a request has no answer yet
	atOnce     map[string]bool   // by file descriptor: O_SYNC or O_DSYNC, what is written is synced
	position   map[string]int64  // by file descriptor: where it reads and writes, atEnd where it appends
}

const atEnd = -1

func newRecorder(root string, base *disk) *recorder {
	return &recorder{root: root, now: base.clone()}
}

// trace reads the trace of one command, which has ended.
func (r *recorder) trace(text string) error {
	r.unfinished, r.awaiting = map[string]string{}, map[string]bool{}
	r.atOnce, r.position = map[string]bool{}, map[string]int64{}
	for number, line := range strings.Split(text, "\n") {
		if line == "" {
			continue
		}
		if err := r.line(line); err != nil {
			return fmt.Errorf("line %d of the trace, %.300s: %w", number+1, line, err)
		}
	}
	return nil
}

// end notes that a command has ended.
func (r *recorder) end() { r.add(operation{kind: ended, words: words(ended, "")}) }

var (
	lineForm    = regexp.MustCompile(`^(\d+) +(.*)$`)
	resumedForm = regexp.MustCompile(`^<\.\.\. \w+ resumed>(.*)$`)
	callForm    = regexp.MustCompile(`^(\w+)\((.*?)\) += (.*)$`)
	beginForm   = regexp.MustCompile(`^(\w+)\((.*)$`)
)

func (r *recorder) line(line string) error {
	parts := lineForm.FindStringSubmatch(line)
	if parts == nil {
		return fmt.Errorf("it has no thread")
	}
	thread, text := parts[1], parts[2]
	if strings.HasPrefix(text, "+++") || strings.HasPrefix(text, "---") || strings.HasPrefix(text, "???") {
		return nil // the end of a thread, a signal, a thread that ended before its call was seen
	}
	begun := ""
	if m := resumedForm.FindStringSubmatch(text); m != nil {
		begun = r.unfinished[thread]
		if begun == "" {
			return fmt.Errorf("it resumes nothing")
		}
		delete(r.unfinished, thread)
		text = begun + m[1]
	}
	if before, ok := strings.CutSuffix(text, " <unfinished ...>"); ok {
		r.unfinished[thread] = before
		if m := beginForm.FindStringSubmatch(before); m != nil {
			return r.begin(m[1], arguments(m[2]))
		}
		return nil
	}
	// The last call of a thread that strace lets go of has no result. One that moves in a
	// file changes none.
	if strings.HasSuffix(text, " <detached ...>") && strings.HasPrefix(text, "lseek(") {
		return nil
	}
	m := callForm.FindStringSubmatch(text)
	if m == nil {
		return fmt.Errorf("it is no call")
	}
	name, args, result := m[1], arguments(m[2]), m[3]
	if begun == "" {
		if err := r.begin(name, args); err != nil {
			return err
		}
	}
	if strings.HasPrefix(result, "-1 ") || strings.HasPrefix(result, "?") {
		return nil // it has done nothing
	}
	return r.call(name, args, result)
}

// arguments splits what stands between a call's brackets. Texts are hexadecimal, so
// there is no comma in them.
func arguments(text string) []string {
	var args []string
	depth, start := 0, 0
	for i, c := range text {
		switch c {
		case '[', '{', '(':
			depth++
		case ']', '}', ')':
			depth--
		case ',':
			if depth == 0 {
				args = append(args, strings.TrimSpace(text[start:i]))
				start = i + 1
			}
		}
	}
	return append(args, strings.TrimSpace(text[start:]))
}

// text is what a quoted argument says.
func text(arg string) ([]byte, error) {
	if strings.HasSuffix(arg, "...") {
		return nil, fmt.Errorf("strace cut a text short")
	}
	digits, ok := strings.CutPrefix(arg, `"`)
	digits, quoted := strings.CutSuffix(digits, `"`)
	if !ok || !quoted {
		return nil, fmt.Errorf("%.80s is no text", arg)
	}
	return hex.DecodeString(strings.ReplaceAll(digits, `\x`, ""))
}

var basesForm = regexp.MustCompile(`iov_base=("[^"]*"(?:\.\.\.)?)`)

// payload is the data of a call that writes: of a buffer, or of a list of them.
func payload(arg string) ([]byte, error) {
	if strings.HasPrefix(arg, `"`) {
		return text(arg)
	}
	var all []byte
	for _, m := range basesForm.FindAllStringSubmatch(arg, -1) {
		data, err := text(m[1])
		if err != nil {
			return nil, err
		}
		all = append(all, data...)
	}
	return all, nil
}

// descriptor is the path behind a file descriptor, a result's too: 5</a/b>.
func descriptor(arg string) (string, error) {
	_, rest, ok := strings.Cut(arg, "<")
	end := strings.LastIndexByte(rest, '>')
	if !ok || end < 0 {
		return "", nil // strace knows no name for it
	}
	path, deleted := rest[:end], ""
	if strings.HasSuffix(rest, "(deleted)") {
		deleted = " (deleted)"
	}
	decoded, err := hex.DecodeString(strings.ReplaceAll(path, `\x`, ""))
	if err != nil {
		return path, nil //nolint:nilerr // socket:[1], anon_inode:[eventfd]
	}
	return string(decoded) + deleted, nil
}

// below is a path below the directory that is watched, and whether it lies there.
func (r *recorder) below(path string) (string, bool) {
	if path == r.root {
		return "", true
	}
	return strings.CutPrefix(path, r.root+"/")
}

// file is the node behind a file descriptor.
func (r *recorder) file(arg string) (node, string, bool, error) {
	path, err := descriptor(arg)
	if err != nil {
		return 0, "", false, err
	}
	rel, ok := r.below(path)
	if !ok || strings.HasSuffix(path, "(deleted)") {
		return 0, "", false, nil
	}
	n, ok := r.now.find(rel)
	if !ok {
		return 0, "", false, fmt.Errorf("%s is not known", rel)
	}
	return n, rel, true, nil
}

// place is the directory and the name that a call names, and whether they lie below
// the directory that is watched.
func (r *recorder) place(dirArg, nameArg string) (dir node, name, rel string, ok bool, err error) {
	raw, err := text(nameArg)
	if err != nil {
		return 0, "", "", false, err
	}
	path := string(raw)
	if !filepath.IsAbs(path) {
		in, err := descriptor(dirArg)
		if err != nil || in == "" {
			return 0, "", "", false, fmt.Errorf("the directory of %s is not known", path)
		}
		path = filepath.Join(in, path)
	}
	rel, ok = r.below(filepath.Clean(path))
	if !ok || rel == "" {
		return 0, "", "", false, nil
	}
	parent, name := filepath.Split(rel)
	if dir, ok = r.now.find(strings.TrimSuffix(parent, "/")); !ok {
		return 0, "", "", false, fmt.Errorf("the directory of %s is not known", rel)
	}
	return dir, name, rel, true, nil
}

func (r *recorder) add(o operation) {
	o.introduce(r.now)
	o.apply(r.now)
	r.list = append(r.list, o)
}

const workingDirectory = "AT_FDCWD"

// begin looks at what counts from the beginning of its call: a request to UPS.
func (r *recorder) begin(name string, args []string) error {
	switch name {
	case "write", "writev", "sendto", "sendmsg":
	default:
		return nil
	}
	if len(args) < 2 {
		return nil
	}
	socket, err := descriptor(args[0])
	if err != nil || !strings.HasPrefix(socket, "socket:") && !strings.HasPrefix(socket, "TCP") {
		return err
	}
	data, err := payload(args[1])
	if err != nil {
		return err
	}
	for _, path := range []string{"/security/v1/oauth/token", "/security/v1/oauth/refresh"} {
		if bytes.HasPrefix(data, []byte("POST "+path+" ")) {
			r.awaiting[socket] = true
			r.add(operation{kind: asked, words: words(asked, " at %s", path)})
		}
	}
	return nil
}

// call looks at a call that has succeeded.
func (r *recorder) call(name string, args []string, result string) error {
	switch name {
	case "read", "readv", "recvfrom", "recvmsg":
		if socket, _ := descriptor(args[0]); r.awaiting[socket] && !strings.HasPrefix(result, "0") {
			delete(r.awaiting, socket)
			r.add(operation{kind: answered, words: words(answered, "")})
		}
		return r.advance(args[0], result)
	case "lseek":
		return r.seek(args[0], result)
	case "open", "creat":
		return r.open(workingDirectory, args[0], strings.Join(args[1:], ","), name == "creat", result)
	case "openat", "openat2":
		return r.open(args[0], args[1], args[2], false, result)
	case "write", "pwrite64", "writev", "pwritev", "pwritev2":
		return r.write(name, args, result)
	case "rename":
		return r.rename("", args[0], "", args[1], "0")
	case "renameat":
		return r.rename(args[0], args[1], args[2], args[3], "0")
	case "renameat2":
		return r.rename(args[0], args[1], args[2], args[3], args[4])
	case "unlink", "rmdir":
		return r.remove("", args[0])
	case "unlinkat":
		return r.remove(args[0], args[1])
	case "mkdir":
		return r.mkdir("", args[0])
	case "mkdirat":
		return r.mkdir(args[0], args[1])
	case "link":
		return r.link("", args[0], "", args[1])
	case "linkat":
		return r.link(args[0], args[1], args[2], args[3])
	case "truncate":
		dir, file, rel, ok, err := r.place("", args[0])
		if err != nil || !ok {
			return err
		}
		return r.resize(r.now.dirs[dir][file], rel, args[1])
	case "ftruncate":
		n, rel, ok, err := r.file(args[0])
		if err != nil || !ok {
			return err
		}
		return r.resize(n, rel, args[1])
	case "fallocate":
		return r.allocate(args)
	case "fsync", "fdatasync":
		n, rel, ok, err := r.file(args[0])
		if err == nil && ok {
			r.add(operation{kind: sync, node: n, words: words(sync, " %s", shown(rel))})
		}
		return err
	case "sync", "syncfs":
		r.add(operation{kind: syncAll, words: words(syncAll, "")})
		return nil
	case "sync_file_range", "sendto", "sendmsg":
		return nil // the first promises nothing, the others do not go to files
	}
	return r.unknown(name, args)
}

// unknown refuses a call that the recorder can't follow, where it is about what is
// watched.
func (r *recorder) unknown(name string, args []string) error {
	for _, arg := range args {
		path, _ := descriptor(arg)
		if data, err := text(arg); err == nil {
			path = string(data)
		}
		if _, ok := r.below(path); ok {
			return fmt.Errorf("the recorder can't follow %s of %s", name, path)
		}
	}
	return nil
}

// shown is a path in words, where the top has no name.
func shown(rel string) string {
	if rel == "" {
		return "."
	}
	return rel
}

func (r *recorder) open(dirArg, nameArg, flags string, always bool, result string) error {
	if strings.Contains(flags, "O_TMPFILE") {
		return r.unknown("open with "+flags, []string{result})
	}
	if path, err := descriptor(result); err != nil {
		return err
	} else if _, ok := r.below(path); !ok {
		return nil
	}
	r.position[number(result)] = 0
	r.atOnce[number(result)] = strings.Contains(flags, "SYNC")
	if strings.Contains(flags, "O_APPEND") {
		r.position[number(result)] = atEnd
	}
	if !always && !strings.Contains(flags, "O_CREAT") && !strings.Contains(flags, "O_TRUNC") {
		return nil
	}
	dir, name, rel, ok, err := r.place(dirArg, nameArg)
	if err != nil || !ok {
		return err
	}
	n, there := r.now.dirs[dir][name]
	switch {
	case !there:
		r.add(operation{kind: create, node: r.now.next(), dir: dir, name: name, words: words(create, " %s", rel)})
	case (always || strings.Contains(flags, "O_TRUNC")) && len(r.now.files[n]) > 0:
		return r.resize(n, rel, "0")
	}
	return nil
}

func (r *recorder) write(name string, args []string, result string) error {
	n, rel, ok, err := r.file(args[0])
	if err != nil || !ok {
		return err
	}
	data, err := payload(args[1])
	if err != nil {
		return err
	}
	count, err := strconv.Atoi(strings.Fields(result)[0])
	if err != nil || count > len(data) {
		return fmt.Errorf("it wrote %s of %d bytes", result, len(data))
	}
	data = data[:count]
	var offset int64
	if strings.HasPrefix(name, "pwrite") {
		if offset, err = strconv.ParseInt(args[3], 0, 64); err != nil {
			return err
		}
	} else {
		var known bool
		if offset, known = r.position[number(args[0])]; !known {
			return fmt.Errorf("where it writes is not known")
		}
		if offset == atEnd {
			offset = int64(len(r.now.files[n]))
		} else if err := r.advance(args[0], result); err != nil {
			return err
		}
	}
	r.add(operation{kind: write, node: n, offset: offset, data: data, words: words(write, " %s, %d bytes at %d", rel, len(data), offset)})
	if r.atOnce[number(args[0])] {
		r.add(operation{kind: sync, node: n, words: words(sync, " %s, at once", rel)})
	}
	return nil
}

// number is a file descriptor without its path.
func number(arg string) string {
	before, _, _ := strings.Cut(arg, "<")
	return before
}

// advance notes that a call has read or written on from where its descriptor stood.
func (r *recorder) advance(fd, result string) error {
	at, ok := r.position[number(fd)]
	if path, _ := descriptor(fd); !ok || at == atEnd {
		return nil
	} else if _, ok := r.below(path); !ok {
		return nil
	}
	count, err := strconv.ParseInt(strings.Fields(result)[0], 10, 64)
	r.position[number(fd)] = at + count
	return err
}

func (r *recorder) seek(fd, result string) error {
	if at, ok := r.position[number(fd)]; !ok || at == atEnd {
		return nil
	}
	at, err := strconv.ParseInt(strings.Fields(result)[0], 10, 64)
	r.position[number(fd)] = at
	return err
}

func (r *recorder) resize(n node, rel, size string) error {
	to, err := strconv.ParseInt(size, 0, 64)
	if err != nil {
		return err
	}
	r.add(operation{kind: resize, node: n, size: to, words: words(resize, " %s to %d bytes", rel, to)})
	return nil
}

// allocate makes a file longer where that is what room is reserved for. Room behind the
// end, or in what is there, changes nothing that can be read.
func (r *recorder) allocate(args []string) error {
	n, rel, ok, err := r.file(args[0])
	if err != nil || !ok {
		return err
	}
	offset, err1 := strconv.ParseInt(args[2], 0, 64)
	length, err2 := strconv.ParseInt(args[3], 0, 64)
	switch {
	case err1 != nil || err2 != nil:
		return fmt.Errorf("no room that can be understood")
	case strings.Contains(args[1], "KEEP_SIZE") && !strings.Contains(args[1], "PUNCH"):
		return nil
	case args[1] != "0":
		return r.unknown("fallocate with "+args[1], args[:1])
	case offset+length <= int64(len(r.now.files[n])):
		return nil
	}
	return r.resize(n, rel, strconv.FormatInt(offset+length, 10))
}

func (r *recorder) rename(oldDir, oldName, newDir, newName, flags string) error {
	from, name, rel, ok1, err1 := r.place(oldDir, oldName)
	to, toName, toRel, ok2, err2 := r.place(newDir, newName)
	switch {
	case err1 != nil || err2 != nil:
		return fmt.Errorf("%w, %w", err1, err2)
	case !ok1 && !ok2:
		return nil
	case ok1 != ok2 || strings.Contains(flags, "EXCHANGE"):
		return fmt.Errorf("the recorder can't follow this rename")
	}
	n, ok := r.now.dirs[from][name]
	if !ok {
		return fmt.Errorf("%s is not known", rel)
	}
	r.add(operation{kind: rename, node: n, dir: from, name: name, to: to, toName: toName, words: words(rename, " %s to %s", rel, toRel)})
	return nil
}

func (r *recorder) remove(dirArg, nameArg string) error {
	dir, name, rel, ok, err := r.place(dirArg, nameArg)
	if err != nil || !ok {
		return err
	}
	n, ok := r.now.dirs[dir][name]
	if !ok {
		return fmt.Errorf("%s is not known", rel)
	}
	r.add(operation{kind: remove, node: n, dir: dir, name: name, words: words(remove, " %s", rel)})
	return nil
}

func (r *recorder) mkdir(dirArg, nameArg string) error {
	dir, name, rel, ok, err := r.place(dirArg, nameArg)
	if err != nil || !ok {
		return err
	}
	r.add(operation{kind: mkdir, node: r.now.next(), dir: dir, name: name, words: words(mkdir, " %s", rel)})
	return nil
}

func (r *recorder) link(oldDir, oldName, newDir, newName string) error {
	from, name, rel, ok1, err1 := r.place(oldDir, oldName)
	to, toName, toRel, ok2, err2 := r.place(newDir, newName)
	switch {
	case err1 != nil || err2 != nil:
		return fmt.Errorf("%w, %w", err1, err2)
	case !ok1 && !ok2:
		return nil
	case ok1 != ok2:
		return fmt.Errorf("the recorder can't follow this link")
	}
	n, ok := r.now.dirs[from][name]
	if !ok {
		return fmt.Errorf("%s is not known", rel)
	}
	r.add(operation{kind: link, node: n, dir: to, name: toName, words: words(link, " %s as %s", rel, toRel)})
	return nil
}
