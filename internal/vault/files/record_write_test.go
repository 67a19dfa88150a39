package files

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	jsonv2 "github.com/go-json-experiment/json"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/safefile"
)

// What UPS or a proxy says may have any bytes in it, and must not keep tokens from
// being saved.
func TestRecordsTakeAnyText(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r.json")
	r := grant.Record{Facts: grant.Facts{ID: grant.ID{Company: "Acme"}}, Local: grant.Local{LastError: &grant.LastError{Message: "no\xff\x00\u2028thing"}}}
	if _, err := New("", nil).writeRecordTo(path, r, safefile.Write); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var back grant.Record
	if err := jsonv2.Unmarshal(data, &back); err != nil || back.LastError.Message != "no\uFFFD\x00\u2028thing" {
		t.Errorf("%q, %v", back.LastError, err)
	}
}

// Records are written by the library that reads them. What it writes of valid text is
// what earlier releases wrote, byte for byte, so that they read it too.
func TestRecordsAreWrittenAsEver(t *testing.T) {
	at := time.Date(2026, 11, 28, 12, 0, 0, 1000, time.UTC)
	for _, r := range []grant.Record{
		{Facts: grant.Facts{ID: grant.ID{Company: `A&B <"Süd"> Ltd\ `, Application: "a", Environment: "cie"}, TokenVaultKey: "K", Home: "file"}},
		{
			Facts: grant.Facts{
				ID:             grant.ID{Company: "Acme", Application: "a", Environment: "cie"},
				TokenVaultKey:  "K",
				Home:           "keychain",
				Generation:     3,
				Issued:         at,
				Expires:        at,
				Requested:      at,
				RefreshCount:   2,
				NoRefreshToken: true,
			},
			Local: grant.Local{Void: true, Removing: true, Superseded: []grant.Place{{TokenVaultKey: "L", Home: "file"}}, LastError: &grant.LastError{Code: "10400", Kind: "refresh-token-refused", Message: "refused", Time: at}},
		},
	} {
		path := filepath.Join(t.TempDir(), "r.json")
		if _, err := New("", nil).writeRecordTo(path, r, safefile.Write); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		r.Version = grant.RecordVersion
		want, err := json.MarshalIndent(r, "", " ")
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != string(want)+"\n" {
			t.Errorf("it is\n%s\nwant\n%s", got, want)
		}
		var back grant.Record
		if err := json.Unmarshal(got, &back); err != nil || !reflect.DeepEqual(back, r) {
			t.Errorf("it reads as %+v, %v", back, err)
		}
	}
}
