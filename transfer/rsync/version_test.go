package rsync

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestProbe(t *testing.T) {
	path := needRsync(t)
	v, err := Probe(t.Context(), "rsync")
	if err != nil || v.Path != path || !filepath.IsAbs(v.Path) || !atLeast(v.Version, MinVersion) || v.Protocol == "" {
		t.Errorf("%+v, %v", v, err)
	}
}

func TestProbeSaysWhatIsNeeded(t *testing.T) {
	for _, tt := range []struct{ binary, says string }{
		{filepath.Join(t.TempDir(), "rsync"), "is installed; version " + MinVersion + " or later"},
		{"no-such-rsync-anywhere", "is installed; version " + MinVersion + " or later"},
		{fakeRsync(t, "version-3.2.7"), "is version 3.2.7, version " + MinVersion + " or later is needed: Debian"},
		{fakeRsync(t, "version-3.5.0pre1"), "is version 3.5.0pre1"},
		{"/bin/true", "does not say which version"},
		{"/bin/false", "run /"},
	} {
		_, err := Probe(t.Context(), tt.binary)
		if !errors.Is(err, ErrVersion) || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v", tt.binary, err)
		}
	}
}

func TestProbeWantsFeatures(t *testing.T) {
	for _, tt := range []struct{ capabilities, sums, missing string }{
		{`"hardlinks":true,"hardlink_symlinks":true,"symlinks":true,"symtimes":true,"xattrs":true,"ACLs":true,"inplace":true`, `"xxh128","md5"`, ""},
		{`"hardlinks":true,"hardlink_symlinks":true,"symlinks":true,"symtimes":true,"xattrs":false,"inplace":true`, `"md5"`, "without xattrs, ACLs, xxh128"},
	} {
		p := filepath.Join(t.TempDir(), "rsync")
		script := "#!/bin/sh\ncat <<E\n{\"version\":\"3.10.0\",\"protocol\":\"33.0\",\"capabilities\":{" + tt.capabilities + "},\"checksum_list\":[" + tt.sums + "]}\nE\n"
		if err := os.WriteFile(p, []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
		_, err := Probe(t.Context(), p)
		if (err == nil) != (tt.missing == "") || err != nil && !strings.Contains(err.Error(), tt.missing) {
			t.Errorf("%s: %v", tt.capabilities, err)
		}
	}
}

func TestVersionOrder(t *testing.T) {
	for v, want := range map[string]bool{
		"3.5.0": true, "3.5.1": true, "3.10.0": true, "4.0": true, "3.6.0pre1": true, "3.5.0+ds1-2": true,
		"3.4.9": false, "3.5.0pre1": false, "3.5.0dev": false, "3.5": false, "": false, "x": false, "99999999999999999999": false,
	} {
		if got := atLeast(v, MinVersion); got != want {
			t.Errorf("atLeast(%q) = %v", v, got)
		}
	}
}
