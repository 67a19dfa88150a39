package keyringtest

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/zalando/go-keyring"
)

func TestX(t *testing.T) {
	t0 := time.Now()
	k := Start(t)
	fmt.Println("start", time.Since(t0))
	for _, e := range k.Env() {
		n, v, _ := strings.Cut(e, "=")
		t.Setenv(n, v)
	}
	try := func(what string) {
		t0 := time.Now()
		ch := make(chan string, 1)
		go func() {
			s, err := keyring.Get("upsauth", "a")
			ch <- fmt.Sprintf("%q %#v %v", s, err, err)
		}()
		select {
		case s := <-ch:
			fmt.Println(what, s, time.Since(t0))
		case <-time.After(2 * time.Second):
			fmt.Println(what, "HANGS")
			go func() { fmt.Println("late", what, <-ch, time.Since(t0)) }()
		}
	}
	fmt.Println(keyring.Set("upsauth", "a", "x"))
	try("open")
	fmt.Println(k.Items("upsauth"))
	fmt.Println(k.Lock())
	try("locked")
	fmt.Println(k.Items("upsauth"))
	fmt.Println(k.Unlock())
	try("unlocked")
	fmt.Println(k.Pause())
	try("paused")
	fmt.Println(k.Resume())
	time.Sleep(100 * time.Millisecond)
	t0 = time.Now()
	fmt.Println(k.Restart(), time.Since(t0))
	try("restarted")
	fmt.Println(k.Pause())
	try("paused")
	fmt.Println(k.Stop())
	time.Sleep(100 * time.Millisecond)
	try("stopped")
	fmt.Println(k.Restart())
	fmt.Println(k.Lock())
	fmt.Println(k.LeavePrompts())
	try("prompt left")
	fmt.Println(k.Unlock())
	time.Sleep(100 * time.Millisecond)
	fmt.Println(k.StopBus())
	time.Sleep(100 * time.Millisecond)
	try("bus stopped")
}
