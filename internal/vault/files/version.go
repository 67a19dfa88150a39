package files

import (
	"hash/maphash"
	"path/filepath"
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
// records said: where two are equal, the company has the same grants with the same
// records, whichever process changed what meanwhile. Grants is how many it has. Version
// is zero where nobody can tell, or there is no such company by the name as it is
// written: whoever needs to know reads the records.
//
// The texts of the records are read each time, as a file's times and inode may come
// round again. Of the directories only what they are called is needed, and these are
// read where their times say so: see safefile.Listing.
func (s *Store) Version(company string) (version uint64, grants int) {
	records, _, err := s.listings.records.Names()
	if err != nil {
		return 0, 0
	}
	buf, _ := s.buffers.Get().(*[]byte)
	if buf == nil {
		buf = new([]byte)
	}
	defer s.buffers.Put(buf)
	var hash maphash.Hash
	hash.SetSeed(s.seed)
	for _, spelling := range grant.Spellings(company) {
		prefix := grant.CompanySlot(spelling) + "-"
		names := safefile.Below(records, prefix)
		if !s.quiet(prefix, names) {
			return 0, 0
		}
		for _, name := range names {
			slot, ok := strings.CutSuffix(name, ".json")
			if !ok {
				return 0, 0 // a damaged one lies aside
			}
			text, err := s.Places.Read(s.recordPath(slot), *buf)
			if err != nil {
				return 0, 0
			}
			*buf = text
			maphash.WriteComparable(&hash, len(text))
			_, _ = hash.WriteString(slot)
			_, _ = hash.Write(text)
			grants++
		}
	}
	if grants == 0 {
		return 0, 0
	}
	return max(hash.Sum64(), 1), grants
}

// quiet reports whether no journal can make a grant of a company known that has no record
// yet. Whether it does depends on who is at work on it, and no file changes with that.
func (s *Store) quiet(prefix string, records []string) bool {
	for _, listing := range []*safefile.Listing{s.listings.news, s.listings.older} {
		names, _, err := listing.Names()
		if err != nil {
			return false
		}
		for _, name := range safefile.Below(names, prefix) {
			slot, _, _ := strings.Cut(name, ".")
			if len(safefile.Below(records, slot+".json")) == 0 {
				return false
			}
		}
	}
	return true
}
