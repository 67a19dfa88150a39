package files

import (
	"hash/maphash"
	"path/filepath"
	"slices"
	"strings"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/safefile"
)

// listings are the directories that say which grants a company has.
type listings struct{ records, news, older *safefile.Listing }

func newListings(dir string) listings {
	journals := filepath.Join(dir, "journals")
	return listings{
		records: safefile.NewListing(filepath.Join(dir, "records")),
		news:    safefile.NewListing(filepath.Join(journals, newsDir)),
		older:   safefile.NewListing(journals),
	}
}

// Version tells the states of one company's grants apart, for whoever remembers what the
// records said of those for an application and an environment, each empty for any. Where
// two versions are equal, it is the same grants with the same records, whichever process
// changed what meanwhile. Grants is how many there are: where both are named, the one.
// Version is zero where nobody can tell, or there is no such company by the name as it is
// written: whoever needs to know reads the records.
//
// The texts of the records are read each time, as a file's times and inode may come
// round again. Of the directories only their names are needed, and these are read where
// the directory's times say so: see safefile.Listing.
func (s *Store) Version(company, application, environment string) (version uint64, grants int) {
	var hash maphash.Hash
	hash.SetSeed(s.seed)
	if application != "" && environment != "" {
		// It is the one that is meant, whatever others there are.
		slot := grant.ID{Company: company, Application: application, Environment: environment}.Slot()
		if s.hashRecord(&hash, slot) {
			return max(hash.Sum64(), 1), 1
		}
		return 0, 0
	}
	for _, spelling := range grant.Spellings(company) {
		prefix := grant.CompanySlot(spelling) + "-"
		names, err := s.listings.records.Below(prefix)
		if err != nil || !s.quiet(prefix, names) {
			return 0, 0
		}
		for _, name := range slices.Sorted(slices.Values(names)) {
			slot, ok := strings.CutSuffix(name, ".json")
			if !ok || !s.hashRecord(&hash, slot) {
				return 0, 0 // a damaged one lies aside, or it is gone
			}
			grants++
		}
	}
	if grants == 0 {
		return 0, 0
	}
	return max(hash.Sum64(), 1), grants
}

// hashRecord adds the record in a slot to a hash, and reports whether there is one.
func (s *Store) hashRecord(hash *maphash.Hash, slot string) bool {
	buf, _ := s.buffers.Get().(*[]byte)
	if buf == nil {
		buf = new([]byte)
	}
	defer s.buffers.Put(buf)
	text, err := s.Places.Read(s.recordPath(slot), *buf)
	if err != nil {
		return false
	}
	*buf = text
	_, _ = hash.WriteString(slot)
	maphash.WriteComparable(hash, len(text))
	_, _ = hash.Write(text)
	return true
}

// quiet reports whether no journal can make a grant of a company known that has no record
// yet. Whether it does depends on who is at work on it, and no file changes with that.
func (s *Store) quiet(prefix string, records []string) bool {
	for _, listing := range []*safefile.Listing{s.listings.news, s.listings.older} {
		names, err := listing.Below(prefix)
		if err != nil {
			return false
		}
		for _, name := range names {
			slot, _, _ := strings.Cut(name, ".")
			if !slices.Contains(records, slot+".json") {
				return false
			}
		}
	}
	return true
}
