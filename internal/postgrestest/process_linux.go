package postgrestest

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/upsauth/upsauth/internal/realpart"
)

// account is the user that the servers run as: this one, or postgres where this is root,
// as which no server starts.
type account struct {
	credential *syscall.Credential // nil for this process's own
}

func unprivileged() (account, error) {
	if os.Getuid() != 0 {
		return account{}, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return account{}, &realpart.MissingError{Program: "user postgres", Package: "postgresql"}
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return account{}, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return account{}, err
	}
	return account{&syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}, nil
}

// own gives a file or directory to the account.
func (a account) own(path string) error {
	if a.credential == nil {
		return nil
	}
	return os.Lchown(path, int(a.credential.Uid), int(a.credential.Gid))
}

// hasRoom reports whether a directory takes that many bytes more of everybody. A container
// may have 64 MB in memory only.
func hasRoom(dir string, bytes uint64) bool {
	var fs unix.Statfs_t
	return unix.Statfs(dir, &fs) == nil && fs.Bavail*uint64(fs.Bsize) >= bytes && unix.Access(dir, unix.W_OK) == nil
}

// environment is that of all programs here: no setting of the user's gets in.
func environment(dir string) []string {
	return []string{"PATH=/usr/bin:/bin", "LC_ALL=C.UTF-8", "HOME=" + dir, "PGPASSFILE=/dev/null", "TZ=UTC"}
}

// runAs runs a program to its end, and returns what it wrote to standard output.
func runAs(a account, dir string, cmd *exec.Cmd, stdin []byte) ([]byte, error) {
	var out, said bytes.Buffer
	cmd.Env, cmd.Dir = environment(dir), dir
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &out, &said
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: a.credential, Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s: %w: %s", filepath.Base(cmd.Path), err, said.Bytes())
	}
	return out.Bytes(), nil
}

// process is a program in the background.
type process struct {
	cmd  *exec.Cmd
	path string          // of what it said
	done <-chan struct{} // closed when it is gone
}

// start starts a program that ends with this one, however this one ends.
func start(a account, dir string, cmd *exec.Cmd, logPath string) (*process, error) {
	logFile, err := os.OpenFile(logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer logFile.Close()
	cmd.Env, cmd.Dir = environment(dir), dir
	cmd.Stdout, cmd.Stderr = logFile, logFile
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: a.credential}
	gone, err := realpart.Start(cmd)
	if err != nil {
		return nil, err
	}
	return &process{cmd: cmd, path: logPath, done: gone}, nil
}

func (p *process) log() string {
	if p == nil {
		return ""
	}
	text, _ := os.ReadFile(p.path)
	return string(text)
}

func (p *process) runs() bool {
	if p == nil {
		return false
	}
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// interrupt and quit ask a server to end, the second without care.
func (p *process) interrupt() error { return p.signal(syscall.SIGINT) }
func (p *process) quit() error      { return p.signal(syscall.SIGQUIT) }

// pause stops a program and all that it has started where they are, and returns when they
// have stopped.
func (p *process) pause() error {
	stopped := map[int]bool{}
	for pids := []int{p.cmd.Process.Pid}; len(pids) > 0; pids = p.children(stopped) {
		for _, pid := range pids {
			if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil && !errors.Is(err, syscall.ESRCH) {
				return err
			}
			if err := reaches(pid, "T"); err != nil {
				return err
			}
			stopped[pid] = true
		}
	}
	return nil
}

// resume lets all of them go on, the program itself last: it must not see its children
// stand still.
func (p *process) resume() error {
	for _, pid := range append(p.children(nil), p.cmd.Process.Pid) {
		if err := syscall.Kill(pid, syscall.SIGCONT); err != nil && !errors.Is(err, syscall.ESRCH) {
			return err
		}
	}
	return nil
}

// kill ends a program and all that it has started at once, as the end of their machine
// would, and returns when they are gone; one that is gone is no error.
func (p *process) kill() error {
	if !p.runs() {
		return nil
	}
	// Standing still, it starts nothing more.
	if err := p.pause(); err != nil {
		return err
	}
	pids := p.children(nil)
	for _, pid := range append(pids, p.cmd.Process.Pid) {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return err
		}
	}
	for _, pid := range pids {
		if err := reaches(pid, ""); err != nil {
			return err
		}
	}
	return p.wait()
}

// wait returns when the program has ended.
func (p *process) wait() error {
	select {
	case <-p.done:
		return nil
	case <-time.After(patience):
		return fmt.Errorf("the process %d does not end: %s", p.cmd.Process.Pid, p.log())
	}
}

func (p *process) signal(signal syscall.Signal) error {
	if err := p.cmd.Process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

// children are those of a program's children that are not in a set. A server's are in no
// process group of its.
func (p *process) children(without map[int]bool) []int {
	var pids []int
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", p.cmd.Process.Pid))
	for _, list := range lists {
		text, _ := os.ReadFile(list)
		for field := range strings.FieldsSeq(string(text)) {
			if pid, err := strconv.Atoi(field); err == nil && !without[pid] {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// reaches returns once a process is in one of the states, or gone.
func reaches(pid int, states string) error {
	giveUp := time.After(patience)
	for {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return nil //nolint:nilerr // it is gone
		}
		// The name before the state may have any character in it.
		state := text[bytes.LastIndexByte(text, ')')+2]
		if strings.IndexByte("ZX"+states, state) >= 0 {
			return nil
		}
		select {
		case <-giveUp:
			return fmt.Errorf("the process %d is still in state %c", pid, state)
		case <-time.After(time.Millisecond):
		}
	}
}

// releaseMemory gives back the shared memory that a server which was killed has left. It
// is named in the server's postmaster.pid, if there is one.
func releaseMemory(data string) error {
	text, err := os.ReadFile(filepath.Join(data, "postmaster.pid"))
	if err != nil {
		return nil //nolint:nilerr // there is none
	}
	lines := strings.Split(string(text), "\n")
	if len(lines) < 7 {
		return nil
	}
	words := strings.Fields(lines[6])
	if len(words) != 2 {
		return nil
	}
	id, err := strconv.Atoi(words[1])
	if err != nil {
		return err
	}
	if _, err := unix.SysvShmCtl(id, unix.IPC_RMID, nil); err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("the server's shared memory: %w", err)
	}
	return nil
}

// reaper is a process that outlives this one. It then ends what still runs in a directory,
// such as the children of a server that stand still, and removes the directory and the
// shared memory of the servers in it.
type reaper struct {
	cmd  *exec.Cmd
	life *os.File // closed when this process ends
}

const reaperScript = `cat >/dev/null
for i in 1 2 3 4 5 6 7 8 9 10; do
	for p in /proc/[0-9]*; do
		case $(readlink "$p/cwd") in "$1"/*) kill -KILL "${p#/proc/}" ;; esac
	done
	for f in "$1"/*/data/postmaster.pid; do
		[ ! -e "$f" ] || ipcrm -m "$(sed -n 7p "$f" | awk '{print $2}')"
	done
	rm -rf "$1" && exit
	sleep 1
done 2>/dev/null`

func reap(dir string) (*reaper, error) {
	read, write, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer read.Close()
	cmd := exec.Command("sh", "-c", reaperScript, "reaper", dir)
	cmd.Stdin = read
	// What a terminal sends to this process is not for it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		write.Close()
		return nil, err
	}
	return &reaper{cmd: cmd, life: write}, nil
}

// dismiss ends the reaper; one that has ended is no error.
func (r *reaper) dismiss() error {
	if r == nil || r.life == nil {
		return nil
	}
	err := errors.Join(r.life.Close(), r.cmd.Wait())
	r.life = nil
	return err
}
