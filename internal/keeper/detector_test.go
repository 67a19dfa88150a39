//go:build race

package keeper_test

// raced says that the race detector is on.
const raced = true
