package programs

import (
	"fmt"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/serve/keys"
)

// put keeps a grant whose access token is good for an hour, as UPS's are long.
func (w *world) put(company string) {
	w.Helper()
	now := w.Now().UTC().Truncate(time.Second)
	g := grant.Grant{Record: grant.Record{Facts: grant.Facts{
		ID:            grant.ID{Company: company, Application: "rating", Environment: "lab"},
		TokenVaultKey: strings.ToUpper(uuid.NewString()), Generation: 1, User: "jane@acme.example",
		ClientID: "client-rating", BaseURL: w.ups.URL, Home: "file",
		Requested: now, Issued: now, Expires: now.Add(time.Hour), AccessUntil: now.Add(time.Hour),
		RefreshTokenIssued: now, RefreshTokenExpires: now.Add(60 * 24 * time.Hour), RefreshUntil: now.Add(60 * 24 * time.Hour),
	}}, Secrets: grant.Secrets{AccessToken: "access of " + company + strings.Repeat("x", 1200), RefreshToken: strings.Repeat("y", 80)}}
	if _, err := w.s.Keeper.Import(w.Context(), g); err != nil {
		w.Fatal(err)
	}
}

// keepWriting changes the record of a company that nobody asks for until it is told to
// stop.
func (w *world) keepWriting(stop chan struct{}) {
	id := grant.ID{Company: "Company 1000", Application: "rating", Environment: "lab"}
	for i := 0; ; i++ {
		select {
		case <-stop:
			return
		default:
		}
		if err := w.s.Vault.Note(w.Context(), id, func(l *grant.Local) { l.LastError = &grant.LastError{Message: fmt.Sprint(i)} }); err != nil {
			w.Error(err)
			return
		}
	}
}

// BenchmarkToken asks for tokens of 1,000 companies over a socket with keep-alive, with
// and without a key, one client at a time and several; at last while records of other
// companies are written all the time, as in a round.
func BenchmarkToken(b *testing.B) {
	w := newWorld(b)
	const companies = 1000
	paths := make([]string, companies)
	for i := range paths {
		name := fmt.Sprintf("Company %d", i)
		w.put(name)
		paths[i] = "/v1/token?company=" + url.QueryEscape(name)
	}
	w.put("Company 1000")
	client := w.serve(false)
	for _, path := range paths {
		if status, body := get(b, client, path); status != 200 {
			b.Fatalf("%d %s", status, body)
		}
	}
	heap := func() float64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return float64(m.HeapAlloc) / (1 << 20)
	}
	all := w.key("all", keys.Scope{})
	one := w.key("one", keys.Scope{Companies: []string{w.identify("Company 1")}})
	for _, clients := range []int{1, 8} {
		for _, kind := range []string{"socket", "key", "limited", "round", "round-named"} {
			b.Run(fmt.Sprintf("%s/%d", kind, clients), func(b *testing.B) {
				var mu sync.Mutex
				var took []time.Duration
				var next atomic.Int64
				var asking sync.WaitGroup
				stop := make(chan struct{})
				var writing sync.WaitGroup
				if strings.HasPrefix(kind, "round") {
					writing.Go(func() { w.keepWriting(stop) })
				}
				b.ResetTimer()
				for range clients {
					asking.Go(func() {
						var mine []time.Duration
						for {
							i := next.Add(1)
							if i > int64(b.N) {
								break
							}
							secret, path := "", paths[int(i)%companies]
							switch kind {
							case "round-named":
								path += "&app=rating&env=lab"
							case "key":
								secret = all
							case "limited":
								secret, path = one, paths[1]
							}
							begun := time.Now()
							ask(b, client, secret, path)
							mine = append(mine, time.Since(begun))
						}
						mu.Lock()
						defer mu.Unlock()
						took = append(took, mine...)
					})
				}
				asking.Wait()
				b.StopTimer()
				close(stop)
				writing.Wait()
				slices.Sort(took)
				b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
				b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
				b.ReportMetric(float64(len(took))/b.Elapsed().Seconds(), "tokens/s")
				b.ReportMetric(heap(), "heap-MiB")
			})
		}
	}
}
