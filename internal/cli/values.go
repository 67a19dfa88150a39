package cli

import (
	"github.com/upsauth/upsauth/internal/legible"
)

// variable is the value of an environment variable, cleaned like one that comes from
// a flag, standard input or a file; empty where it is not set.
func (env *Env) variable(name string) (string, error) {
	value, err := legible.Value(env.Getenv(name))
	if err != nil {
		return "", usagef("%s can't be used: %v", name, err)
	}
	return value, nil
}

// cleanFlags cleans the values of flags in place.
func cleanFlags(flags map[string]*string) error {
	for name, value := range flags {
		clean, err := legible.Value(*value)
		if err != nil {
			return usagef("%s can't be used: %v", name, err)
		}
		*value = clean
	}
	return nil
}
