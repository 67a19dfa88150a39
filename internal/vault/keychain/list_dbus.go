//go:build (dragonfly && cgo) || (freebsd && cgo) || linux || netbsd || openbsd

package keychain

import (
	"slices"
	"strings"

	"github.com/godbus/dbus/v5"
)

// List reads the items' attributes, which is where go-keyring puts the names,
// and no secret.
func (System) List(service string) ([]string, error) {
	// A bus that had to be started first would have nothing to list.
	conn, err := dbus.SessionBusPrivateNoAutoStartup()
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	if err := conn.Auth(nil); err != nil {
		return nil, err
	}
	if err := conn.Hello(); err != nil {
		return nil, err
	}
	const secrets = "org.freedesktop.secrets"
	var open, locked []dbus.ObjectPath
	for attempt := 1; ; attempt++ {
		err = conn.Object(secrets, "/org/freedesktop/secrets").
			Call("org.freedesktop.Secret.Service.SearchItems", 0, map[string]string{"service": service}).Store(&open, &locked)
		if err == nil {
			break
		}
		// An item that goes while the daemon searches can fail the search.
		if !gone(err) || attempt == 5 {
			return nil, err
		}
	}
	var accounts []string
	for items := range slices.Chunk(slices.Concat(open, locked), unanswered) {
		calls := make([]*dbus.Call, len(items))
		for i, item := range items {
			calls[i] = conn.Object(secrets, item).Go("org.freedesktop.DBus.Properties.Get", 0, nil, "org.freedesktop.Secret.Item", "Attributes")
		}
		for i, call := range calls {
			<-call.Done
			if gone(call.Err) {
				continue
			}
			var attributes map[string]string
			if err := call.Store(&attributes); err != nil {
				return nil, err
			}
			account, ok := attributes["username"]
			if ok {
				accounts = append(accounts, account)
			} else if slices.Contains(locked, items[i]) {
				// gnome-keyring has but digests of the names before it was unlocked
				// for the first time.
				return nil, dbus.Error{Name: "org.freedesktop.Secret.Error.IsLocked"}
			}
		}
	}
	return accounts, nil
}

// unanswered is how many calls are on their way at once. It takes half the time
// of one by one; a bus may allow no more than 128.
const unanswered = 32

// gone reports whether an item was removed since it was found, of which daemons
// have several ways to tell.
func gone(err error) bool {
	if err == nil {
		return false
	}
	text := strings.ToLower(errorName(err) + " " + err.Error())
	for _, word := range []string{"unknownmethod", "unknownobject", "unknowninterface", "nosuchobject", "no such object", "no such interface", "does not exist"} {
		if strings.Contains(text, word) {
			return true
		}
	}
	return false
}
