//go:build !windows

package terminal

import "os"

// TakeEscapes makes a terminal obey escape sequences; those here always do.
func TakeEscapes(*os.File) bool { return true }
