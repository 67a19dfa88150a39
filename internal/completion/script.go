// Package completion makes shells complete the names of companies, with the spaces,
// quotes and dollar signs that they have.
package completion

import (
	"bytes"
	_ "embed" // completion.bash
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

// Script writes cobra's completion script for bash, zsh, fish or powershell, mended
// for names. Unmended, those of bash and fish even run the command in a name such as
// "$(reboot) Inc" when the Tab key is pressed.
func Script(w io.Writer, root *cobra.Command, shell string, describe bool) error {
	var script bytes.Buffer
	var err error
	mend := func(script string) string { return script }
	switch shell {
	case "bash":
		err = root.GenBashCompletionV2(&script, describe)
		mend = func(script string) string { return script + bashQuoting }
	case "zsh":
		generate := root.GenZshCompletion
		if !describe {
			generate = root.GenZshCompletionNoDesc
		}
		err = generate(&script)
		mend = strings.NewReplacer(zshWords, zshWords+zshQuoting, zshColons, zshBackslashes+zshColons).Replace
	case "fish":
		err = root.GenFishCompletion(&script, describe)
		mend = strings.NewReplacer("(commandline -opc)", "(string escape -- (commandline -opc))").Replace
	case "powershell":
		generate := root.GenPowerShellCompletionWithDesc
		if !describe {
			generate = root.GenPowerShellCompletion
		}
		err = generate(&script)
	default:
		err = fmt.Errorf("there is no completion for the shell %q", shell)
	}
	if err == nil {
		_, err = io.WriteString(w, mend(script.String()))
	}
	return err
}

// bashQuoting is put behind cobra's script for bash.
//
//go:embed completion.bash
var bashQuoting string

// zshWords is the line of cobra's script for zsh behind which zshQuoting goes. The
// words are evaluated, also where a quote is still open; and noSpace is what ends
// the options of zsh's function that offers the names. That function wants
// backslashes escaped, not only colons.
const (
	zshWords   = `words=("${=words[1,CURRENT]}")`
	zshQuoting = `
    words[-1]+=$compstate[quote]
    noSpace="-M 'm:{[:lower:][:upper:]}={[:upper:][:lower:]}'"`
	zshColons      = `comp=${comp//:/\\:}`
	zshBackslashes = `comp=${comp//\\/\\\\}
            `
)
