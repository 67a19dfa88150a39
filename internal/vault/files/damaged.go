package files

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/safefile"
	"github.com/upsauth/upsauth/internal/vault"
)

// Damaged finds the Token Vault Keys that damaged records name. A company
// that was renamed has its new name there, and its old one in the item until the
// next refresh.
func (s *Store) Damaged(context.Context) (map[string]vault.DamagedRecord, error) {
	dir := filepath.Join(s.dir, "records")
	files, err := safefile.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("the records can't be read: %w", err)
	}
	keyInText := regexp.MustCompile(`"token_vault_key"\s*:\s*"([0-9A-F]{8}(?:-[0-9A-F]{4}){3}-[0-9A-F]{12})"`)
	generationIn := regexp.MustCompile(`"generation"\s*:\s*([0-9]{1,15})\s*[,}]`)
	companyInText := regexp.MustCompile(`"company"\s*:\s*("(?:[^"\\]|\\.)*")`)
	found := map[string]vault.DamagedRecord{}
	for _, file := range files {
		slot, _, ok := strings.Cut(file, ".json.")
		if !ok || !strings.HasSuffix(file, ".damaged") || strings.HasPrefix(slot, ".") {
			continue
		}
		text, err := s.Places.Read(filepath.Join(dir, file), nil)
		if err != nil {
			return nil, fmt.Errorf("a damaged record can't be read: %w", err)
		}
		key := keyInText.FindSubmatch(text)
		if key == nil {
			continue
		}
		d := vault.DamagedRecord{Slot: slot}
		if m := generationIn.FindSubmatch(text); m != nil {
			d.Generation, _ = strconv.ParseInt(string(m[1]), 10, 64)
		}
		if m := companyInText.FindSubmatch(text); m != nil {
			var name string
			// The slot vouches for the name.
			if json.Unmarshal(m[1], &name) == nil && strings.HasPrefix(slot, grant.CompanySlot(name)+"-") {
				d.Company = name
			}
		}
		found[string(key[1])] = d
	}
	return found, nil
}
