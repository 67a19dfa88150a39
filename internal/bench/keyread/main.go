//go:build linux

// Command keyread is what make bench compares the keychain with: it reads the
// one item that it is told, and prints it.
package main

import (
	"fmt"
	"os"

	"github.com/zalando/go-keyring"

	"github.com/upsauth/upsauth/internal/vault/keychain"
)

func main() {
	secret, err := keyring.Get(keychain.Service, os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(secret)
}
