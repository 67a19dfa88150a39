package config

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/upsauth/upsauth/internal/address"
	"github.com/upsauth/upsauth/internal/loopback"
)

// EnvSocket names the socket at which programs ask for tokens.
const EnvSocket = "UPSAUTH_SOCKET"

// ManagerServer is the name of the server of the company manager's pages.
const ManagerServer = "the company manager"

// Serve is how the service's faces are reached.
type Serve struct {
	// Listen is the loopback address of the company manager, ManagerURL where an
	// authenticating proxy brings it; each empty for what is usual.
	Listen     string `toml:"listen"`
	ManagerURL string `toml:"manager_url"`
	// PublicListen and PublicURL are the same for what customers see. From is who
	// invites them, and Contact whom they ask. ReturnURLs are where an invitation may
	// lead in the end.
	PublicListen string   `toml:"public_listen"`
	PublicURL    string   `toml:"public_url"`
	From         string   `toml:"from"`
	Contact      string   `toml:"contact"`
	ReturnURLs   []string `toml:"return_urls"`
	// SocketGroup is the group whose members may fetch tokens too, empty for none.
	SocketGroup string `toml:"socket_group"`
}

// Events says who is told of what happens to grants.
type Events struct {
	// Command is a program with its arguments, none for nobody.
	Command []string `toml:"command"`
}

// maxSocketPath is how long the path of a socket may be: the systems have room for 104
// bytes and more.
const maxSocketPath = 100

// FindSocket is the path that UPSAUTH_SOCKET names for the programs' socket, on Windows
// a loopback address with a port; empty where it names none. Errors are *Error.
func FindSocket(getenv func(string) string) (string, error) {
	socket := getenv(EnvSocket)
	switch {
	case socket == "":
		return "", nil
	case runtime.GOOS == "windows":
		if err := loopback.CheckLoopback("programs' requests", socket); err != nil {
			return "", &Error{Path: EnvSocket, Err: err}
		}
		return socket, nil
	case !filepath.IsAbs(socket):
		return "", notAbsolute(EnvSocket, socket)
	case len(socket) > maxSocketPath:
		return "", &Error{Path: EnvSocket, Err: fmt.Errorf("%s has %d bytes, and the path of a socket may have %d. Name a shorter path", socket, len(socket), maxSocketPath)}
	}
	return filepath.Clean(socket), nil
}

// FitsSocket reports whether a path is short enough for a socket.
func FitsSocket(path string) bool { return len(path) <= maxSocketPath }

// CheckManagerListen reports what is wrong with the address of the company manager.
func CheckManagerListen(listen string) error { return loopback.CheckLoopback(ManagerServer, listen) }

// check reports what is wrong with a setting, by its name.
func (s Serve) check() error {
	of := func(key string, err error) error {
		if err == nil {
			return nil
		}
		return fmt.Errorf("%s of [serve]: %w", key, err)
	}
	var errs []error
	if s.Listen != "" {
		errs = append(errs, of("listen", CheckManagerListen(s.Listen)))
	}
	if s.ManagerURL != "" {
		errs = append(errs, of("manager_url", checkFront(s.ManagerURL, false)))
	}
	if s.PublicListen != "" {
		errs = append(errs, of("public_listen", CheckHostPort(s.PublicListen)))
	}
	if s.PublicURL != "" {
		errs = append(errs, of("public_url", checkFront(s.PublicURL, true)))
	}
	for _, u := range s.ReturnURLs {
		errs = append(errs, of("return_urls", checkFront(u, true)))
	}
	errs = append(errs, of("from", checkLine(s.From)), of("contact", checkLine(s.Contact)), of("socket_group", checkLine(s.SocketGroup)))
	if s.SocketGroup != "" && runtime.GOOS == "windows" {
		errs = append(errs, of("socket_group", errors.New("a socket has no group on Windows; programs use keys")))
	}
	for _, err := range errs {
		if err != nil {
			return err // the first, as of everything in the file
		}
	}
	return nil
}

// CheckHostPort reports what is wrong with an address to listen on, at any of this
// machine's addresses.
func CheckHostPort(listen string) error {
	_, port, err := net.SplitHostPort(listen)
	if err != nil {
		return fmt.Errorf("%q is not host:port, such as 127.0.0.1:8489", listen)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("%q has no port between 0 and 65535", listen)
	}
	return nil
}

// checkFront reports what is wrong with the address of a page as browsers see it: https,
// or http on loopback for trials. Only with a path may it lead below its host.
func checkFront(text string, path bool) error {
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.ForceQuery || strings.Contains(text, "#") ||
		u.Scheme != "https" && (u.Scheme != "http" || !address.IsLoopback(u.Hostname())) {
		return fmt.Errorf("%q is not an address such as https://upsauth.example.com (or http on this machine)", text)
	}
	if !path && strings.Trim(u.Path, "/") != "" {
		return fmt.Errorf("%q has a path; the company manager needs a host of its own", text)
	}
	return nil
}

// CheckPublicURI reports what is wrong with a redirect URI at which customers come back.
func CheckPublicURI(uri string) error { return checkFront(uri, true) }

// checkLine refuses what is no line of text.
func checkLine(text string) error {
	const most = 200
	if !utf8.ValidString(text) || strings.ContainsFunc(text, unicode.IsControl) || utf8.RuneCountInString(text) > most {
		return fmt.Errorf("%q is not one line of at most %d characters", text, most)
	}
	return nil
}

// check reports what is wrong with the command.
func (e Events) check() error {
	if e.Command == nil {
		return nil
	}
	if len(e.Command) == 0 || strings.TrimSpace(e.Command[0]) == "" {
		return errors.New("command of [events] names no program")
	}
	if !filepath.IsAbs(e.Command[0]) {
		return fmt.Errorf("command of [events]: %q is not a full path, so what it means would depend on PATH", e.Command[0])
	}
	return nil
}
