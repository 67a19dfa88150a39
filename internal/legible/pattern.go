package legible

import (
	"regexp"
	"sync"
)

// Pattern returns a regular expression that is compiled when it is first needed: most
// processes need few of those that there are.
func Pattern(text string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(text) })
}
