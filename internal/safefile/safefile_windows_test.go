package safefile

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/windows"
)

// A reader that has the file open must not keep a writer from removing it, and goes
// on reading what it opened.
func TestOpenFileCanBeRemoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := Write(path, []byte("old")); err != nil {
		t.Fatal(err)
	}
	file, err := OpenFile(path, os.O_RDONLY)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := Remove(path); err != nil {
		t.Fatal(err)
	}
	start := make([]byte, 3)
	if n, err := file.Read(start); n != 3 || string(start) != "old" {
		t.Errorf("%q, %v", start[:n], err)
	}
}

// What a virus scanner has open for a moment is waited for, and no longer.
func TestFileThatSomebodyDoesNotShare(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := Write(path, []byte("old")); err != nil {
		t.Fatal(err)
	}
	hold := func() windows.Handle {
		name, err := windows.UTF16PtrFromString(path)
		if err != nil {
			t.Fatal(err)
		}
		handle, err := windows.CreateFile(name, windows.GENERIC_READ, 0, nil, windows.OPEN_EXISTING, 0, 0)
		if err != nil {
			t.Fatal(err)
		}
		return handle
	}
	handle := hold()
	if _, err := ReadFile(path); !errors.Is(err, errSharingViolation) {
		t.Errorf("reading: %v", err)
	}
	if err := Write(path, []byte("new")); err == nil {
		t.Error("it was replaced")
	}
	if names := list(t, filepath.Dir(path)); len(names) != 1 {
		t.Errorf("left behind: %q", names)
	}
	done := make(chan error, 1)
	go func() { done <- Write(path, []byte("new")) }()
	if err := windows.CloseHandle(handle); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if got, err := ReadFile(path); err != nil || string(got) != "new" {
		t.Errorf("%q, %v", got, err)
	}
}

// Outside of a profile, all users may use what is made; not what upsauth makes.
func TestMadeDirectoriesAreTheUsersAlone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "shared")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	allow(t, dir, "(A;OICI;FA;;;WD)")
	var denied *PermissionError
	for _, err := range []error{new(Places).CheckSecret(dir), new(Places).Check(dir)} {
		if !errors.As(err, &denied) {
			t.Fatalf("a directory that everybody may use: %v", err)
		}
	}
	if !strings.HasPrefix(denied.Remedy, `icacls "`+dir+`" /inheritance:r`) || strings.Contains(denied.Error(), "mode") {
		t.Errorf("it says %q", denied)
	}
	// As on a drive's first level: others may use what is made there, not the directory.
	allow(t, dir, "(A;OICIIO;FA;;;WD)(A;;0x1200a9;;;WD)")
	path := filepath.Join(dir, "a", "b", "file")
	if err := Write(path, nil); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{path, filepath.Dir(path), filepath.Dir(filepath.Dir(path))} {
		if err := errors.Join(new(Places).CheckSecret(path), new(Places).Check(path)); err != nil {
			t.Error(err)
		}
	}
}

// Wine keeps no more of an access list than fits into a mode, so these are read
// without a file.
func TestAccessLists(t *testing.T) {
	for text, want := range map[string]struct{ private, unwritable bool }{
		"D:":                         {true, true},
		"D:(A;;FA;;;BA)":             {true, true},
		"D:(A;;FA;;;SY)":             {true, true},
		"D:(A;;FR;;;WD)":             {false, true},
		"D:(A;;FR;;;AU)":             {false, true},
		"D:(A;;FX;;;BU)":             {true, true},
		"D:(A;;GR;;;IU)":             {false, true},
		"D:(A;;FR;;;BG)":             {false, true},
		"D:(A;;FW;;;BU)":             {false, false},
		"D:(A;;FA;;;AN)":             {false, false},
		"D:(A;;WD;;;AU)":             {false, false}, // may change the list
		"D:(D;;FA;;;WD)":             {true, true},
		"D:(A;OICIIO;FA;;;AU)":       {true, true}, // of what will be in it
		"D:(A;;FA;;;BA)(A;;FR;;;BU)": {false, true},
	} {
		descriptor, err := windows.SecurityDescriptorFromString(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		list, _, err := descriptor.DACL()
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got := !isOpen(list, reading|writing); got != want.private {
			t.Errorf("%s is private: %v", text, got)
		}
		if got := !isOpen(list, writing); got != want.unwritable {
			t.Errorf("%s can't be written: %v", text, got)
		}
	}
	if !isOpen(nil, reading) {
		t.Error("no list at all is private")
	}
}

// allow gives a file an access list of the user and of one more entry.
func allow(t *testing.T, path, entry string) {
	t.Helper()
	user, err := currentUser()
	if err != nil {
		t.Fatal(err)
	}
	descriptor, err := windows.SecurityDescriptorFromString("D:P(A;OICI;FA;;;" + user.String() + ")" + entry)
	if err != nil {
		t.Fatal(err)
	}
	list, _, err := descriptor.DACL()
	if err != nil {
		t.Fatal(err)
	}
	if err := windows.SetNamedSecurityInfo(path, windows.SE_FILE_OBJECT,
		windows.DACL_SECURITY_INFORMATION|windows.PROTECTED_DACL_SECURITY_INFORMATION, nil, nil, list, nil); err != nil {
		t.Fatal(err)
	}
}
