package soak

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"slices"
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/sandbox"
	"github.com/upsauth/upsauth/internal/ups"
)

// stopwatch is a transport that notes when a request has its connection, which
// is just before its first byte.
type stopwatch struct {
	http.RoundTripper
	begun time.Time
}

func (s *stopwatch) RoundTrip(r *http.Request) (*http.Response, error) {
	trace := &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { s.begun = time.Now() }}
	return s.RoundTripper.RoundTrip(r.WithContext(httptrace.WithClientTrace(r.Context(), trace)))
}

// BenchmarkUnavoidableWindow measures the time in which a cut-off loses a
// refresh token, against a sandbox on loopback: from the first byte sent until
// UPS's answer is sealed on disk, and how much of it is the sealing.
func BenchmarkUnavoidableWindow(b *testing.B) {
	p := newPlace(b, sandbox.Options{})
	server := httptest.NewServer(p.server)
	b.Cleanup(server.Close)
	p.authorize(company)
	g, err := p.vault.Get(b.Context(), id(company))
	if err != nil {
		b.Fatal(err)
	}
	transport := ups.NewTransport()
	b.Cleanup(transport.CloseIdleConnections)
	watch := &stopwatch{RoundTripper: transport}
	client := &ups.Client{
		Environment: ups.Environment{Name: "lab", BaseURL: server.URL, Origin: server.URL},
		Application: ups.Application{ClientID: "cid", ClientSecret: "secret"},
		Transport:   watch,
	}
	var windows, seals []time.Duration
	for b.Loop() {
		j := grant.Journal{ID: g.ID, Purpose: grant.Refreshing, TokenVaultKey: g.TokenVaultKey,
			Generation: g.Generation + 1, Attempt: 1, Fate: grant.Fate{Time: time.Now()}, Home: g.Home, Recipient: g.JournalRecipient}
		if err := p.vault.Claim(b.Context(), &j); err != nil {
			b.Fatal(err)
		}
		answer, err := client.Refresh(context.Background(), g.RefreshToken, func(a ups.Answer) error {
			start := time.Now()
			text, err := json.Marshal(a)
			if err != nil {
				return err
			}
			err = p.vault.Seal(context.Background(), &j, &g, text)
			windows, seals = append(windows, time.Since(watch.begun)), append(seals, time.Since(start))
			return err
		})
		if err != nil {
			b.Fatal(err)
		}
		g.RefreshToken = answer.Tokens().RefreshToken
		g.Generation++
	}
	b.ReportMetric(median(windows), "µs-window")
	b.ReportMetric(median(seals), "µs-sealing")
}

func median(d []time.Duration) float64 {
	slices.Sort(d)
	return float64(d[len(d)/2].Microseconds())
}
