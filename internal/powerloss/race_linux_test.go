//go:build race

package powerloss

// The race detector makes everything several times as slow, and the commands that are
// judged one after another give it little to see.
const usualStates = 10
