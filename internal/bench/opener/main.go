//go:build linux

// Command opener is the browser of make bench: it follows redirects at once, with
// the cookie that it is given, and reads the last page.
package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"os"
)

func main() {
	jar, _ := cookiejar.New(nil) // without options nothing can be wrong
	browser := &http.Client{Jar: jar}
	page, err := browser.Get(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	defer page.Body.Close()
	_, _ = io.Copy(io.Discard, page.Body)
}
