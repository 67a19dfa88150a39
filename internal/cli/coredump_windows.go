package cli

// noCoreDumps has nothing to do: Windows writes a dump of a process that crashes
// only where its administrator asks for that.
func noCoreDumps() (restore func()) { return func() {} }
