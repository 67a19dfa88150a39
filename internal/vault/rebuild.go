package vault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/safefile"
)

// Lost is what was found under a Token Vault Key that is an orphan somewhere.
type Lost struct {
	grant.ID // empty where nothing tells
	grant.Place
	Kind LostKind
	// Copies are the other places that have items of the same grant, which are
	// older or the same.
	Copies []grant.Place
	// Err is why the place can't be looked into, for LostUnreadable.
	Err error
}

// LostKind is what an orphan turned out to be.
type LostKind int

const (
	// LostGrant is a whole grant without a record: Rebuild makes one.
	LostGrant LostKind = iota
	// LostCopy is of a grant whose record says that it is elsewhere.
	LostCopy
	// LostOther is of a company, application and environment that have another
	// grant, on record or later than this one.
	LostOther
	// LostRemains are a grant's smaller items without its own.
	LostRemains
	// LostUnreadable is a place that can't be looked into, or is damaged.
	LostUnreadable
)

// Lost looks into orphans for what they were. Of several copies of a grant the
// latest counts: the refresh tokens of the others are spent.
func (v *Vault) Lost(ctx context.Context, orphans []grant.Place) ([]Lost, error) {
	if len(orphans) == 0 {
		return nil, nil
	}
	spoken, err := v.spokenOf()
	if err != nil {
		return nil, err
	}
	damaged, err := v.damagedRecords()
	if err != nil {
		return nil, err
	}
	listed := map[grant.Place]bool{}
	for _, orphan := range orphans {
		listed[orphan] = true
	}
	var found []Lost
	latest := map[string]grant.Grant{} // slot -> the grant that may get the record
	seen := map[string]bool{}
	for _, orphan := range orphans {
		if spoken.places[orphan] {
			continue // it got its record meanwhile
		}
		if id, ok := spoken.records[orphan.TokenVaultKey]; ok {
			found = append(found, Lost{ID: id, Place: orphan, Kind: LostCopy})
			continue
		}
		if seen[orphan.TokenVaultKey] {
			continue // told with the place that has the latest copy
		}
		seen[orphan.TokenVaultKey] = true
		l, g := v.lookInto(ctx, orphan, listed)
		d := damaged[l.TokenVaultKey]
		if l.Kind == LostGrant && g.Generation < d.generation {
			l.Kind, l.Err = LostUnreadable, olderItem(grant.Record{ID: g.ID, Home: l.Home, Generation: d.generation}, g.Generation)
		}
		if l.Kind == LostGrant {
			if d.company != "" {
				g.Company, l.Company = d.company, d.company // it was renamed since
			}
			if _, err := v.readRecord(l.Slot()); !errors.Is(err, grant.ErrNoGrant) {
				l.Kind = LostOther
			} else if other, taken := latest[l.Slot()]; !taken || g.Requested.After(other.Requested) {
				latest[l.Slot()] = g
			}
		}
		found = append(found, l)
	}
	for i, l := range found {
		if l.Kind == LostGrant && latest[l.Slot()].TokenVaultKey != l.TokenVaultKey {
			found[i].Kind = LostOther
		}
	}
	return found, nil
}

// lookInto finds the latest copy of a grant among all homes. One that is listed
// and can't be read may be a later one.
func (v *Vault) lookInto(ctx context.Context, orphan grant.Place, listed map[grant.Place]bool) (Lost, grant.Grant) {
	l := Lost{Place: orphan, Kind: LostRemains}
	var best grant.Grant
	for _, home := range v.homes {
		place := grant.Place{TokenVaultKey: orphan.TokenVaultKey, Home: home.Name()}
		g, err := readItem(ctx, home, orphan.TokenVaultKey)
		switch {
		case errors.Is(err, ErrNoItem):
		case err != nil && listed[place]:
			return Lost{Place: orphan, Kind: LostUnreadable, Err: err}, grant.Grant{}
		case err != nil:
			// Many a machine has only one of the homes.
		case best.TokenVaultKey == "":
			best, l.Place = g, place
		case g.Generation > best.Generation:
			l.Copies = append(l.Copies, l.Place)
			best, l.Place = g, place
		default:
			l.Copies = append(l.Copies, place)
		}
	}
	if best.TokenVaultKey != "" {
		l.ID, l.Kind = best.ID, LostGrant
	}
	return l, best
}

// readItem reads a grant out of a home without a record that says what it is.
// What only records have is left out.
func readItem(ctx context.Context, home Home, tokenVaultKey string) (grant.Grant, error) {
	secret, err := home.Get(ctx, tokenVaultKey)
	if err != nil {
		return grant.Grant{}, err
	}
	if version := versionOf(secret); version > grant.RecordVersion {
		return grant.Grant{}, &NewerError{Path: "the item " + tokenVaultKey, Version: version}
	}
	var g grant.Grant
	err = json.Unmarshal(secret, &g)
	nameErr := grant.CheckCompany(g.Company)
	_, applicationErr := grant.CleanName("application", g.Application)
	_, environmentErr := grant.CleanName("environment", g.Environment)
	if errors.Join(err, nameErr, applicationErr, environmentErr) != nil || g.TokenVaultKey != tokenVaultKey || g.Generation < 1 {
		return grant.Grant{}, damagedItem(home.Name(), fmt.Sprintf("The secrets under %s in the %s are damaged.", tokenVaultKey, Describe(home.Name())))
	}
	g.Home = home.Name()
	g.Superseded, g.Was, g.Removing, g.Void, g.LastError = nil, "", false, false, nil
	return g, nil
}

// Rebuild makes a record of a LostGrant, and marks its older copies as what is
// to be removed.
func (v *Vault) Rebuild(ctx context.Context, lost Lost) error {
	unlock, err := v.Lock(ctx, lost.ID)
	if err != nil {
		return err
	}
	defer unlock()
	spoken, err := v.spokenOf()
	if err != nil {
		return err
	}
	if id, ok := spoken.records[lost.TokenVaultKey]; ok {
		return &TakenError{ID: id}
	}
	if record, err := v.readRecord(lost.Slot()); err == nil {
		return &TakenError{ID: record.ID}
	} else if !errors.Is(err, grant.ErrNoGrant) {
		return err
	}
	home, err := v.homes.named(lost.Home)
	if err != nil {
		return err
	}
	g, err := readItem(ctx, home, lost.TokenVaultKey)
	if err != nil {
		return err
	}
	g.ID, g.Superseded = lost.ID, lost.Copies
	if err := v.writeRecord(g.Record); err != nil {
		return err
	}
	damaged, err := v.damagedRecords()
	if err != nil {
		return err
	}
	if d, ok := damaged[lost.TokenVaultKey]; ok && d.slot != lost.Slot() {
		if err := v.dropDamaged(d.slot); err != nil {
			return err
		}
	}
	return v.dropDamaged(lost.Slot())
}

// damagedRecord is what a damaged record still tells.
type damagedRecord struct {
	slot, company string
	generation    int64 // 0 where it does not tell
}

// damagedRecords finds the Token Vault Keys that damaged records name. A company
// that was renamed has its new name there, and its old one in the item until the
// next refresh.
func (v *Vault) damagedRecords() (map[string]damagedRecord, error) {
	dir := filepath.Join(v.dir, "records")
	files, err := safefile.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("the records can't be read: %w", err)
	}
	keyInText := regexp.MustCompile(`"token_vault_key"\s*:\s*"([0-9A-F]{8}(?:-[0-9A-F]{4}){3}-[0-9A-F]{12})"`)
	generationIn := regexp.MustCompile(`"generation"\s*:\s*([0-9]{1,15})\s*[,}]`)
	companyInText := regexp.MustCompile(`"company"\s*:\s*("(?:[^"\\]|\\.)*")`)
	found := map[string]damagedRecord{}
	for _, file := range files {
		slot, _, ok := strings.Cut(file, ".json.")
		if !ok || !strings.HasSuffix(file, ".damaged") || strings.HasPrefix(slot, ".") {
			continue
		}
		text, err := v.Places.Read(filepath.Join(dir, file), nil)
		if err != nil {
			return nil, fmt.Errorf("a damaged record can't be read: %w", err)
		}
		key := keyInText.FindSubmatch(text)
		if key == nil {
			continue
		}
		d := damagedRecord{slot: slot}
		if m := generationIn.FindSubmatch(text); m != nil {
			d.generation, _ = strconv.ParseInt(string(m[1]), 10, 64)
		}
		if m := companyInText.FindSubmatch(text); m != nil {
			var name string
			// The slot vouches for the name.
			if json.Unmarshal(m[1], &name) == nil && strings.HasPrefix(slot, grant.CompanySlot(name)+"-") {
				d.company = name
			}
		}
		found[string(key[1])] = d
	}
	return found, nil
}
