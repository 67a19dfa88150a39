package vaulttest

import (
	"flag"
	"fmt"
	"os"
)

// storeVariable says in the environment which store the tests have worlds of: files or
// memory. Where a person sets it, the tests run over that one alone.
const storeVariable = "UPSAUTH_TEST_STORE"

// InMemory reports whether tests have worlds in memory now, and not on disk.
func InMemory() bool { return os.Getenv(storeVariable) == "memory" }

// StoreName is what a test calls the store that it runs over.
func StoreName() string {
	if InMemory() {
		return "memory"
	}
	return "files"
}

// Stores runs the tests of a package over each store, one after the other.
type Stores struct {
	M interface{ Run() int }
}

// Run returns what goes for all runs: zero where each of them went well.
func (s Stores) Run() (code int) {
	if !flag.Parsed() {
		flag.Parse()
	}
	if os.Getenv(storeVariable) != "" || given("test.list") || given("test.fuzz") || given("test.fuzzworker") {
		return s.M.Run()
	}
	for _, store := range []string{"files", "memory"} {
		fmt.Printf("over the store %q:\n", store)
		if err := os.Setenv(storeVariable, store); err != nil {
			panic(err)
		}
		code = max(code, s.M.Run())
	}
	return code
}

// given reports whether a flag has another value than usually.
func given(name string) bool {
	f := flag.Lookup(name)
	return f != nil && f.Value.String() != f.DefValue
}
