package files_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/upsauth/upsauth/internal/grant"
	"github.com/upsauth/upsauth/internal/vault/files"
)

// A version stays for as long as all stays that is known of a company's grants, changes
// with that, and is none where the records alone do not tell.
func TestVersionOfACompany(t *testing.T) {
	w := newWorld(t)
	v := w.open()
	store := files.New(w.dir, nil)
	twice := func() (version uint64, grants int) {
		t.Helper()
		version, grants = store.Version(acme.Company, "", "")
		if again, _ := store.Version("  ACME corp ", "", ""); again != version {
			t.Errorf("%d, then %d of the same", version, again)
		}
		return version, grants
	}
	named := func() uint64 {
		version, _ := store.Version(acme.Company, acme.Application, acme.Environment)
		return version
	}
	if version, _ := twice(); version != 0 || named() != 0 {
		t.Error("there is a version of nothing")
	}
	mustPut(t, v, grantOf(acme, keyA, 1), 0)
	first, grants := twice()
	one := named()
	if first == 0 || grants != 1 || one == 0 {
		t.Errorf("%d with %d grants, %d", first, grants, one)
	}
	mustPut(t, v, grantOf(apex, keyB, 1), 0)
	if other, _ := twice(); other != first {
		t.Error("another company's grant changed it")
	}
	if err := v.Note(t.Context(), acme, func(l *grant.Local) { l.Void = true }); err != nil {
		t.Fatal(err)
	}
	second, _ := twice()
	if second == first || named() == one {
		t.Error("a change of the record is not seen")
	}
	// A journal beside the record is the record's, one of another grant is not.
	news := filepath.Join(w.dir, "journals", "open")
	beside := filepath.Join(news, acme.Slot()+"."+keyA)
	if err := os.MkdirAll(news, 0o700); err != nil {
		t.Fatal(err)
	}
	w.write(beside, nil)
	if third, _ := twice(); third != second {
		t.Error("a journal beside the record changed it")
	}
	batch := acme
	batch.Application = "batch-suite"
	for _, path := range []string{filepath.Join(news, batch.Slot()+"."+keyC), filepath.Join(w.dir, "journals", batch.Slot()+"."+keyC+".age"), w.recordPath(batch) + ".damaged"} {
		w.write(path, nil)
		if version, _ := twice(); version != 0 {
			t.Errorf("beside %s there is a version", filepath.Base(path))
		}
		if named() == 0 {
			t.Errorf("the one that is named has no version beside %s", filepath.Base(path))
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if version, _ := twice(); version != second {
			t.Errorf("without %s it is %d, and was %d", filepath.Base(path), version, second)
		}
	}
	mustPut(t, v, grantOf(batch, keyC, 1), 0)
	if version, grants := twice(); version == second || version == 0 || grants != 2 {
		t.Errorf("a second grant: %d with %d grants", version, grants)
	}
}
