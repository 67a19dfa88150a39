package events

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
)

// A vault of 10,000 companies that are void at once, as after a mistake at UPS, must not
// take the service for minutes.
func BenchmarkManyCompanies(b *testing.B) {
	const companies = 10_000
	records, voided := make([]grant.Record, companies), make([]grant.Record, companies)
	for i := range records {
		records[i] = record(fmt.Sprintf("company %d", i), i, noon.Add(far))
		voided[i] = void(records[i])
	}
	measure := func(name string, f func() error) {
		begin := time.Now()
		if err := f(); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(time.Since(begin).Milliseconds()), name)
	}
	for b.Loop() {
		d := open(&testing.T{}, filepath.Join(b.TempDir(), "events"), noon)
		measure("ms-first-look", func() error { return d.Look(context.Background(), Known{Records: records, Complete: true}, teller) })
		measure("ms-same-look", func() error { return d.Look(context.Background(), Known{Records: records, Complete: true}, teller) })
		measure("ms-void-look", func() error { return d.Look(context.Background(), Known{Records: voided, Complete: true}, teller) })
		measure("ms-tell-100", func() error {
			for range 100 {
				one, _ := d.due(context.Background())
				d.tell(b.Context(), *one)
			}
			return nil
		})
	}
}
