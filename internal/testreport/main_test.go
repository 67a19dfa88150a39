package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// What failed, why a test was skipped and go test's closing lines are all there;
// what passed is silent.
func TestReport(t *testing.T) {
	for _, tt := range []struct {
		name   string
		files  map[string]string
		failed bool
		want   []string
		never  []string
	}{
		{
			name: "passed and skipped",
			files: map[string]string{"a/a_test.go": `package a
import "testing"
func TestGood(t *testing.T) { t.Log("noise") }
func TestAway(t *testing.T) { t.Run("x y", func(t *testing.T) { t.Log("before"); t.Skip("no browser here") }) }
func TestSilent(t *testing.T) { t.SkipNow() }
`, "b/b.go": "package b\n"},
			want:  []string{"ok  \tm/a\t", "?   \tm/b\t[no test files]\n", "skipped: m/a TestAway/x_y: no browser here\n", "skipped: m/a TestSilent: no reason\n", "2 tests passed, 2 were skipped\n"},
			never: []string{"noise", "before", "=== RUN", "FAIL"},
		},
		{
			name: "failed",
			files: map[string]string{"a/a_test.go": `package a
import "testing"
func TestGood(t *testing.T) { t.Log("noise") }
func TestBad(t *testing.T) { t.Run("sub", func(t *testing.T) { t.Error("\"wrong\" <é>\tvalue") }) }
func TestAway(t *testing.T) { t.Skip("not here") }
`},
			failed: true,
			want:   []string{"a_test.go:4: \"wrong\" <é>\tvalue\n", "--- FAIL: TestBad/sub", "--- FAIL: TestBad ", "FAIL\tm/a\t", "skipped: m/a TestAway: not here\n", "1 tests passed, 1 were skipped\n"},
			never:  []string{"noise", "=== RUN"},
		},
		{
			name: "panic, and a test that was under way",
			files: map[string]string{"a/a_test.go": `package a
import ("fmt"; "testing")
func TestEnds(t *testing.T) { fmt.Println("said before"); panic("the sky") }
`},
			failed: true,
			want:   []string{"said before", "panic: the sky", "a_test.go:3", "FAIL\tm/a\t"},
		},
		{
			name: "a process that ends without a word",
			files: map[string]string{"a/a_test.go": `package a
import ("fmt"; "os"; "testing")
func TestMain(m *testing.M) { m.Run(); fmt.Println("something leaked"); os.Exit(3) }
func TestGood(t *testing.T) {}
`},
			failed: true,
			want:   []string{"something leaked", "FAIL\tm/a\t"},
		},
		{
			name:   "no build",
			files:  map[string]string{"a/a.go": "package a\n\nvar x int = \"text\"\n", "a/a_test.go": "package a\n"},
			failed: true,
			want:   []string{"a.go:3", "FAIL\tm/a [build failed]\n"},
		},
		{
			name:   "vet",
			files:  map[string]string{"a/a_test.go": "package a\nimport (\"fmt\"; \"testing\")\nfunc TestA(t *testing.T) { fmt.Printf(\"%d\", \"x\") }\n"},
			failed: true,
			want:   []string{"wrong type", "FAIL\tm/a [build failed]\n"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			tt.files["go.mod"] = "module m\n\ngo 1.24\n"
			for name, text := range tt.files {
				path := filepath.Join(dir, name)
				if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			command := exec.Command("go", "test", "-json", "./...")
			command.Dir = dir
			command.Env = append(os.Environ(), "GOFLAGS=", "GOWORK=off")
			events, err := command.Output()
			if (err != nil) != tt.failed {
				t.Fatalf("go test: %v\n%s", err, events)
			}
			var out strings.Builder
			failed, err := report(strings.NewReader("go: downloading something\n"+string(events)), &out)
			if failed != tt.failed || err != nil {
				t.Errorf("failed: %v, %v", failed, err)
			}
			for _, want := range append(tt.want, "go: downloading something\n") {
				if strings.Count(out.String(), want) != 1 && want != "a_test.go:3" || !strings.Contains(out.String(), want) {
					t.Errorf("not once %q", want)
				}
			}
			for _, never := range tt.never {
				if strings.Contains(out.String(), never) {
					t.Errorf("there is %q", never)
				}
			}
			if t.Failed() {
				t.Logf("%s\n%s", out.String(), events)
			}
		})
	}
}
