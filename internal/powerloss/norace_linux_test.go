//go:build !race

package powerloss

const usualStates = 10
