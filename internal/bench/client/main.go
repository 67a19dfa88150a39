//go:build linux

// Command client is what make bench compares a sign-in with: the least that
// gets a token by the same code flow. It keeps nothing and checks nothing but
// the state.
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"

	"golang.org/x/oauth2"
)

func main() {
	if err := run(context.Background(), os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, server, opener string) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	config := oauth2.Config{
		ClientID: "bench", ClientSecret: "secret", RedirectURL: fmt.Sprintf("http://%s/callback", listener.Addr()),
		Endpoint: oauth2.Endpoint{
			AuthURL: server + "/security/v1/oauth/authorize", TokenURL: server + "/security/v1/oauth/token",
			AuthStyle: oauth2.AuthStyleInHeader,
		},
	}
	state, verifier := oauth2.GenerateVerifier(), oauth2.GenerateVerifier()
	code := make(chan string, 1)
	go func() {
		_ = http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.FormValue("state") != state {
				http.Error(w, "another state", http.StatusBadRequest)
				return
			}
			fmt.Fprintln(w, "Done.")
			code <- r.FormValue("code")
		}))
	}()
	browser := exec.Command(opener, config.AuthCodeURL(state, oauth2.S256ChallengeOption(verifier)))
	if err := browser.Start(); err != nil {
		return err
	}
	token, err := config.Exchange(ctx, <-code, oauth2.VerifierOption(verifier))
	if err != nil {
		return err
	}
	if token.RefreshToken == "" {
		return errors.New("the server gave no refresh token")
	}
	fmt.Println(token.AccessToken)
	return nil
}
