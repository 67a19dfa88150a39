//go:build linux

// Command opener is the browser of make bench: it follows redirects at once and
// reads the last page.
package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
)

func main() {
	page, err := http.Get(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	defer page.Body.Close()
	_, _ = io.Copy(io.Discard, page.Body)
}
