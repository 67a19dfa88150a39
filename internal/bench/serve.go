//go:build linux

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// What a service is measured with.
const (
	served   = 1000    // companies that programs ask for
	shown    = 10_000  // companies on the list of the company manager
	askings  = 100_000 // requests for tokens
	together = 8       // clients that ask at the same time
)

// serve measures what programs and people wait for who have a service, beside the command
// that needs none, and its memory.
func (b *bench) serve() error {
	if err := onTwoCores(); err != nil {
		return err
	}
	if err := b.tokensOverSocket(); err != nil {
		return err
	}
	return b.listPage()
}

// onTwoCores leaves two processors to this program and to what it starts from here on.
func onTwoCores() error {
	runtime.LockOSThread() // whoever starts a program passes on what it has itself
	var all, two unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		return err
	}
	for cpu := 0; two.Count() < min(2, all.Count()); cpu++ {
		if all.IsSet(cpu) {
			two.Set(cpu)
		}
	}
	return unix.SchedSetaffinity(0, &two)
}

func (b *bench) tokensOverSocket() error {
	p, err := b.place("served", nowhere)
	if err != nil {
		return err
	}
	if err := p.fresh(served); err != nil {
		return err
	}
	if err := p.entries(served); err != nil {
		return err
	}
	var paths strings.Builder
	for i := range served {
		fmt.Fprintf(&paths, "/v1/token?company=%s\n", url.QueryEscape(p.grant(i).Company))
	}
	file := filepath.Join(p.dir, "paths")
	if err := os.WriteFile(file, []byte(paths.String()), 0o600); err != nil {
		return err
	}
	s, err := b.startService(p)
	if err != nil {
		return err
	}
	defer s.end()
	memory := b.report.memory(fmt.Sprintf("Memory of `serve` with %d companies", served))
	if err := s.remember(memory, "after the first round"); err != nil {
		return err
	}
	ask := func(clients, requests int) (r asked, err error) {
		out, err := output(p.env("true"), []string{b.program("asker"), s.socket(), file, strconv.Itoa(clients), strconv.Itoa(requests)})
		if err == nil {
			err = json.Unmarshal(out, &r)
		}
		return r, err
	}
	if _, err := ask(1, served); err != nil { // each is in memory then
		return err
	}
	if err := s.remember(memory, "with all tokens in memory"); err != nil {
		return err
	}
	one, many := make([][]time.Duration, 4), make([][]time.Duration, 1)
	command := b.upsauth("token", "--company", p.grant(1).Company)
	for turn := range b.runs + 1 {
		alone, err := ask(1, askings/10/max(b.runs, 1)+served)
		if err != nil {
			return err
		}
		all, err := ask(together, askings/max(b.runs, 1)+served)
		if err != nil {
			return err
		}
		hello, err := run(p.env("true"), []string{b.program("hello")})
		if err != nil {
			return err
		}
		token, err := run(p.env("true"), command)
		if err != nil {
			return err
		}
		if turn == 0 {
			continue
		}
		for i, d := range []time.Duration{alone.P50, alone.P99, token, hello} {
			one[i] = append(one[i], d)
		}
		many[0] = append(many[0], all.Each)
	}
	if err := s.remember(memory, fmt.Sprintf("after more than %d requests for tokens", askings)); err != nil {
		return err
	}
	m, each := medians(one), medians(many)[0]
	peak, _, err := b.peak(run, p.env("true"), command)
	if err != nil {
		return err
	}
	b.report.tokens(m[0], m[1], each, m[2], m[3], peak)
	browser, err := s.browser()
	if err != nil {
		return err
	}
	for range 10 {
		if _, _, err := browser.get("/"); err != nil {
			return err
		}
	}
	if err := s.remember(memory, "after ten pages of the list"); err != nil {
		return err
	}
	if err := s.status(); err != nil {
		return err
	}
	if err := s.remember(memory, "after ten answers with the state of all"); err != nil {
		return err
	}
	const quiet = 12 * time.Second // a service gives back what it does not need once it is idle
	time.Sleep(quiet)
	return s.remember(memory, fmt.Sprintf("%s later, when it was asked for nothing", quiet))
}

// asked is what the asker says.
type asked struct{ P50, P99, Each time.Duration }

func (b *bench) listPage() error {
	p, err := b.place("shown", nowhere)
	if err != nil {
		return err
	}
	if err := p.freshCompanies(shown); err != nil {
		return err
	}
	if err := p.entries(shown); err != nil {
		return err
	}
	s, err := b.startService(p)
	if err != nil {
		return err
	}
	defer s.end()
	browser, err := s.browser()
	if err != nil {
		return err
	}
	first, _, err := browser.get("/")
	if err != nil {
		return err
	}
	t := b.report.pages(fmt.Sprintf("The list of the company manager, %d companies", shown))
	status := b.upsauth("status")
	took, err := run(p.env("true"), status)
	if err != nil {
		return err
	}
	t.page("`status`, a process", took, took, 0)
	t.page("the first page, read for the first time", first, took, 0)
	for _, page := range []struct{ name, path string }{
		{"the first page", "/"}, {"a search", "/?q=" + url.QueryEscape("09999")}, {"the last page", "/?page=99999"},
		{"a company's page", "/company?company=" + url.QueryEscape(p.grant(1).Company)},
	} {
		size := 0
		times, err := b.alternate(2, func(i int) (time.Duration, error) {
			if i == 0 {
				return run(p.env("true"), status)
			}
			d, n, err := browser.get(page.path)
			size = n
			return d, err
		})
		if err != nil {
			return err
		}
		t.page(page.name, times[1], times[0], size)
	}
	times, err := b.alternate(1, func(int) (time.Duration, error) {
		if err := p.touch(); err != nil {
			return 0, err
		}
		d, _, err := browser.get("/")
		return d, err
	})
	if err != nil {
		return err
	}
	t.page("the first page, once a record was changed", times[0], took, 0)
	memory := b.report.memory(fmt.Sprintf("Memory of `serve` with %d companies", shown))
	return s.remember(memory, "after these pages")
}

// service is a running `upsauth serve`.
type service struct {
	b       *bench
	place   *place
	command *exec.Cmd
	log     *strings.Builder
}

// startService starts one, and returns when its first round is over.
func (b *bench) startService(p *place) (*service, error) {
	s := &service{b: b, place: p, log: &strings.Builder{}}
	args := b.upsauth("serve", "--listen", "127.0.0.1:0", "--every", "1h")
	s.command = exec.Command(args[0], args[1:]...)
	s.command.Env = p.env("true")
	said, err := s.command.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := s.command.Start(); err != nil {
		return nil, err
	}
	ready := make(chan error, 1)
	go func() {
		lines := bufio.NewScanner(said)
		for lines.Scan() {
			fmt.Fprintln(s.log, lines.Text())
			if strings.Contains(lines.Text(), "next round") {
				ready <- nil
				break
			}
		}
		_, _ = io.Copy(io.Discard, said)
		ready <- errors.New("the service ended before its first round did")
	}()
	select {
	case err = <-ready:
	case <-time.After(2 * time.Minute):
		err = errors.New("the service's first round does not end")
	}
	if err != nil {
		s.end()
		return nil, fmt.Errorf("%w:\n%s", err, s.log)
	}
	return s, nil
}

func (s *service) end() {
	_ = s.command.Process.Signal(os.Interrupt)
	_ = s.command.Wait()
}

func (s *service) socket() string { return filepath.Join(s.place.state(), "programs", "serve.sock") }

// remember notes the memory that the service has now, and has had at most.
func (s *service) remember(t *table, when string) error {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.command.Process.Pid))
	if err != nil {
		return err
	}
	kb := map[string]int{}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(line, ":")
		kb[name], _ = strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")))
	}
	t.rows = append(t.rows, fmt.Sprintf("| %s | %.1f MB | %.1f MB |\n", when, float64(kb["VmRSS"])/1024, float64(kb["VmHWM"])/1024))
	return nil
}

// status asks for the state of all companies a few times.
func (s *service) status() error {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", s.socket())
	}
	client := &http.Client{Transport: &http.Transport{DialContext: dial}}
	defer client.CloseIdleConnections()
	for range 10 {
		if _, _, err := read(client, "http://x/v1/status"); err != nil {
			return err
		}
	}
	return nil
}

// browser is somebody whom the service's link has let in.
type browser struct {
	client *http.Client
	base   string
}

func (s *service) browser() (*browser, error) {
	out, err := output(s.place.env("true"), s.b.upsauth("serve", "link"))
	if err != nil {
		return nil, err
	}
	link, err := url.Parse(strings.Fields(string(out))[0])
	if err != nil {
		return nil, err
	}
	jar, err := cookiejar.New(nil)
	if err != nil {
		return nil, err
	}
	b := &browser{client: &http.Client{Jar: jar}, base: link.Scheme + "://" + link.Host}
	_, _, err = read(b.client, link.String())
	return b, err
}

func (b *browser) get(path string) (time.Duration, int, error) { return read(b.client, b.base+path) }

// read is how long an address takes, and the size of what it answers.
func read(client *http.Client, address string) (time.Duration, int, error) {
	begun := time.Now()
	answer, err := client.Get(address)
	if err != nil {
		return 0, 0, err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	took := time.Since(begun)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s\n%s", address, answer.Status, body)
	}
	return took, len(body), err
}
