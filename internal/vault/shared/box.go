package shared

import (
	"bytes"
	"context"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"

	"filippo.io/age"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/vault/agefile"
	"github.com/upsauth/upsauth/internal/vault/ledger"
	"github.com/upsauth/upsauth/internal/vault/postgres"
)

// box seals what lies in the database to the team's identity, and binds it to its place: who
// can only write to the database makes nothing that opens, and puts nothing where something
// else was.
type box struct {
	keys  agefile.Keys
	vault string
	mac   []byte
}

func newBox(keys agefile.Keys, vaultID string) (*box, error) {
	mac, err := hkdf.Key(sha256.New, keys.Secret, []byte(vaultID), "upsauth shared vault: code of an item", sha256.Size)
	if err != nil {
		return nil, fmt.Errorf("the key for the vault's codes can't be derived: %w", err)
	}
	return &box{keys: keys, vault: vaultID, mac: mac}, nil
}

func (b *box) seal(plain []byte) ([]byte, error) {
	var sealed bytes.Buffer
	w, err := age.Encrypt(&sealed, b.keys.Recipient)
	if err == nil {
		_, err = w.Write(plain)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("an item can't be encrypted: %w", err)
	}
	return sealed.Bytes(), nil
}

func (b *box) open(sealed []byte) ([]byte, error) {
	r, err := age.Decrypt(bytes.NewReader(sealed), b.keys.Identities...)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

// codeOfGrant binds a grant's item to its row. What decides where its token may be sent is
// covered too.
func (b *box) codeOfGrant(slot string, token ledger.Made, f grant.Facts, sealed []byte) []byte {
	return b.code("grant", []byte(slot), []byte(f.TokenVaultKey), number(token.Generation), number(int64(token.Attempt)),
		[]byte(f.ClientID), []byte(f.BaseURL), []byte(f.JournalRecipient), sealed)
}

// isGenuine reports whether the item of a row is what upsauth put there.
func (b *box) isGenuine(row postgres.Row) bool {
	facts, err := factsOf(row)
	return err == nil && hmac.Equal(row.Item.MAC, b.codeOfGrant(row.Slot, row.Grant.Token, facts, row.Item.Sealed))
}

// codeAnew is the code of a row's item once it has another slot or other facts, none where there
// is no item. An item that is not genuine gets none: it would become so.
func (b *box) codeAnew(row postgres.Row, slot string, f grant.Facts) ([]byte, error) {
	switch {
	case row.Item.Sealed == nil:
		return nil, nil
	case !b.isGenuine(row):
		return nil, forgedGrant(row.Grant.Key)
	}
	return b.codeOfGrant(slot, row.Grant.Token, f, row.Item.Sealed), nil
}

// codeOfSecret binds any other item to its account.
func (b *box) codeOfSecret(account string, generation int64, sealed []byte) []byte {
	return b.code("secret", []byte(account), number(generation), sealed)
}

// codeOfRow says that somebody with the identity wrote a text for its place.
func (b *box) codeOfRow(c postgres.Coded) []byte {
	var parts [][]byte
	for _, key := range c.Key {
		parts = append(parts, []byte(key))
	}
	return b.code("row of "+c.Table, append(parts, c.Text)...)
}

// Code is a postgres.Code by the team's identity.
func (s *Store) Code(ctx context.Context, c postgres.Coded) ([]byte, error) {
	box, err := s.readingBox(ctx)
	if err != nil {
		return nil, err
	}
	return box.codeOfRow(c), nil
}

// code is an HMAC-SHA256 over parts, each with its length before it.
func (b *box) code(kind string, parts ...[]byte) []byte {
	h := hmac.New(sha256.New, b.mac)
	for _, part := range append([][]byte{[]byte(b.vault), []byte(kind)}, parts...) {
		h.Write(number(int64(len(part))))
		h.Write(part)
	}
	return h.Sum(nil)
}

func number(n int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(n)) }
