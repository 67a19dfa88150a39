package vault

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"filippo.io/age"

	"github.com/upsauth/upsauth/internal/grant"
)

// keyVersion is the format version of a journal's key and of a client secret.
const keyVersion = 1

// JournalAccount is where the identity that opens a grant's journals is.
func JournalAccount(tokenVaultKey string) string { return tokenVaultKey + "/journal" }

func probeAccount(tokenVaultKey string) string { return tokenVaultKey + "/probe" }

// item is what a home keeps of a grant: what is not secret about it, and the tokens.
type item struct {
	Version int `json:"version"`
	grant.Facts
	grant.Secrets
}

func encodeItem(g grant.Grant) ([]byte, error) {
	data, err := json.Marshal(item{grant.RecordVersion, g.Facts, g.Secrets})
	if err != nil {
		return nil, fmt.Errorf("the item of %s can't be made: %w", g.ID, err)
	}
	return data, nil
}

// decodeItem returns a *NewerError for what a newer upsauth wrote; any other error says
// that it is damaged.
func decodeItem(data []byte, name string) (grant.Grant, error) {
	var i item
	err := json.Unmarshal(data, &i)
	version := i.Version
	if err != nil {
		version = grant.FormatOf(data)
	}
	if version > grant.RecordVersion {
		return grant.Grant{}, &NewerError{Path: name, Version: version}
	}
	return grant.Grant{Record: grant.Record{Version: i.Version, Facts: i.Facts}, Secrets: i.Secrets}, err
}

// sealedText is what is sealed of an exchange: with it alone, item and record can be made
// again.
type sealedText struct {
	Version    int    `json:"version"`
	Nonce      string `json:"nonce"`
	Generation int64  `json:"generation"`
	Attempt    int    `json:"attempt"`
	// Item is the grant's before the exchange, absent for the first.
	Item   json.RawMessage `json:"item,omitempty"`
	Answer json.RawMessage `json:"answer"`
}

// Answer is the opened answer of an attempt.
type Answer struct {
	// Text is what was sealed.
	Text []byte
	// Old is the grant that the token was sent of, nil where the journal does not
	// have it.
	Old *grant.Grant
}

// Seal puts an answer into the journal of an attempt that Claim wrote, encrypted, with
// the grant that the token was sent of, and returns when it is on disk. It needs no home.
func (v *Vault) Seal(ctx context.Context, j *grant.Journal, old *grant.Grant, answer []byte) error {
	text := sealedText{Version: grant.RecordVersion, Nonce: j.Nonce, Generation: j.Generation, Attempt: j.Attempt, Answer: answer}
	if old != nil {
		item, err := encodeItem(*old)
		if err != nil {
			return err
		}
		text.Item = item
	}
	plain, err := json.Marshal(text)
	if err != nil {
		return fmt.Errorf("the answer can't be sealed: %w", err)
	}
	sealed, err := sealTo(j.Recipient, plain)
	if err != nil {
		return fmt.Errorf("the answer can't be sealed: %w", err)
	}
	return v.store.Seal(ctx, j, sealed)
}

func sealTo(recipient string, plain []byte) ([]byte, error) {
	to, err := age.ParseX25519Recipient(recipient)
	if err != nil {
		return nil, err
	}
	var sealed bytes.Buffer
	w, err := age.Encrypt(&sealed, to)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(plain); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return sealed.Bytes(), nil
}

// Answer opens the sealed answer of an attempt; grant.ErrNoAnswer where what was sealed
// is not whole. It needs the journal's home.
func (v *Vault) Answer(ctx context.Context, j grant.Journal) (Answer, error) {
	home, err := v.homes().Named(j.Home)
	if err != nil {
		return Answer{}, err
	}
	identity, err := journalIdentity(ctx, home, j.TokenVaultKey)
	if errors.Is(err, ErrNoItem) {
		return Answer{}, &MissingError{ID: j.ID, Home: j.Home}
	}
	if err != nil {
		return Answer{}, err
	}
	sealed, err := v.store.Sealed(ctx, j)
	if err != nil {
		return Answer{}, err
	}
	opened, err := age.Decrypt(bytes.NewReader(sealed), identity)
	if err != nil {
		return Answer{}, grant.ErrNoAnswer
	}
	plain, err := io.ReadAll(opened)
	if err != nil {
		return Answer{}, grant.ErrNoAnswer
	}
	if j.Version < 2 {
		return Answer{Text: plain}, nil // the answer was all that was sealed
	}
	var text sealedText
	if json.Unmarshal(plain, &text) != nil || text.Nonce != j.Nonce || text.Generation != j.Generation || text.Attempt != j.Attempt {
		return Answer{}, grant.ErrNoAnswer
	}
	answer := Answer{Text: text.Answer}
	if text.Item != nil {
		old, err := decodeItem(text.Item, "the journal "+j.Path)
		if err != nil {
			return Answer{}, grant.ErrNoAnswer
		}
		old.ID, old.Home = j.ID, j.Home
		answer.Old = &old
	}
	return answer, nil
}

// journalKey is the item under KEY/journal.
type journalKey struct {
	Version  int    `json:"version"`
	Identity string `json:"identity"`
}

// newJournalKey makes the item under KEY/journal and the recipient that belongs
// to it.
func newJournalKey() (item []byte, recipient string, err error) {
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		return nil, "", fmt.Errorf("a key for the journal can't be made: %w", err)
	}
	item, err = json.Marshal(journalKey{Version: keyVersion, Identity: identity.String()})
	if err != nil {
		return nil, "", fmt.Errorf("a key for the journal can't be kept: %w", err)
	}
	return item, identity.Recipient().String(), nil
}

// journalIdentity is what opens a grant's journals: ErrNoItem where there is none, a
// *HomeError that is a grant.ErrNoSecrets where it is damaged.
func journalIdentity(ctx context.Context, home Home, tokenVaultKey string) (*age.X25519Identity, error) {
	account := JournalAccount(tokenVaultKey)
	secret, err := home.Get(ctx, account)
	if err != nil {
		return nil, err
	}
	if version := grant.FormatOf(secret); version > keyVersion {
		return nil, &NewerError{Path: "the item " + account, Version: version}
	}
	var key journalKey
	_ = json.Unmarshal(secret, &key)
	identity, err := age.ParseX25519Identity(key.Identity)
	if err != nil {
		return nil, damagedItem(home.Name(), fmt.Sprintf("The key of the journal of %s in the %s is damaged.", tokenVaultKey, Describe(home.Name())))
	}
	return identity, nil
}

// journalRecipient is what the key of a grant's journals opens, empty where
// there is none or it is damaged.
func journalRecipient(ctx context.Context, home Home, tokenVaultKey string) (string, error) {
	identity, err := journalIdentity(ctx, home, tokenVaultKey)
	switch {
	case errors.Is(err, ErrNoItem), errors.Is(err, grant.ErrNoSecrets):
		return "", nil
	case err != nil:
		return "", err
	}
	return identity.Recipient().String(), nil
}
