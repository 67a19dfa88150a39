package cli

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/render"
)

// fieldsIn lists the fields of a value's JSON by their paths, in their order:
// version, grants[], grants[].company. What is documented is held against it.
func fieldsIn(v any) []string {
	return fieldsOf(reflect.TypeOf(v), "")
}

func fieldsOf(t reflect.Type, prefix string) []string {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct || t == reflect.TypeFor[time.Time]() {
		return nil
	}
	var fields []string
	for _, field := range reflect.VisibleFields(t) {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		if name == "" || name == "-" {
			continue
		}
		path := prefix + name
		if field.Type.Kind() == reflect.Slice {
			path += "[]"
		}
		fields = append(append(fields, path), fieldsOf(field.Type, path+".")...)
	}
	return fields
}

func TestFields(t *testing.T) {
	const status = "version grants[] grants[].company grants[].application grants[].environment grants[].state " +
		"grants[].token_vault_key grants[].user grants[].issued grants[].expires grants[].refresh_token_issued " +
		"grants[].refresh_token_expires grants[].vault grants[].last_error grants[].last_error.code " +
		"grants[].last_error.message grants[].last_error.time grants[].probably_void grants[].interrupted " +
		"grants[].interrupted.time grants[].interrupted.attempt grants[].interrupted.outcome grants[].contact grants[].note grants[].invited_until " +
		"grants[].asked grants[].asked.host grants[].asked.time grants[].awaited_from grants[].loss " +
		"problems[] problems[].path problems[].message"
	if got := strings.Join(fieldsIn(render.Status{}), " "); got != status {
		t.Errorf("status has %s", got)
	}
	if got := strings.Join(fieldsIn(render.Token{}), " "); got != "version company application environment access_token token_type expires" {
		t.Errorf("token has %s", got)
	}
	type embedding struct {
		grant.ID
		Hidden string `json:"-"`
		none   int
		Times  []time.Time `json:"times,omitempty"`
		Last   *struct {
			At time.Time `json:"at"`
		} `json:"last"`
	}
	if got := strings.Join(fieldsIn(&embedding{none: 1}), " "); got != "company application environment times[] last last.at" {
		t.Errorf("a struct has %s", got)
	}
}

// CSV has the fields that JSON has, the last error and what is interrupted as three, who asked as two.
func TestCSVHasTheFieldsOfTheJSON(t *testing.T) {
	var want []string
	for _, field := range fieldsIn(render.Status{}) {
		if name, ok := strings.CutPrefix(field, "grants[]."); ok && name != "last_error" && name != "interrupted" && name != "asked" {
			want = append(want, strings.ReplaceAll(name, ".", "_"))
		}
	}
	var got strings.Builder
	if err := render.StatusCSV(&got, nil, time.Now(), false, true); err != nil {
		t.Fatal(err)
	}
	if text := strings.Join(want, ",") + "\n"; got.String() != text {
		t.Errorf("CSV has %q, JSON %q", got.String(), text)
	}
}
