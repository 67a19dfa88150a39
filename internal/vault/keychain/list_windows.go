package keychain

import (
	"strings"

	"github.com/danieljoos/wincred"
)

// List finds the names where go-keyring puts them. Windows hands the secrets
// out along with them; they go no further.
func (System) List(service string) ([]string, error) {
	prefix := service + ":"
	items, err := wincred.FilteredList(prefix + "*")
	if err != nil {
		return nil, err
	}
	var accounts []string
	for _, item := range items {
		// Windows compares without regard to case.
		if account, ok := strings.CutPrefix(item.TargetName, prefix); ok {
			accounts = append(accounts, account)
		}
	}
	return accounts, nil
}
