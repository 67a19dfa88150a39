package files_test

import (
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/vault"
	"github.com/upsauth/upsauth/internal/vault/files"
)

// What a process says of a port outlives a process that was ended in the midst of a
// sign-in, and nothing else does.
func TestLeftPorts(t *testing.T) {
	w := newWorld(t)
	s := files.New(w.dir, vault.Homes{})
	if left := s.LeftPorts(); left != nil {
		t.Errorf("at first there are %+v", left)
	}
	until := time.Date(2026, 11, 21, 16, 15, 3, 0, time.UTC)
	use := grant.PortUse{Service: true, Company: "Acme\nCorp", Until: until, RedirectURIs: []string{"http://localhost:8400/cb"}}
	change, release := s.HoldPort(8400, grant.PortUse{})
	change(use)
	if left := s.LeftPorts(); left != nil {
		t.Errorf("while it is held there are %+v", left)
	}
	// Nobody gets it twice, and the note of the one who has it stays.
	changeNothing, releaseNothing := s.HoldPort(8400, grant.PortUse{Company: "other"})
	changeNothing(grant.PortUse{})
	releaseNothing(false)
	release(true)
	left := s.LeftPorts()
	if len(left) != 1 || left[0].PID == 0 || left[0].Port != 8400 {
		t.Fatalf("afterwards there are %+v", left)
	}
	left[0].PID, left[0].Port = 0, 0
	if !reflect.DeepEqual(left[0], use) {
		t.Errorf("it says %+v", left[0])
	}
	_, release = s.HoldPort(8400, use)
	release(false)
	if left := s.LeftPorts(); left != nil {
		t.Errorf("after a good end there are %+v", left)
	}
	// What an older version wrote, and what is damaged, is left alone.
	for _, text := range []string{"812", "812\n{", "x\n{}", "", "812\nnull", "812\n{\"until\":5}"} {
		w.write(filepath.Join(w.dir, "locks", "port-8401.lock.pid"), []byte(text))
		if left := s.LeftPorts(); left != nil {
			t.Errorf("%q is %+v", text, left)
		}
	}
}
