//go:build !windows

package safefile_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/safefile"
)

// A pipe that nobody writes to was waited for without end, and /dev/zero was read until
// there was no memory left.
func TestOnlyRegularFilesAreRead(t *testing.T) {
	dir, err := os.MkdirTemp("/tmp", "kind") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	at := func(name string) string { return filepath.Join(dir, name) }
	if err := errors.Join(syscall.Mkfifo(at("pipe"), 0o600), os.Mkdir(at("directory"), 0o700),
		os.Symlink("pipe", at("linked")), os.Symlink("/dev/zero", at("device"))); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("unix", at("socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	places := &safefile.Places{}
	readers := map[string]func(name string) ([]byte, error){
		"ReadFile": func(name string) ([]byte, error) { return safefile.ReadFile(at(name)) },
		"ReadIn":   func(name string) ([]byte, error) { return safefile.ReadIn(dir, name) },
		"Places":   func(name string) ([]byte, error) { return places.Read(at(name), nil) },
		"OpenOwn": func(name string) ([]byte, error) {
			file, err := safefile.OpenOwn(at(name), os.O_WRONLY)
			if err == nil {
				file.Close()
			}
			return nil, err
		},
	}
	for name, kind := range map[string]string{
		"pipe": "a named pipe", "directory": "a directory", "socket": "a socket", "linked": "a named pipe", "device": "a device",
	} {
		for reader, read := range readers {
			switch {
			case (name == "linked" || name == "device") && (reader == "Places" || reader == "OpenOwn"):
				continue // these follow no link
			case name == "device" && reader == "ReadIn":
				continue // the link leads elsewhere
			}
			t.Run(reader+" "+name, func(t *testing.T) {
				ended := make(chan error, 1)
				go func() {
					_, err := read(name)
					ended <- err
				}()
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				select {
				case err := <-ended:
					got := new(safefile.KindError)
					if !errors.As(err, &got) || got.Kind != kind {
						t.Errorf("%v, want %s", err, kind)
					}
				case <-ctx.Done():
					t.Fatal("it waits")
				}
			})
		}
	}
}
