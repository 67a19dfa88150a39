//go:build !((dragonfly && cgo) || (freebsd && cgo) || linux || netbsd || openbsd)

package keychain

import "github.com/zalando/go-keyring"

func (System) Get(service, account string) (string, error) { return keyring.Get(service, account) }

func (System) Set(service, account, secret string) error {
	return keyring.Set(service, account, secret)
}

func (System) Delete(service, account string) error { return keyring.Delete(service, account) }
