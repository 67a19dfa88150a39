package keyringtest

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/godbus/dbus/v5"
)

// A gnome-keyring has any number of collections beside the one named login. They
// have its password.

// AddCollection makes a collection, open and empty.
func (k *Keyring) AddCollection(label string) error {
	s, err := k.secret([]byte(password))
	if err != nil {
		return err
	}
	properties := map[string]dbus.Variant{"org.freedesktop.Secret.Collection.Label": dbus.MakeVariant(label)}
	var path dbus.ObjectPath
	err = k.object(service).Call("org.gnome.keyring.InternalUnsupportedGuiltRiddenInterface.CreateWithMasterPassword", 0, properties, s).Store(&path)
	if err != nil {
		return err
	}
	if k.collections == nil {
		k.collections = map[string]dbus.ObjectPath{"login": login}
	}
	k.collections[label] = path
	return nil
}

func (k *Keyring) collection(label string) (dbus.ObjectPath, error) {
	path, ok := k.collections[label]
	if !ok {
		return "", fmt.Errorf("there is no collection %q but %q", label, slices.Collect(maps.Keys(k.collections)))
	}
	return path, nil
}

// LockCollection locks one collection.
func (k *Keyring) LockCollection(label string) error {
	path, err := k.collection(label)
	if err != nil {
		return err
	}
	return k.lock(path)
}

// UnlockCollection unlocks it again without a question.
func (k *Keyring) UnlockCollection(label string) error {
	path, err := k.collection(label)
	if err != nil {
		return err
	}
	return k.unlock(path)
}

// Copy puts copies of a service's items that the first collection has into the
// second, as a program saves them for which that one is the only one there is.
// Move is Copy, and then the first has them no more.
func (k *Keyring) Copy(name, from, to string) error { return k.copy(name, from, to, false) }

// Move is Copy without the first collection's items.
func (k *Keyring) Move(name, from, to string) error { return k.copy(name, from, to, true) }

func (k *Keyring) copy(name, from, to string, move bool) error {
	source, err := k.collection(from)
	if err != nil {
		return err
	}
	target, err := k.collection(to)
	if err != nil {
		return err
	}
	var items []dbus.ObjectPath
	if err := k.object(source).Call("org.freedesktop.Secret.Collection.SearchItems", 0, map[string]string{"service": name}).Store(&items); err != nil {
		return err
	}
	for _, item := range items {
		session, err := k.secret(nil)
		if err != nil {
			return err
		}
		var value secret
		if err := k.object(item).Call("org.freedesktop.Secret.Item.GetSecret", 0, session.Session).Store(&value); err != nil {
			return err
		}
		var attributes map[string]string
		if err := k.object(item).StoreProperty("org.freedesktop.Secret.Item.Attributes", &attributes); err != nil {
			return err
		}
		properties := map[string]dbus.Variant{
			"org.freedesktop.Secret.Item.Label":      dbus.MakeVariant("copied"),
			"org.freedesktop.Secret.Item.Attributes": dbus.MakeVariant(attributes),
		}
		if err := k.object(target).Call("org.freedesktop.Secret.Collection.CreateItem", 0, properties, value, true).Err; err != nil {
			return err
		}
		if !move {
			continue
		}
		if err := k.object(item).Call("org.freedesktop.Secret.Item.Delete", 0).Err; err != nil {
			return err
		}
	}
	return nil
}

// ItemsIn returns the account names of a service's items in one collection, in
// order.
func (k *Keyring) ItemsIn(name, label string) ([]string, error) {
	path, err := k.collection(label)
	if err != nil {
		return nil, err
	}
	return k.items(name, func(item dbus.ObjectPath) bool { return strings.HasPrefix(string(item), string(path)+"/") })
}
