package serve

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path/filepath"
	"runtime"

	"github.com/upsauth/upsauth/internal/config"
)

// programsWindows is where programs ask on Windows, which has no modes for a socket.
const programsWindows = "127.0.0.1:8490"

// Places are where the sockets of a state directory's service lie.
type Places struct {
	// Programs is the socket at which programs ask for tokens, on Windows a loopback
	// address with a port.
	Programs string
	// ProgramsOwn says that nobody named it, so that its directory is the service's own.
	ProgramsOwn bool
	// Control is the socket of whoever runs the service. It is never in the directory of
	// the other, which may be mounted into a container.
	Control string
}

// FindPlaces returns where the sockets of a state directory's service lie, for the
// service as for those who ask it. Errors are *config.Error.
func FindPlaces(getenv func(string) string, state string) (Places, error) {
	socket, err := config.FindSocket(getenv)
	if err != nil {
		return Places{}, err
	}
	p := Places{Programs: socket, ProgramsOwn: socket == ""}
	switch {
	case !p.ProgramsOwn:
	case runtime.GOOS == "windows":
		p.Programs = programsWindows
	default:
		if p.Programs, err = shortened(getenv, state, "programs", "", "serve.sock"); err != nil {
			return Places{}, err
		}
	}
	p.Control, err = shortened(getenv, state, "control", "-control", "control.sock")
	return p, err
}

// shortened is a socket's path in a directory of its own in the state directory, or,
// where that is too long, in a directory of the user's that is named for the state
// directory.
func shortened(getenv func(string) string, state, dir, ending, name string) (string, error) {
	path := filepath.Join(state, dir, name)
	if config.FitsSocket(path) {
		return path, nil
	}
	run := getenv("XDG_RUNTIME_DIR")
	if !filepath.IsAbs(run) {
		return "", &config.Error{Path: path, Err: fmt.Errorf("it is too long for a socket, and XDG_RUNTIME_DIR names no directory for a shorter one. Set %s to a shorter path, or set XDG_RUNTIME_DIR", config.EnvStateDir)}
	}
	hash := sha256.Sum256([]byte(filepath.Clean(state)))
	path = filepath.Join(run, "upsauth-"+hex.EncodeToString(hash[:8])+ending, name)
	if !config.FitsSocket(path) {
		return "", &config.Error{Path: path, Err: fmt.Errorf("it is too long for a socket. Set %s or XDG_RUNTIME_DIR to a shorter path", config.EnvStateDir)}
	}
	return path, nil
}
