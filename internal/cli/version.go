package cli

import (
	"cmp"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/upsauth/upsauth/internal/render"
)

// Set by the release build with -ldflags -X.
var (
	releaseVersion string
	releaseCommit  string
	releaseDate    string // RFC 3339
)

// version is the JSON of upsauth version.
type version struct {
	Version string `json:"version"`
	Commit  string `json:"commit"`
	Date    string `json:"date"`
	Go      string `json:"go"`
	OS      string `json:"os"`
	Arch    string `json:"arch"`
}

// buildVersion says what this program was built from, as far as it is known.
func buildVersion() version {
	v := version{Version: releaseVersion, Commit: releaseCommit, Date: releaseDate,
		Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH}
	if v.Version != "" {
		return v
	}
	v.Version = "devel"
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	if info.Main.Version != "" && info.Main.Version != "(devel)" {
		v.Version = info.Main.Version
	}
	for _, setting := range info.Settings {
		switch setting.Key {
		case "vcs.revision":
			v.Commit = setting.Value
		case "vcs.time":
			v.Date = setting.Value
		}
	}
	return v
}

func newVersionCmd(env *Env) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use: "version", Short: "Print the version",
		Example: "  upsauth version\n  upsauth version -o json",
		Args:    noArgs,
		RunE: func(*cobra.Command, []string) error {
			v := buildVersion()
			if output == "json" {
				return render.JSON(env.Out, v)
			}
			_, err := fmt.Fprintf(env.Out, "upsauth %s (commit %s, %s, %s, %s/%s)\n",
				v.Version, cmp.Or(v.Commit, "unknown"), cmp.Or(v.Date, "date unknown"), v.Go, v.OS, v.Arch)
			return err
		},
	}
	outputFlag(cmd, &output, "a line of text", "json")
	return cmd
}
