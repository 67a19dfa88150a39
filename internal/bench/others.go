//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// installed leaves the lines whose program is there.
func installed(lines ...line) (there []line) {
	for _, l := range lines {
		if _, err := exec.LookPath(l.args[0]); err != nil {
			fmt.Fprintf(os.Stderr, "without %s: %v\n", l.args[0], err)
			continue
		}
		there = append(there, l)
	}
	return there
}

// othersStart are programs with the same task that distributions have, and do nothing.
func othersStart() []line {
	return installed(
		line{"`git-credential-oauth version` (Go)", 0, []string{"git-credential-oauth", "version"}},
		line{"`gh version` (Go)", 0, []string{"gh", "version"}},
		line{"`oidc-token --version` (C)", 0, []string{"oidc-token", "--version"}},
	)
}

// othersHome is where these programs keep what they have.
func (b *bench) othersHome() string { return filepath.Join(b.dir, "others") }

// othersEnv is an environment in which they touch nothing of the user's own.
func (b *bench) othersEnv(env []string) []string {
	home := b.othersHome()
	return append(env, "GH_CONFIG_DIR="+home, "OIDC_CONFIG_DIR="+home)
}

// othersToken prepares other programs that give a token, in the clear from a file or from
// the memory of a process, and returns an environment in which they have one.
func (b *bench) othersToken(env []string) (lines []line, with []string, end func(), err error) {
	end = func() {}
	home := b.othersHome()
	if err := os.MkdirAll(home, 0o700); err != nil {
		return nil, nil, end, err
	}
	hosts := "github.com:\n    user: jane\n    git_protocol: https\n    oauth_token: gho_" + strings.Repeat("x", 36) + "\n"
	if err := os.WriteFile(filepath.Join(home, "hosts.yml"), []byte(hosts), 0o600); err != nil {
		return nil, nil, end, err
	}
	with = b.othersEnv(env)
	lines = installed(line{"`gh auth token`, from a file in the clear", 0, []string{"gh", "auth", "token"}})
	agents := installed(line{"`oidc-token`, from a running `oidc-agent`", 0, []string{"oidc-token", "bench"}})
	if len(agents) == 0 {
		return lines, with, end, nil
	}
	socket, end, err := startAgent(with)
	return append(lines, agents...), append(with, "OIDC_SOCK="+socket), end, err
}

// startAgent starts an oidc-agent that has a token.
func startAgent(env []string) (socket string, end func(), err error) {
	issuer := newIssuer()
	end = issuer.Close
	said, err := output(env, []string{"oidc-agent", "--json"})
	if err != nil {
		return "", end, err
	}
	var agent struct {
		Socket string `json:"socket"`
		PID    int    `json:"dpid,string"`
	}
	if err := json.Unmarshal(said, &agent); err != nil || agent.PID == 0 {
		return "", end, errors.Join(err, fmt.Errorf("oidc-agent says %q", said))
	}
	end = func() {
		issuer.Close()
		if p, err := os.FindProcess(agent.PID); err == nil {
			_ = p.Kill()
		}
	}
	_, err = run(append(env, "OIDC_SOCK="+agent.Socket), []string{"oidc-gen", "bench",
		"--issuer=" + issuer.URL + "/", "--client-id=bench", "--client-secret=secret", "--redirect-uri=http://localhost:8400",
		"--scope=openid offline_access", "--rt=refresh", "--flow=refresh", "--manual", "--prompt=none", "--pw-cmd=echo bench", "--confirm-default"})
	return agent.Socket, end, err
}

// newIssuer answers as an OpenID provider does, as far as oidc-agent asks it.
func newIssuer() *httptest.Server {
	mux := http.NewServeMux()
	server := httptest.NewServer(mux)
	answer := func(w http.ResponseWriter, v any) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(v)
	}
	mux.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, map[string]any{
			"issuer": server.URL, "token_endpoint": server.URL + "/token", "authorization_endpoint": server.URL + "/authorize",
			"scopes_supported":         []string{"openid", "offline_access"},
			"grant_types_supported":    []string{"refresh_token", "authorization_code"},
			"response_types_supported": []string{"code"},
		})
	})
	mux.HandleFunc("POST /token", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, map[string]any{"access_token": accessToken(), "refresh_token": strings.Repeat("refresh-", 20), "token_type": "Bearer", "expires_in": 86400})
	})
	return server
}
