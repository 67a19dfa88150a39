package grant

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
)

func TestFoldMakesNamesOfOneCompanyEqual(t *testing.T) {
	tests := []struct {
		name string
		same []string
	}{
		{"case", []string{"Acme Corp", "acme corp", "ACME CORP", "aCmE cOrP"}},
		{"surrounding space", []string{"Acme", " Acme", "Acme\t", "\u00a0Acme\u2003", "\r\nAcme\n"}},
		{"composed and decomposed", []string{"Caf\u00e9", "Cafe\u0301", "CAF\u00c9", "CAFE\u0301"}},
		{"marks in another order", []string{"q\u0307\u0323", "q\u0323\u0307"}},
		{"Hangul syllables and their letters", []string{"\ud55c", "\u1112\u1161\u11ab"}},
		{"sharp s", []string{"Straße", "STRASSE", "strasse", "STRAẞE"}},
		{"ligature", []string{"ﬁnance", "Finance", "FINANCE"}},
		{"I with a dot", []string{"İzmir", "I\u0307zmir", "i\u0307zmir"}},
		{"Kelvin sign is a k", []string{"\u212aelvin", "Kelvin", "kelvin"}},
		{"Angstrom sign is an å", []string{"\u212bngström", "Ångström", "A\u030angstro\u0308m", "ångström"}},
		{"all three sigmas", []string{"ΣΊΣΥΦΟΣ", "Σίσυφος", "σίσυφοσ"}},
		{"digraph in title case", []string{"\u01c4ep", "\u01c5ep", "\u01c6ep"}},
		{"emoji", []string{"📦 Pack", " 📦 pack "}},
		{"empty", []string{"", " ", "\u2003"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			want := Fold(test.same[0])
			for _, name := range test.same {
				if got := Fold(name); got != want {
					t.Errorf("Fold(%+q) = %+q, of %+q it is %+q", name, got, test.same[0], want)
				}
				if CompanySlot(name) != CompanySlot(test.same[0]) {
					t.Errorf("%+q and %+q have slots of their own", name, test.same[0])
				}
			}
			if again := Fold(string(want)); again != want {
				t.Errorf("folding %+q again makes %+q of it", want, again)
			}
		})
	}
}

func TestFoldKeepsCompaniesApart(t *testing.T) {
	seen := map[Folded]string{}
	for _, name := range []string{
		"Acme", "Acme Corp", "Acme  Corp", "AcmeCorp", "Acme-Corp", "Acmé", "Ącme", "Acme2", "Acme²", "",
		"İzmir", "Izmir", "ızmir", // Turkish dotted and dotless i are letters of their own
		"📦", "📫", "株式会社", "かぶしき", "カブシキ", "Аcme", // the last begins with a Cyrillic letter
	} {
		folded := Fold(name)
		if other, taken := seen[folded]; taken {
			t.Errorf("%+q and %+q both fold to %+q", name, other, folded)
		}
		seen[folded] = name
	}
}

// A slot is part of file names: on no system may it need quoting, differ in
// case alone, or be too long.
func TestSlotIsAGoodFileNameForEveryCompany(t *testing.T) {
	for _, company := range []string{"Acme", "", "..", "CON", "a/b\\c:d*e?f\"g<h>i|j", "名前", "🏳️‍🌈", strings.Repeat("é", MaxCompany), "a\x00b"} {
		id := ID{company, "intelligent-rating", "production"}
		slot := id.Slot()
		if strings.Trim(slot, "0123456789abcdef-") != "" || len(slot) > 64 || filepath.Base(slot) != slot {
			t.Errorf("the slot of %q is %q", company, slot)
		}
		if !strings.HasPrefix(slot, CompanySlot(company)+"-") {
			t.Errorf("the slot %q does not begin with its company's, %q", slot, CompanySlot(company))
		}
	}
}

func TestSlotTellsGrantsOfACompanyApart(t *testing.T) {
	seen := map[string]ID{}
	for _, id := range []ID{
		{"Acme", "intelligent-rating", "production"},
		{"Acme", "intelligent-rating", "cie"},
		{"Acme", "batch-suite", "production"},
		{"Acme", "batch", "suite-production"},
		{"Acme", "batch-suite-production", ""},
		{"Apex", "intelligent-rating", "production"},
	} {
		if other, taken := seen[id.Slot()]; taken {
			t.Errorf("%v and %v share a slot", id, other)
		}
		seen[id.Slot()] = id
	}
}

// The slots name files that are on disk already: another slot for the same
// grant would lose it.
func TestSlotStaysWhatItIs(t *testing.T) {
	for id, want := range map[ID]string{
		{"Acme Corp", "intelligent-rating", "production"}: "ea6f9c07a2f95c788a1645cf557f58aa-25a9c71702633896",
		{"Straße & Söhne", "batch-suite", "cie"}:          "883b369166ddbed7e893152bb2a8d58f-79654811a3ff9778",
	} {
		if got := id.Slot(); got != want {
			t.Errorf("the slot of %v is %q and was %q", id, got, want)
		}
	}
}

func TestCleanCompany(t *testing.T) {
	tests := []struct {
		name, in, want, wantErr string
	}{
		{"as it is", "Acme Corp", "Acme Corp", ""},
		{"trimmed", " \tAcme Corp\u00a0\n", "Acme Corp", ""},
		{"composed", "Cafe\u0301", "Caf\u00e9", ""},
		{"case is kept", "aCmE", "aCmE", ""},
		{"inner space is kept", "Acme  Corp", "Acme  Corp", ""},
		{"emoji of several code points", "👩‍👩‍👧 & Co", "👩‍👩‍👧 & Co", ""},
		{"right to left", "שלום בע״מ", "שלום בע״מ", ""},
		{"one character", "X", "X", ""},
		{"200 characters", strings.Repeat("x", 200), strings.Repeat("x", 200), ""},
		{"200 characters of 4 bytes", strings.Repeat("😀", 200), strings.Repeat("😀", 200), ""},
		{"200 once composed", strings.Repeat("e\u0301", 200), strings.Repeat("é", 200), ""},
		{"200 once trimmed", " " + strings.Repeat("x", 200) + " ", strings.Repeat("x", 200), ""},
		{"201 characters", strings.Repeat("x", 201), "", "201 characters; at most 200"},
		{"201 characters of 2 bytes", strings.Repeat("é", 201), "", "201 characters"},
		{"empty", "", "", "empty"},
		{"only space", " \u2003\t", "", "empty"},
		{"not UTF-8", "Acme\xff", "", "UTF-8"},
		{"half a surrogate pair", "Acme\xed\xa0\x80", "", "UTF-8"},
		{"line break", "Acme\nCorp", "", "U+000A"},
		{"carriage return", "Acme\rCorp", "", "U+000D"},
		{"tab", "Acme\tCorp", "", "U+0009"},
		{"NUL", "Acme\x00", "", "U+0000"},
		{"terminal escape", "\x1b[31mAcme", "", "U+001B"},
		{"DEL", "Acme\x7f", "", "U+007F"},
		{"C1 control", "Acme\u009bx", "", "U+009B"},
		{"line separator", "Acme\u2028Corp", "", "U+2028"},
		{"paragraph separator", "Acme\u2029Corp", "", "U+2029"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := CleanCompany(test.in)
			if test.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), test.wantErr) {
					t.Fatalf("got %+q, %v; want an error with %q", got, err, test.wantErr)
				}
				if strings.ContainsAny(err.Error(), "\n\r\x1b") {
					t.Errorf("the error has the control character in it: %q", err)
				}
				return
			}
			if err != nil || got != test.want {
				t.Fatalf("got %+q, %v; want %+q", got, err, test.want)
			}
			if again, err := CleanCompany(got); err != nil || again != got {
				t.Errorf("cleaning it again makes %+q of it (%v)", again, err)
			}
			if Fold(got) != Fold(test.in) {
				t.Error("cleaning changes which company it is")
			}
		})
	}
}

func TestCleanName(t *testing.T) {
	for _, name := range []string{"a", "0", "batch-suite", "v1.2_x", "a-", "console", "a.con", "com", "com10", strings.Repeat("a", 64)} {
		if got, err := CleanName("application", name); err != nil || got != name {
			t.Errorf("CleanName(%q) = %q, %v", name, got, err)
		}
	}
	for _, name := range []string{"", "A", "-a", ".a", "_a", "..", "a b", "a/b", `a\b`, "a:b", "é", "aé", "a\x00", "a\n", "con", "nul.txt", "com1", "lpt9.x.y", "lab.", strings.Repeat("a", 65)} {
		if got, err := CleanName("application", name); err == nil {
			t.Errorf("CleanName(%q) = %q", name, got)
		} else if !strings.Contains(err.Error(), "application") {
			t.Errorf("the error for %q does not say what it is about: %v", name, err)
		}
	}
}

// Record, Grant and Journal embed their ID: its fields must stay at the top of
// the JSON, where every file on disk has them.
func TestIDIsAtTheTopOfTheJSON(t *testing.T) {
	id := ID{"Acme", "batch-suite", "cie"}
	for _, v := range []any{Record{Facts: Facts{ID: id}}, Grant{Record: Record{Facts: Facts{ID: id}}}, Journal{ID: id}} {
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		var got ID
		if err := json.Unmarshal(text, &got); err != nil || got != id {
			t.Errorf("%T: %v, %v in %s", v, got, err, text)
		}
	}
}

// Interrupted and Answered are found out when files are read; stored ones would
// outlive what they say.
func TestWhatIsFoundOutIsNeverStored(t *testing.T) {
	for _, v := range []any{Record{Interrupted: true, Found: Found{CutOff: &Journal{Fate: Fate{Outcome: "interrupted"}}}}, Grant{Record: Record{Interrupted: true}}, Journal{Answered: true}} {
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(strings.ToLower(string(text)), "interrupted") || strings.Contains(strings.ToLower(string(text)), "answered") {
			t.Errorf("%T is stored as %s", v, text)
		}
	}
}

// A record is what may lie on disk in the clear.
func TestRecordHasNoSecretInIt(t *testing.T) {
	g := Grant{Record: Record{Facts: Facts{ID: ID{"Acme", "a", "b"}}}, Secrets: Secrets{AccessToken: "access-s3cret", RefreshToken: "refresh-s3cret"}}
	text, err := json.Marshal(g.Record)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), "s3cret") {
		t.Errorf("the record has a secret in it: %s", text)
	}
	whole, err := json.Marshal(g)
	if err != nil {
		t.Fatal(err)
	}
	var back Grant
	if err := json.Unmarshal(whole, &back); err != nil || back.AccessToken != g.AccessToken || back.RefreshToken != g.RefreshToken {
		t.Errorf("the grant came back as %+v, %v", back, err)
	}
}
