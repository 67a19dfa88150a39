package soak

import (
	"encoding/hex"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/upsauth/upsauth/internal/config"
	"github.com/upsauth/upsauth/internal/postgrestest"
	"github.com/upsauth/upsauth/internal/realpart"
)

// sharedHost is a host: a directory, and as root a network, a machine ID and a boot ID of its
// own. UPS and the database have the same addresses on each host, where a cable begins.
type sharedHost struct {
	w    *sharedWorld
	name string
	home string
	disk string // a small one, with the state directory on it
	jobs chan func()

	ups, db *cable
	// machine and boot are what lies over the system's files; empty without root.
	machine, boot string

	// life is held for reading by each command, and by whoever needs that none runs.
	life sync.RWMutex

	mu      sync.Mutex
	running map[int]*deed
	ahead   time.Duration // of its clock
	full    bool          // its disk
	cloned  []time.Time   // when it became a copy of another
}

func (h *sharedHost) isolated() bool { return h.machine != "" }

func (h *sharedHost) state() string { return filepath.Join(h.disk, "state") }

// in does something in the host's namespaces.
func (h *sharedHost) in(do func()) {
	done := make(chan struct{})
	h.jobs <- func() { defer close(done); do() }
	<-done
}

// connect makes the hosts, and UPS's address on each.
func (w *sharedWorld) connect(n int) {
	w.t.Helper()
	isolated := os.Getuid() == 0
	var front net.Listener
	for i := range n {
		w.hosts = append(w.hosts, w.newHost("web-"+strconv.Itoa(i+1), isolated, &front))
	}
}

// newHost makes a host. Front is where the first one has UPS, and all others then have it.
func (w *sharedWorld) newHost(name string, isolated bool, front *net.Listener) *sharedHost {
	t := w.t
	t.Helper()
	h := &sharedHost{w: w, name: name, home: t.TempDir(), jobs: make(chan func()), ups: newCable(), db: newCable(), running: map[int]*deed{}}
	h.disk = h.home
	if isolated {
		h.disk = mounted(t, "8m")
		h.machine, h.boot = filepath.Join(h.home, "machine-id"), filepath.Join(h.home, "boot-id")
		h.renew(h.machine)
		h.renew(h.boot)
	}
	began := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with its namespaces
		var err error
		if isolated {
			err = h.isolate()
		}
		began <- err
		for do := range h.jobs {
			do()
		}
	}()
	err := <-began
	t.Cleanup(func() { close(h.jobs) })
	if err != nil {
		realpart.Missing(t, err)
	}
	listen := func(address string) (l net.Listener) {
		var err error
		h.in(func() { l, err = net.Listen("tcp", address) })
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	if isolated || *front == nil {
		address := "127.0.0.1:0"
		if *front != nil {
			address = (*front).Addr().String()
		}
		listener := listen(address)
		if *front == nil {
			*front = listener
			w.base = "http://" + listener.Addr().String()
		}
		server := &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { w.serve(h, rw, r) }), ReadHeaderTimeout: time.Minute}
		go func() { _ = server.Serve(h.ups.over(listener)) }()
		t.Cleanup(func() { _ = server.Close() })
	}
	if isolated {
		listener := h.db.over(listen(w.dbAddr))
		t.Cleanup(func() { listener.Close() })
		go w.carry(listener)
	}
	dir := h.config()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "config.toml"), "[refresh]\nretry_unknown_after = \"0s\"\n[shared]\nhost = \""+name+"\"\ntake_over_after = \""+takeOver(w.program)+"\"\n[environments.lab]\nbase_url = \""+w.base+"\"\n")
	return h
}

// takeOver is the least that a program takes.
func takeOver(program string) string {
	if program == upsauth {
		return "1m"
	}
	return shortCallEnd.String()
}

func (h *sharedHost) config() string { return filepath.Join(h.home, "config") }

// renew writes another ID.
func (h *sharedHost) renew(path string) {
	id := make([]byte, 16)
	for i := range id {
		id[i] = byte(rand.IntN(256))
	}
	// In place: another file would not lie over the system's.
	if err := os.WriteFile(path, []byte(hex.EncodeToString(id)+"\n"), 0o600); err != nil {
		h.w.t.Error(err)
	}
}

// isolate gives the calling thread a network with nothing in it, and the host's IDs.
func (h *sharedHost) isolate() error {
	if err := unix.Unshare(unix.CLONE_NEWNET | unix.CLONE_NEWNS); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	for _, path := range []string{"/etc/machine-id", "/var/lib/dbus/machine-id"} {
		if _, err := os.Stat(path); err == nil {
			if err := unix.Mount(h.machine, path, "", unix.MS_BIND, ""); err != nil {
				return err
			}
		}
	}
	if err := unix.Mount(h.boot, "/proc/sys/kernel/random/boot_id", "", unix.MS_BIND, ""); err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo)
}

// env is the environment of a command that works for a company.
func (h *sharedHost) env(company string) []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + h.home, "TMPDIR=" + h.home, "GOTRACEBACK=all",
		"UPSAUTH_CONFIG_DIR=" + h.config(), "UPSAUTH_STATE_DIR=" + h.state(),
		"UPSAUTH_VAULT=" + config.HomeShared, "UPSAUTH_IDENTITY=" + h.w.identity, "UPSAUTH_DATABASE_URL=" + h.w.database,
		"UPSAUTH_CLIENT_ID=cid", "UPSAUTH_CLIENT_SECRET=secret", "UPSAUTH_REDIRECT_URI=http://localhost:0/cb",
		"BROWSER=" + person, "SOAK_PERSON=" + userOf(company), "SOAK_CLOCK=" + h.ahead.String(),
	}
}

// heal makes a host whole.
func (h *sharedHost) heal() {
	h.ups.set(whole)
	h.db.set(whole)
	h.mu.Lock()
	h.ahead = 0
	h.mu.Unlock()
}

// Ways for a cable to fail.
const (
	whole       = ""
	refused     = "refused"      // nobody listens, and connections break off
	requestLost = "request lost" // what a host sends does not arrive
	answerLost  = "answer lost"  // what is sent to a host does not arrive
)

// cable is what connections of a host to one place go through.
type cable struct {
	mu    sync.Mutex
	state string
	conns map[*cableConn]bool
}

func newCable() *cable { return &cable{conns: map[*cableConn]bool{}} }

// set changes the cable's state. Connections that lost something are broken off then: it will
// not arrive later.
func (c *cable) set(state string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.state = state
	for conn := range c.conns {
		if conn.dead || state == refused {
			conn.reset()
		}
	}
}

// over is a listener whose connections go through the cable.
func (c *cable) over(l net.Listener) net.Listener { return &cableListener{l, c} }

type cableListener struct {
	net.Listener
	c *cable
}

func (l *cableListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		made := &cableConn{Conn: conn, c: l.c}
		l.c.mu.Lock()
		if l.c.state == refused {
			made.reset()
			l.c.mu.Unlock()
			continue
		}
		l.c.conns[made] = true
		l.c.mu.Unlock()
		return made, nil
	}
}

type cableConn struct {
	net.Conn
	c    *cable
	dead bool // it has lost something
}

func (x *cableConn) reset() {
	_ = x.Conn.(*net.TCPConn).SetLinger(0)
	x.Conn.Close()
}

func (x *cableConn) loses(what string) bool {
	x.c.mu.Lock()
	defer x.c.mu.Unlock()
	x.dead = x.dead || x.c.state == what
	return x.dead
}

func (x *cableConn) Read(p []byte) (int, error) {
	for {
		n, err := x.Conn.Read(p)
		if err != nil || !x.loses(requestLost) {
			return n, err
		}
	}
}

func (x *cableConn) Write(p []byte) (int, error) {
	if x.loses(answerLost) {
		return len(p), nil
	}
	return x.Conn.Write(p)
}

func (x *cableConn) Close() error {
	x.c.mu.Lock()
	delete(x.c.conns, x)
	x.c.mu.Unlock()
	return x.Conn.Close()
}

// carry carries connections to the database.
func (w *sharedWorld) carry(l net.Listener) {
	for {
		near, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer near.Close()
			far, err := net.DialTimeout("tcp", *w.target.Load(), time.Second)
			if err != nil {
				near.(*cableConn).reset()
				return
			}
			defer far.Close()
			back := make(chan struct{})
			go func() {
				defer close(back)
				_, _ = io.Copy(near, far)
				near.Close()
			}()
			_, _ = io.Copy(far, near)
			far.Close()
			<-back
		}()
	}
}

// whose is the process at the far end of a connection, nil where there is none any more.
func (h *sharedHost) whose(remote string) *deed {
	_, port, err := net.SplitHostPort(remote)
	if err != nil {
		return nil
	}
	n, _ := strconv.Atoi(port)
	h.mu.Lock()
	defer h.mu.Unlock()
	inode := ""
	for pid := range h.running {
		table, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/net/tcp")
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(table)) {
			fields := strings.Fields(line)
			if len(fields) > 9 && strings.HasSuffix(fields[1], ":"+strings.ToUpper(strconv.FormatInt(int64(n)|1<<16, 16)[1:])) {
				inode = fields[9]
			}
		}
		break
	}
	if inode == "" || inode == "0" {
		return nil
	}
	for pid, r := range h.running {
		dir := "/proc/" + strconv.Itoa(pid) + "/fd"
		names, _ := os.ReadDir(dir)
		for _, name := range names {
			if target, err := os.Readlink(filepath.Join(dir, name.Name())); err == nil && target == "socket:["+inode+"]" {
				return r
			}
		}
	}
	return nil
}

// cutNetwork cuts a cable for a while.
func (w *sharedWorld) cutNetwork(r *rand.Rand, kind int) {
	if !w.hosts[0].isolated() {
		return // all hosts have one network
	}
	h := w.hosts[r.IntN(len(w.hosts))]
	c, name := h.ups, "host and UPS"
	most := 2 * shortCall
	if kind >= 3 {
		c, name, most = h.db, "host and database", 2*shortCallEnd
	}
	state := []string{refused, requestLost, answerLost}[kind%3]
	w.fault(name + ", " + state)
	c.set(state)
	// Mostly short, and now and then so long that others take over.
	lasts := time.Duration(r.Int64N(int64(600 * time.Millisecond)))
	if r.IntN(4) == 0 {
		lasts = time.Duration(r.Int64N(int64(most)))
	}
	time.Sleep(lasts)
	c.set(whole)
}

// breakDatabase has something happen to the database.
func (w *sharedWorld) breakDatabase(r *rand.Rand, kind int) {
	w.changing.Lock()
	defer w.changing.Unlock()
	while := func(most time.Duration) { time.Sleep(time.Duration(r.Int64N(int64(most)))) }
	check := func(what string, err error) {
		if err != nil {
			w.t.Errorf("%s: %v", what, err)
			w.faults.Add(1 << 40) // nothing works any more
		}
	}
	switch {
	case kind == 0:
		w.fault("database stopped")
		check("stop", w.primary.Stop())
		while(time.Second)
		check("restart", w.primary.Restart())
	case kind == 1:
		w.fault("database killed")
		check("kill", w.primary.Kill())
		while(time.Second)
		check("restart", w.primary.Restart())
	case kind == 2:
		w.fault("database paused")
		check("pause", w.primary.Pause())
		while(2 * shortSend)
		check("resume", w.primary.Resume())
	case !w.hosts[0].isolated():
		return // the hosts know one address
	case kind == 3:
		w.fault("standby promoted")
		standby, err := w.primary.Standby()
		check("standby", err)
		if err != nil {
			return
		}
		check("synchronous", w.primary.Synchronous(standby))
		while(time.Second)
		w.promote(standby, check)
	case kind == 4:
		w.fault("standby promoted, commits taken back")
		standby, err := w.primary.Standby()
		check("standby", err)
		if err != nil {
			return
		}
		check("stop", standby.Stop())
		while(time.Second)
		check("kill", w.primary.Kill())
		w.wentBack()
		check("restart", standby.Restart())
		w.promote(standby, check)
	default:
		w.fault("dump restored")
		dump, err := w.primary.Dump("postgres", "--clean")
		check("dump", err)
		while(time.Second)
		for _, h := range w.hosts {
			h.db.set(refused)
		}
		_, err = w.primary.SQL("postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'upsauth'")
		check("terminate", err)
		w.wentBack()
		check("restore", w.primary.Restore("postgres", dump))
		for _, h := range w.hosts {
			h.db.set(whole)
		}
	}
}

func (w *sharedWorld) wentBack() {
	w.upsMu.Lock()
	defer w.upsMu.Unlock()
	w.tookBack = append(w.tookBack, time.Now())
}

// promote puts a standby in the primary's place.
func (w *sharedWorld) promote(standby *postgrestest.Server, check func(string, error)) {
	old := w.primary
	check("kill", old.Kill())
	check("promote", standby.Promote())
	w.aim(standby)
	check("remove", os.RemoveAll(old.Data()))
}

// breakHost has something happen to a host.
func (w *sharedWorld) breakHost(r *rand.Rand, kind int) {
	h := w.hosts[r.IntN(len(w.hosts))]
	switch {
	case kind == 0:
		h.mu.Lock()
		h.ahead = time.Duration(1-2*r.IntN(2)) * time.Hour
		h.mu.Unlock()
		w.fault("clock wrong by an hour")
		time.Sleep(time.Duration(r.IntN(2000)) * time.Millisecond)
		h.mu.Lock()
		h.ahead = 0
		h.mu.Unlock()
	case !h.isolated():
	case kind == 1:
		w.fault("disk full")
		filler := filepath.Join(h.disk, "filler")
		h.mu.Lock()
		h.full = true
		for _, other := range h.running {
			other.faulty = true
		}
		h.mu.Unlock()
		fill(w.t, h.disk, filler, r.Int64N(200<<10))
		time.Sleep(time.Duration(r.IntN(1000)) * time.Millisecond)
		if err := os.Remove(filler); err != nil {
			w.t.Error(err)
		}
		h.mu.Lock()
		h.full = false
		h.mu.Unlock()
	case kind == 2:
		w.fault("host restarted")
		for !h.life.TryLock() {
			h.mu.Lock()
			for _, other := range h.running {
				if other.struck.IsZero() {
					other.struck, other.fate = time.Now(), &fate{signal: syscall.SIGKILL, step: "restart"}
				}
				_ = other.process.Kill()
			}
			h.mu.Unlock()
			time.Sleep(10 * time.Millisecond)
		}
		h.renew(h.boot)
		h.life.Unlock()
	case kind == 3:
		w.clone(r)
	}
}

// clone puts a copy of another host's directory in the place of the last host's, which has
// delivered all and is removed.
func (w *sharedWorld) clone(r *rand.Rand) {
	w.changing.Lock()
	defer w.changing.Unlock()
	last := w.hosts[len(w.hosts)-1]
	other := w.hosts[r.IntN(len(w.hosts)-1)]
	last.ups.set(whole)
	last.db.set(whole)
	last.life.Lock()
	defer last.life.Unlock()
	drained := func() bool {
		open, err := os.ReadDir(filepath.Join(last.state(), "shared", "journals", "open"))
		return len(open) == 0 && (err == nil || os.IsNotExist(err))
	}
	for range 3 {
		last.runs("", nil, "refresh", "--all", "--force")
		if drained() {
			break
		}
		time.Sleep(shortCallEnd / 2)
	}
	if !drained() {
		return
	}
	text, err := os.ReadFile(filepath.Join(last.state(), "shared", "host.json"))
	if err != nil {
		w.t.Error(err)
		return
	}
	_, id, _ := strings.Cut(string(text), `"id": "`)
	id, _, _ = strings.Cut(id, `"`)
	if done := last.runs("", nil, "vault", "hosts", "remove", id, "--yes"); done.code != 0 {
		w.t.Logf("%s: exit code %d\n%s", done, done.code, done.out)
		return
	}
	w.fault("directory cloned")
	other.life.Lock()
	defer other.life.Unlock()
	if err := os.RemoveAll(last.state()); err != nil {
		w.t.Error(err)
	}
	if err := os.CopyFS(last.state(), os.DirFS(other.state())); err != nil {
		w.t.Error(err)
	}
	last.renew(last.machine)
	last.mu.Lock()
	last.cloned = append(last.cloned, time.Now())
	last.mu.Unlock()
}
