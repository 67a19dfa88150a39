package legible

import (
	"testing"
	"time"
)

func TestSpan(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"7d": 7 * 24 * time.Hour, "1w": 7 * 24 * time.Hour, "1w2d": 9 * 24 * time.Hour, "1d12h": 36 * time.Hour,
		"1.5d": 36 * time.Hour, "36h": 36 * time.Hour, "15m": 15 * time.Minute, "0": 0, "0d": 0, "-5m": -5 * time.Minute,
	} {
		if got, err := Span(text); err != nil || got != want {
			t.Errorf("%q: %s, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "d", "7", "7x", "-5d", "1d-2h", "99999999999999d", "40000d", "900000h", "1d1d1x", "NaNd", "1e9d"} {
		if got, err := Span(text); err == nil {
			t.Errorf("%q: %s", text, got)
		}
	}
}

func TestDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{
		time.Hour: "1h", 36 * time.Hour: "36h", 15 * time.Minute: "15m", 90 * time.Second: "1m30s", 0: "0s", 10 * time.Second: "10s",
		time.Hour + 10*time.Second: "1h0m10s", time.Hour + 10*time.Minute: "1h10m", 1500 * time.Millisecond: "1.5s", -time.Hour: "-1h", 100 * time.Minute: "1h40m",
	} {
		got := Duration(d)
		if got != want {
			t.Errorf("%v is %s, want %s", d, got, want)
		}
		if back, err := Span(got); d >= 0 && (err != nil || back != d) {
			t.Errorf("%s is read as %v, %v", got, back, err)
		}
	}
}
