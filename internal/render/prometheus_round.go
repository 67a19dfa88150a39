package render

import (
	"fmt"
	"io"
	"time"
)

// LastRound is what became of the last round of refreshes of a service.
type LastRound struct {
	End               time.Time
	Refreshed, Failed int
	// ExitCode is how the round would have ended as a command of its own.
	ExitCode int
}

// PrometheusRound writes what monitors watch of a service, behind what
// Prometheus writes.
func PrometheusRound(w io.Writer, r LastRound) error {
	for _, metric := range []struct {
		name, help string
		value      int64
	}{
		{"upsauth_last_round_timestamp_seconds", "When the last round of refreshes ended, by this machine's clock.", r.End.Unix()},
		{"upsauth_last_round_refreshed", "How many grants the last round refreshed.", int64(r.Refreshed)},
		{"upsauth_last_round_failed", "How many grants the last round could not refresh.", int64(r.Failed)},
		{"upsauth_last_round_exit_code", "The exit code of the last round, 0 where all went well.", int64(r.ExitCode)},
	} {
		if err := writeGauge(w, metric.name, metric.help, metric.value); err != nil {
			return err
		}
	}
	return nil
}

func writeGauge(w io.Writer, name, help string, value int64) error {
	_, err := fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s gauge\n%s %d\n", name, help, name, name, value)
	return err
}

// PrometheusDatabase writes whether the database that hosts share can be reached.
func PrometheusDatabase(w io.Writer, up bool) error {
	value := int64(0)
	if up {
		value = 1
	}
	return writeGauge(w, "upsauth_database_up", "Whether this host reaches the database of the shared vault (1) or not (0).", value)
}
