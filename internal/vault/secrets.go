package vault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/upsauth/upsauth/internal/grant"
)

// clientSecret is the item of an application's client secret.
type clientSecret struct {
	Version      int    `json:"version"`
	ClientSecret string `json:"client_secret"`
}

// Secret returns a client secret, ErrNoItem where there is none.
func (v *Vault) Secret(ctx context.Context, homeName, account string) (string, error) {
	home, err := v.homes().Named(homeName)
	if err != nil {
		return "", err
	}
	data, err := home.Get(ctx, account)
	if err != nil {
		return "", err
	}
	if version := grant.FormatOf(data); version > keyVersion {
		return "", &NewerError{Path: "the item " + account, Version: version}
	}
	var item clientSecret
	if err := json.Unmarshal(data, &item); err != nil {
		return "", &HomeError{Home: homeName, What: fmt.Sprintf("The client secret under %s in the %s is damaged.", account, Describe(homeName)),
			Advice: "Enter it again[: {}].", Do: []Act{SetSecret}, Damaged: true, Err: err}
	}
	return item.ClientSecret, nil
}

// PutSecret stores a client secret.
func (v *Vault) PutSecret(ctx context.Context, homeName, account, secret string) error {
	home, err := v.homes().Named(homeName)
	if err != nil {
		return err
	}
	data, err := json.Marshal(clientSecret{Version: keyVersion, ClientSecret: secret})
	if err != nil {
		return fmt.Errorf("the client secret can't be kept: %w", err)
	}
	if err := home.Put(ctx, account, 0, data); err != nil {
		return err
	}
	return Sync(ctx, home, account)
}

// CanDeleteSecret returns what DeleteSecret would, before anything is changed.
func (v *Vault) CanDeleteSecret(ctx context.Context, homeName, account string) error {
	home, err := v.homes().Named(homeName)
	if err != nil {
		return err
	}
	return home.CanDelete(ctx, account)
}

// DeleteSecret removes a client secret, ErrNoItem where there was none.
func (v *Vault) DeleteSecret(ctx context.Context, homeName, account string) error {
	home, err := v.homes().Named(homeName)
	if err != nil {
		return err
	}
	none := home.CanDelete(ctx, account)
	if none != nil && !errors.Is(none, ErrNoItem) {
		return none
	}
	// Also where there is none: parts of one may be left.
	if err := home.Delete(ctx, account); err != nil {
		return err
	}
	if err := Sync(ctx, home, account); err != nil {
		return err
	}
	return none
}
