package vault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/upsauth/upsauth/internal/grant"
)

// clientSecret is the item of an application's client secret, and of what else is secret
// and no grant's.
type clientSecret struct {
	Version      int    `json:"version"`
	ClientSecret string `json:"client_secret"`
	// ClientID is the client that it is the secret of, empty where nobody has said so: others
	// may be able to change what is not secret about an application.
	ClientID string `json:"client_id,omitempty"`
}

// The accounts of the secrets that are no grant's, beside client secrets.
const (
	// InvitationKeyAccount has the key that seals what customers' browsers keep.
	InvitationKeyAccount = "serve/invitations"
	heldPrefix           = "held/"
)

// HeldAccount has a customer's sign-in that waits until somebody says whether it is the
// right user. Key is the invitation's.
func HeldAccount(key string) string { return heldPrefix + key }

// HeldKey is the key of the invitation whose sign-in waits under an account, empty for
// another account.
func HeldKey(account string) string {
	key, ok := strings.CutPrefix(account, heldPrefix)
	if !ok || strings.Contains(key, "/") {
		return ""
	}
	return key
}

// Again says how a secret that is no grant's is made anew.
func Again(account string) (advice string, do []Act) {
	switch {
	case account == InvitationKeyAccount:
		return "Remove the key: the next sign-in of a customer makes a new one.", nil
	case HeldKey(account) != "":
		return "Refuse the sign-in[: {}]. Then invite the customer again.", []Act{RefuseHeld}
	}
	return "Enter it again[: {}].", []Act{SetSecret}
}

// damagedSecret says what is damaged, and what to do about it.
func damagedSecret(home, account string, err error) *HomeError {
	what := "client secret"
	switch {
	case account == InvitationKeyAccount:
		what = "key for the sign-ins of invited customers"
	case HeldKey(account) != "":
		what = "sign-in that waits to be confirmed"
	}
	e := &HomeError{Home: home, What: fmt.Sprintf("The %s under %s in the %s is damaged.", what, account, Describe(home)), Damaged: true, Err: err}
	e.Advice, e.Do = Again(account)
	return e
}

// Secret returns a secret that is no grant's, ErrNoItem where there is none.
func (v *Vault) Secret(ctx context.Context, homeName, account string) (string, error) {
	secret, _, err := v.ClientSecret(ctx, homeName, account)
	return secret, err
}

// ClientSecret is Secret with the client ID that the secret was stored for, empty where that is
// not known.
func (v *Vault) ClientSecret(ctx context.Context, homeName, account string) (secret, clientID string, err error) {
	home, err := v.homes().Named(homeName)
	if err != nil {
		return "", "", err
	}
	data, err := home.Get(ctx, account)
	if err != nil {
		return "", "", err
	}
	if version := grant.FormatOf(data); version > keyVersion {
		return "", "", &NewerError{Path: "the item " + account, Version: version}
	}
	var item clientSecret
	if err := json.Unmarshal(data, &item); err != nil {
		return "", "", damagedSecret(homeName, account, err)
	}
	return item.ClientSecret, item.ClientID, nil
}

// PutSecret stores a secret that is no grant's.
func (v *Vault) PutSecret(ctx context.Context, homeName, account, secret string) error {
	return v.PutClientSecret(ctx, homeName, account, secret, "")
}

// PutClientSecret stores the secret of a client, and which client that is.
func (v *Vault) PutClientSecret(ctx context.Context, homeName, account, secret, clientID string) error {
	home, err := v.homes().Named(homeName)
	if err != nil {
		return err
	}
	data, err := json.Marshal(clientSecret{Version: keyVersion, ClientSecret: secret, ClientID: clientID})
	if err != nil {
		return fmt.Errorf("the secret under %s can't be kept: %w", account, err)
	}
	if err := home.Put(ctx, account, 0, data); err != nil {
		return err
	}
	return Sync(ctx, home, account)
}

// MakeSecret is PutSecret for a secret that nobody has chosen: where several hosts share a home,
// the one that is there already stays. Whoever makes one reads what there is afterwards.
func (v *Vault) MakeSecret(ctx context.Context, homeName, account, secret string) error {
	home, err := v.homes().Named(homeName)
	if err != nil {
		return err
	}
	shared, ok := home.(interface {
		PutNew(ctx context.Context, account string, secret []byte) error
	})
	if !ok {
		return v.PutSecret(ctx, homeName, account, secret)
	}
	data, err := json.Marshal(clientSecret{Version: keyVersion, ClientSecret: secret})
	if err != nil {
		return fmt.Errorf("the secret under %s can't be kept: %w", account, err)
	}
	return shared.PutNew(ctx, account, data)
}

// CanDeleteSecret returns what DeleteSecret would, before anything is changed.
func (v *Vault) CanDeleteSecret(ctx context.Context, homeName, account string) error {
	home, err := v.homes().Named(homeName)
	if err != nil {
		return err
	}
	return home.CanDelete(ctx, account)
}

// DeleteSecret removes a secret that is no grant's, ErrNoItem where there was none.
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
