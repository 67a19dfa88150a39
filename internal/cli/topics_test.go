package cli

import (
	"strings"
	"testing"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/render"
)

// The help is what scripts are written by: every field that there is must be in
// it.
func TestOutputTopicNamesEveryField(t *testing.T) {
	for _, value := range []any{render.Status{}, render.Token{}, hostList{}} {
		fields := fieldsIn(value)
		if len(fields) < 7 {
			t.Fatalf("%T has only %q", value, fields)
		}
		for _, field := range fields {
			name := field[strings.LastIndex(field, ".")+1:]
			if !containsWord(outputTopic, name) {
				t.Errorf("%s of %T is not documented", field, value)
			}
		}
	}
}

func containsWord(text, word string) bool {
	for rest := text; ; {
		i := strings.Index(rest, word)
		if i < 0 {
			return false
		}
		before, after := byte(' '), byte(' ')
		if i > 0 {
			before = rest[i-1]
		}
		if i+len(word) < len(rest) {
			after = rest[i+len(word)]
		}
		if !isNameByte(before) && !isNameByte(after) {
			return true
		}
		rest = rest[i+len(word):]
	}
}

func isNameByte(b byte) bool { return b == '_' || b >= 'a' && b <= 'z' }

func TestStatesTopicNamesEveryState(t *testing.T) {
	for _, state := range grant.States() {
		if !strings.Contains(statesTopic, "\n  "+string(state)+" ") {
			t.Errorf("%s is not documented", state)
		}
	}
}

func TestExitCodesTopicNamesEveryCode(t *testing.T) {
	for _, code := range strings.Fields(exitCodesInOrder + " 0") {
		if !strings.Contains(exitCodesTopic, " "+code+"  ") {
			t.Errorf("%s is not documented", code)
		}
	}
}
