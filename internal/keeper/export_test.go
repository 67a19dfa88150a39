package keeper

// VerifierOf is what a test looks for where nobody must see it.
func VerifierOf(r Remembered) string { return r.verifier() }
