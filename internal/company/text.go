package company

import (
	"encoding/json"
	"fmt"
	"time"
)

// format is that of the text of an entry.
const format = 1

// kept is an entry as stores keep it.
type kept struct {
	Version int       `json:"version"`
	Company string    `json:"company"`
	Added   time.Time `json:"added"`
	Details
	IDs []string `json:"ids,omitempty"`
}

// Text is the entry as stores keep it, in JSON.
func (e Entry) Text() ([]byte, error) {
	return json.Marshal(kept{Version: format, Company: e.Company, Added: e.Added, Details: e.Details, IDs: e.IDs})
}

// ReadEntry puts the entry of a text into the row. A row whose text is no entry is damaged.
// One that a newer upsauth wrote is a *FileError, because nobody knows what it says.
func (r *Row) ReadEntry(data []byte) error {
	var k kept
	err := json.Unmarshal(data, &k)
	if k.Version > format { // and nobody knows what else a newer format looks like
		return &FileError{Path: r.Place, Err: fmt.Errorf("it was written by a newer upsauth (format %d, this one knows %d)", k.Version, format)}
	}
	if err != nil {
		r.Damaged = &FileError{Path: r.Place, Err: err, Damaged: true}
		return nil //nolint:nilerr // the row says so
	}
	r.Entry = Entry{Company: k.Company, Added: k.Added, Details: k.Details, IDs: k.IDs}
	return nil
}
