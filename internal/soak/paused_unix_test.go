//go:build unix

package soak

import (
	"syscall"
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/sandbox"
	"github.com/upsauth/upsauth/internal/ups"
)

// TestPausedInMidRefresh stops a process that waits for UPS's answer, as a laptop's lid and a
// virtual machine's host do, until its call is long over. UPS's answer came meanwhile: the
// process goes on, and puts it in place.
func TestPausedInMidRefresh(t *testing.T) {
	t.Parallel()
	p := newPlace(t, sandbox.Options{Strict: true})
	p.authorize(company)
	if err := p.server.AddFault(sandbox.Fault{Endpoint: "refresh", LatencyAfter: time.Second, Times: 1}); err != nil {
		t.Fatal(err)
	}
	command := p.command("refresh", "--company", company)
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	for spent := false; !spent; time.Sleep(time.Millisecond) {
		for _, e := range p.server.Refreshes() {
			spent = spent || e.Endpoint == "refresh"
		}
	}
	if err := command.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	time.Sleep(ups.CallTimeout + 2*time.Second)
	if err := command.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if err := command.Wait(); err != nil {
		t.Errorf("the answer that came meanwhile is not in place: %v", err)
	}
	p.must("refresh", "--company", company)
}
