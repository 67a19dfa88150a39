package files_test

import (
	"sync"
	"testing"
)

// status --check, doctor and vault check rehearse, in as many processes as a monitor
// starts at once. None may clear away what another is at work with.
func TestRehearsalsBesideEachOther(t *testing.T) {
	w := newWorld(t)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			disk := w.disk()
			for range 30 {
				if err := disk.Rehearse(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	w.wantNothing()
}
