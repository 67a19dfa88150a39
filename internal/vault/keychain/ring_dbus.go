//go:build (dragonfly && cgo) || (freebsd && cgo) || linux || netbsd || openbsd

package keychain

import (
	"cmp"
	"errors"
	"path"
	"slices"
	"strings"

	"github.com/godbus/dbus/v5"
	"github.com/zalando/go-keyring"
	secretservice "github.com/zalando/go-keyring/secret_service"
)

// A Secret Service has several keyrings, which it calls collections. go-keyring
// knows one of them: the keyring named login, or else the default one. Which one
// that is changes when a keyring named login appears, and what was saved before
// stays where it is. So all of them are searched first, and go-keyring is left
// with what none of them has, and with what is in its own.

const (
	secretsName       = "org.freedesktop.secrets"
	secretsPath       = dbus.ObjectPath("/org/freedesktop/secrets")
	serviceInterface  = "org.freedesktop.Secret.Service"
	keyringInterface  = "org.freedesktop.Secret.Collection"
	itemInterface     = "org.freedesktop.Secret.Item"
	defaultKeyring    = secretsPath + "/aliases/default"
	searchesAtMost    = 5
	propertiesGetCall = "org.freedesktop.DBus.Properties.Get"
)

// secrets is a connection to the Secret Service, which go-keyring shares.
type secrets struct{ *secretservice.SecretService }

func connect() (secrets, error) {
	if err := findBus(); err != nil {
		return secrets{}, err
	}
	s, err := secretservice.NewSecretService()
	return secrets{s}, err
}

// opened is connect, and sees to it that one keyring at least is open, as
// go-keyring does: KeePassXC puts a search off until a database is.
func opened() (secrets, error) {
	s, err := connect()
	if err != nil {
		return s, err
	}
	open, _, err := s.anyOpen()
	if err == nil && !open {
		err = s.Unlock(s.GetLoginCollection().Path())
	}
	return s, err
}

// anyOpen reports whether a keyring is open, and whether there is any.
func (s secrets) anyOpen() (open, some bool, err error) {
	paths, err := s.collections()
	if err != nil {
		return false, false, err
	}
	for _, p := range paths {
		locked := true
		if err := s.Object(secretsName, p).StoreProperty(keyringInterface+".Locked", &locked); err != nil && !gone(err) {
			return false, true, err
		}
		if !locked {
			return true, true, nil
		}
	}
	return false, len(paths) > 0, nil
}

func (s secrets) collections() (paths []dbus.ObjectPath, err error) {
	err = s.service().StoreProperty(serviceInterface+".Collections", &paths)
	return paths, err
}

func (s secrets) service() dbus.BusObject { return s.Object(secretsName, secretsPath) }

// found is an item that a search found.
type found struct {
	path   dbus.ObjectPath
	locked bool
}

// keyring is where the item is.
func (f found) keyring() dbus.ObjectPath { return dbus.ObjectPath(path.Dir(string(f.path))) }

// search finds items by their attributes, in all keyrings and without a
// question. A locked gnome-keyring is searched too; a locked KeePassXC has
// nothing to search.
func (s secrets) search(attributes map[string]string) ([]found, error) {
	var open, locked []dbus.ObjectPath
	for attempt := 1; ; attempt++ {
		err := s.service().Call(serviceInterface+".SearchItems", 0, attributes).Store(&open, &locked)
		if err == nil {
			break
		}
		// An item that goes while the daemon searches can fail the search.
		if !gone(err) || attempt == searchesAtMost {
			return nil, err
		}
	}
	items := make([]found, 0, len(open)+len(locked))
	for _, item := range open {
		items = append(items, found{path: item})
	}
	for _, item := range locked {
		items = append(items, found{path: item, locked: true})
	}
	return items, nil
}

// holders finds the items of an account, the one that counts first: that in
// go-keyring's own keyring, even where it is locked, then those in keyrings that
// are open.
func (s secrets) holders(service, account string) ([]found, error) {
	items, err := s.search(map[string]string{"service": service, "username": account})
	if err != nil || len(items) < 2 {
		return items, err
	}
	own, err := s.own()
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(items, func(a, b found) int {
		return cmp.Or(order(a.keyring() != own, b.keyring() != own), order(a.locked, b.locked))
	})
	return items, nil
}

// order puts what is false first.
func order(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// own is the keyring that go-keyring uses, empty where there is none.
func (s secrets) own() (dbus.ObjectPath, error) {
	own := s.GetLoginCollection().Path()
	if own != defaultKeyring {
		return own, nil
	}
	err := s.service().Call(serviceInterface+".ReadAlias", 0, "default").Store(&own)
	if own == "/" {
		own = ""
	}
	return own, err
}

// Get reads an item in whichever keyring it is.
func (System) Get(service, account string) (string, error) {
	s, err := opened()
	if err != nil {
		return "", err
	}
	for attempt := 1; ; attempt++ {
		items, err := s.holders(service, account)
		if err != nil {
			return "", err
		}
		if len(items) == 0 {
			return s.getUnseen(service, account)
		}
		secret, err := s.read(items[0].path)
		// Somebody may have removed or moved it since it was found.
		if !gone(err) || attempt == searchesAtMost {
			return secret, err
		}
	}
}

// getUnseen looks for what the search did not find: go-keyring opens its own
// keyring first, which can be one that had nothing to search while it was locked.
func (s secrets) getUnseen(service, account string) (string, error) {
	secret, err := keyring.Get(service, account)
	if !errors.Is(err, keyring.ErrNotFound) {
		return secret, err
	}
	keyrings, listErr := s.keyrings()
	if listErr != nil {
		return "", listErr
	}
	var closed []string
	for _, k := range keyrings {
		if k.Locked && k.items == 0 {
			closed = append(closed, k.Label)
		}
	}
	if len(closed) > 0 {
		return "", &unsearchedError{keyrings: closed}
	}
	return "", err
}

func (s secrets) read(item dbus.ObjectPath) (string, error) {
	session, err := s.OpenSession()
	if err != nil {
		return "", err
	}
	defer func() { _ = s.Close(session) }()
	if err := s.Unlock(item); err != nil {
		return "", err
	}
	secret, err := s.GetSecret(item, session.Path())
	if err != nil {
		return "", err
	}
	return string(secret.Value), nil
}

// Set replaces an item where it is. A new one goes where go-keyring puts it.
func (System) Set(service, account, secret string) error {
	s, err := opened()
	if err != nil {
		return err
	}
	items, err := s.holders(service, account)
	if err != nil {
		return err
	}
	if len(items) == 0 {
		return keyring.Set(service, account, secret)
	}
	own, err := s.own()
	if err != nil {
		return err
	}
	if items[0].keyring() == own {
		return keyring.Set(service, account, secret)
	}
	session, err := s.OpenSession()
	if err != nil {
		return err
	}
	defer func() { _ = s.Close(session) }()
	if err := s.Unlock(items[0].path); err != nil {
		return err
	}
	return s.Object(secretsName, items[0].path).
		Call(itemInterface+".SetSecret", 0, secretservice.NewSecret(session.Path(), secret)).Err
}

// Delete removes an item from every keyring that has it. They are opened first,
// so that a question which is dismissed changes nothing.
func (System) Delete(service, account string) error {
	s, err := opened()
	if err != nil {
		return err
	}
	items, err := s.holders(service, account)
	if err != nil {
		return err
	}
	if len(items) == 0 {
		return keyring.Delete(service, account)
	}
	for _, item := range items {
		if err := s.Unlock(item.keyring()); err != nil {
			return err
		}
	}
	for _, item := range items {
		if err := s.SecretService.Delete(item.path); err != nil && !gone(err) {
			return err
		}
	}
	return nil
}

// Holds reports whether a keyring has an item, and asks for nothing to be
// unlocked.
func (System) Holds(service, account string) (bool, error) {
	s, err := searchable()
	if err != nil {
		return false, err
	}
	items, err := s.search(map[string]string{"service": service, "username": account})
	return len(items) > 0, err
}

// searchable is connect, or an error where a search would ask somebody first.
func searchable() (secrets, error) {
	s, err := connect()
	if err != nil {
		return s, err
	}
	open, some, err := s.anyOpen()
	switch {
	case err != nil:
		return s, err
	case !some:
		return s, dbus.Error{Name: "org.freedesktop.Secret.Error.NoSuchObject"}
	case !open:
		return s, dbus.Error{Name: "org.freedesktop.Secret.Error.IsLocked"}
	}
	return s, nil
}

// List reads the items' attributes, which is where go-keyring puts the names,
// and no secret.
func (System) List(service string) ([]string, error) {
	s, err := searchable()
	if err != nil {
		return nil, err
	}
	items, err := s.search(map[string]string{"service": service})
	if err != nil {
		return nil, err
	}
	var accounts []string
	for items := range slices.Chunk(items, unanswered) {
		calls := make([]*dbus.Call, len(items))
		for i, item := range items {
			calls[i] = s.Object(secretsName, item.path).Go(propertiesGetCall, 0, nil, itemInterface, "Attributes")
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
			} else if items[i].locked {
				// gnome-keyring has but digests of the names before it was unlocked
				// for the first time.
				return nil, dbus.Error{Name: "org.freedesktop.Secret.Error.IsLocked"}
			}
		}
	}
	return accounts, nil
}

// Keyrings tells how many items of a service each keyring has, of those that
// have any, and of the one that gets what is new.
func (System) Keyrings(service string) ([]Keyring, error) {
	s, err := searchable()
	if err != nil {
		return nil, err
	}
	keyrings, err := s.keyrings()
	if err != nil {
		return nil, err
	}
	own, err := s.own()
	if err != nil {
		return nil, err
	}
	items, err := s.search(map[string]string{"service": service})
	if err != nil {
		return nil, err
	}
	var told []Keyring
	for _, k := range keyrings {
		k.New = k.path == own
		for _, item := range items {
			if item.keyring() == k.path {
				k.Items++
			}
		}
		k.Unsearched = k.Locked && k.items == 0
		if k.Items > 0 || k.New || k.Unsearched {
			told = append(told, k.Keyring)
		}
	}
	return told, nil
}

// listed is a keyring as the service lists it, with how many items it has of
// anybody's.
type listed struct {
	Keyring
	path  dbus.ObjectPath
	items int
}

func (s secrets) keyrings() ([]listed, error) {
	paths, err := s.collections()
	if err != nil {
		return nil, err
	}
	var keyrings []listed
	for _, p := range paths {
		k := listed{path: p}
		var items []dbus.ObjectPath
		object := s.Object(secretsName, p)
		err := errors.Join(
			object.StoreProperty(keyringInterface+".Label", &k.Label),
			object.StoreProperty(keyringInterface+".Locked", &k.Locked),
			object.StoreProperty(keyringInterface+".Items", &items),
		)
		if gone(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if k.Label == "" {
			k.Label = path.Base(string(p))
		}
		k.items = len(items)
		keyrings = append(keyrings, k)
	}
	return keyrings, nil
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
