package company

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/upsauth/upsauth/internal/grant"
)

func asIs(field string) string { return field }

func text(detail *string) string {
	if detail == nil {
		return "-"
	}
	return *detail
}

// Guards against: a company that is skipped or made of two, because a file was
// written by another program than the one that was thought of.
func TestReadCSV(t *testing.T) {
	for _, test := range []struct{ name, file, want, err string }{
		{"one column", "Acme\nNord AG\n\nacme\n", "Acme|-|-; Nord AG|-|-", ""},
		{"a header", "id,Customer,Phone\n1,Acme,555\n2,Nord AG,\n", "Acme|555|-; Nord AG|-|-", ""},
		{"semicolons", "name;note\nAcme;\"a;b\"\n", "Acme|-|a;b", ""},
		{"tabs", "name\tcontact\nAcme\tJane\n", "Acme|Jane|-", ""},
		{"Excel's first line", "sep=|\nname|contact\nAcme|Jane\n", "Acme|Jane|-", ""},
		{"a mark at the start", "\ufeffcompany\nAcme\n", "Acme|-|-", ""},
		{"the first contact counts", "name,contact\nAcme,\nACME,Jane\nAcme,Joe\n", "Acme|Jane|-", ""},
		{"which column", "a,b\n1,2\n", "", "no column has the companies"},
		{"no UTF-8", "name\n\xff\n", "", "not UTF-8"},
		{"no company", "name\n\n", "", "names no company"},
		{"not CSV", "name\n\"a\n", "", "not CSV"},
		{"where it is wrong", "name\nAcme\n" + strings.Repeat("x", 5000) + "\n", "", "line 3: "},
	} {
		t.Run(test.name, func(t *testing.T) {
			companies, err := ReadCSV(test.file, asIs)
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) {
					t.Errorf("%v, want %q", err, test.err)
				}
				return
			}
			var got []string
			for _, c := range companies {
				got = append(got, c.Name+"|"+text(c.Contact)+"|"+text(c.Note))
			}
			if all := strings.Join(got, "; "); err != nil || all != test.want {
				t.Errorf("%q, %v, want %q", all, err, test.want)
			}
		})
	}
}

func TestReadList(t *testing.T) {
	got, err := ReadList([]byte("\ufeffAcme\r\n# a comment\n\n  Nord AG \nACME\n"), grant.CleanCompany)
	if want := []string{"Acme", "Nord AG"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v, want %q", got, err, want)
	}
	wrong := errors.New("wrong")
	_, err = ReadList([]byte("\nAcme\n"), func(string) (string, error) { return "", wrong })
	if !errors.Is(err, wrong) || !strings.Contains(err.Error(), "line 2 ") {
		t.Errorf("%v", err)
	}
	if _, err := ReadList([]byte("# nobody\n"), grant.CleanCompany); err == nil {
		t.Error("no company is no error")
	}
}

// Whatever a file has in it: companies that can be kept, each once, or an error.
func FuzzReadCSV(f *testing.F) {
	for _, seed := range []string{"name,contact\nAcme,Jane\n", "sep=;\na;b", "\ufeffA\nB", "\"a,b\"\tc\n"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, file string) {
		companies, err := ReadCSV(file, asIs)
		if (err == nil) != (len(companies) > 0) {
			t.Fatalf("%v, %v", companies, err)
		}
		seen := map[grant.Folded]bool{}
		for _, c := range companies {
			clean, err := grant.CleanCompany(c.Name)
			if err != nil || clean != c.Name || !utf8.ValidString(c.Name) || seen[grant.Fold(c.Name)] {
				t.Fatalf("%q, %v", c.Name, err)
			}
			seen[grant.Fold(c.Name)] = true
		}
	})
}
