// Command upsauth authorizes UPS's APIs for every company that somebody looks
// after, and keeps the tokens.
package main

import (
	"os"

	"github.com/upsauth/upsauth/internal/cli"
)

func main() { os.Exit(cli.Main()) }
