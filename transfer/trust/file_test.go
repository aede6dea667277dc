package trust

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestKeyFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cluster.key")
	want := keys(t, key(t), key(t))
	if err := WriteKeyFile(path, want); err != nil {
		t.Fatal(err)
	}
	got, err := ReadClusterKeys(path)
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(got.keys) != fmt.Sprint(want.keys) {
		t.Fatal("what was read is not what was written")
	}
	if st, err := os.Stat(path); err != nil || st.Mode() != 0o600 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	if err := WriteKeyFile(path, keys(t, key(t))); !errors.Is(err, os.ErrExist) {
		t.Errorf("wrote over a key: %v", err)
	}
	if again, err := ReadClusterKeys(path); err != nil || fmt.Sprint(again.keys) != fmt.Sprint(want.keys) {
		t.Errorf("the refused write changed the file: %v", err)
	}
	if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) != 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestKeyFileRefused(t *testing.T) {
	dir := t.TempDir()
	good := filepath.Join(dir, "good")
	if err := WriteKeyFile(good, keys(t, key(t))); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(good, link); err != nil {
		t.Fatal(err)
	}
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, hint := range map[string]string{link: "symlink", fifo: "regular", dir: "regular"} {
		if _, err := ReadClusterKeys(path); !errors.Is(err, ErrKeyFile) || !strings.Contains(err.Error(), hint) {
			t.Errorf("%s: %v", filepath.Base(path), err)
		}
	}
	for _, mode := range []os.FileMode{0o640, 0o604, 0o620, 0o601, 0o644} {
		if err := os.Chmod(good, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadClusterKeys(good); !errors.Is(err, ErrKeyFile) || !strings.Contains(err.Error(), "chmod 600") {
			t.Errorf("mode %o: %v", mode, err)
		}
	}
	for _, mode := range []os.FileMode{0o600, 0o400} {
		if err := os.Chmod(good, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadClusterKeys(good); err != nil {
			t.Errorf("mode %o: %v", mode, err)
		}
	}
}

func TestKeyFileOfAnother(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to give a file away")
	}
	path := filepath.Join(t.TempDir(), "key")
	if err := WriteKeyFile(path, keys(t, key(t))); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(path, 4242, 4242); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadClusterKeys(path); !errors.Is(err, ErrKeyFile) || !strings.Contains(err.Error(), "chown") {
		t.Errorf("belongs to 4242: %v", err)
	}
}

func TestParseKeys(t *testing.T) {
	const one = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
	const two = "AQECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
	good := map[string]int{
		keyHeader + "\n" + one:                                   1,
		keyHeader + "\r\n" + one + "\r\n":                        1,
		keyHeader + "\n\n# note\n  " + one + "  \n" + two + "\n": 2,
	}
	for text, n := range good {
		if k, err := parseKeys(text); err != nil || k.Len() != n {
			t.Errorf("%q: %d keys, %v", text, k.Len(), err)
		}
	}
	bad := []string{
		"", keyHeader, keyHeader + "\n", one, "# clsync cluster key, version 2\n" + one,
		keyHeader + "\n" + one[:40], keyHeader + "\n" + one + "A", keyHeader + "\nAAAA",
		keyHeader + "\n" + one + "\n" + one,
		keyHeader + "\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
	}
	for _, text := range bad {
		_, err := parseKeys(text)
		if !errors.Is(err, ErrKeyFile) {
			t.Errorf("%q: %v", text, err)
		}
		if err != nil && strings.Contains(err.Error(), one[:20]) {
			t.Errorf("the error tells the key: %v", err)
		}
	}
}

func TestKeysAreNotPrinted(t *testing.T) {
	k := keys(t, []byte("0123456789abcdef0123456789abcdef"))
	if s := fmt.Sprintf("%v %+v %#v %s", k, k, k, k); strings.Contains(s, "48") || strings.Contains(s, "0x") {
		t.Errorf("printed: %s", s)
	}
}

func TestNodeKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "node.key")
	first, err := LoadNodeKey(path)
	if err != nil {
		t.Fatal(err)
	}
	again, err := LoadNodeKey(path)
	if err != nil || !first.Equal(again) {
		t.Fatalf("the second load gave another key, %v", err)
	}
	if err := WriteNodeKey(path, first); !errors.Is(err, os.ErrExist) {
		t.Errorf("wrote over the node's key: %v", err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadNodeKey(path); !errors.Is(err, ErrKeyFile) {
		t.Errorf("an open key file: %v", err)
	}
	for _, text := range []string{"", "nonsense", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadNodeKey(path); !errors.Is(err, ErrKeyFile) {
			t.Errorf("%q is a node key: %v", text, err)
		}
	}
}
