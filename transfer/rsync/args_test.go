package rsync

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

// What rsync 3.5.0 was seen to compose for its -e program.
var composed = map[Lane]string{
	Small:        "batch rsync --server -lWHogtpAXIRSe.LsfxCIvu --timeout=60 --checksum-choice=xxh128 --compress-choice=none --max-alloc=512M --numeric-ids --no-implied-dirs . b17/",
	LargeReflink: "batch rsync --server -lHogtpAXIRe.LsfxCIvu --timeout=60 --checksum-choice=xxh128 --compress-choice=none --max-alloc=512M --numeric-ids --inplace --no-implied-dirs . b17/",
	LargeCompare: "batch rsync --server -lHogtpAXIRSe.LsfxCIvu --timeout=60 --checksum-choice=xxh128 --compress-choice=none --max-alloc=512M --numeric-ids --compare-dest ../../.. --no-implied-dirs . b17/",
}

func basisOf(l Lane) string {
	if l == LargeCompare {
		return "../../.."
	}
	return ""
}

func TestOnlyOurArgumentsAreAccepted(t *testing.T) {
	for lane, line := range composed {
		good := strings.Fields(line)
		if err := CheckPeerArgs(lane, "b17", basisOf(lane), good); err != nil {
			t.Errorf("%s: %v", lane, err)
		}
		refuse := func(what string, argv []string) {
			t.Helper()
			err := CheckPeerArgs(lane, "b17", basisOf(lane), argv)
			if !errors.Is(err, ErrArgs) {
				t.Errorf("%s: %s: %v", lane, what, err)
			}
		}
		for i := range good {
			refuse("one missing", slices.Delete(slices.Clone(good), i, i+1))
			refuse("one twice", slices.Insert(slices.Clone(good), i, good[i]))
			for _, bad := range []string{"", "--sender", "--delete", "/etc/", "b18/", good[i] + "/", "-s", "--\xff\n"} {
				argv := slices.Clone(good)
				argv[i] = bad
				refuse("changed to "+bad, argv)
			}
		}
		refuse("nothing", nil)
		refuse("one more", append(slices.Clone(good), "--trust-sender"))
		for other := range composed {
			if other != lane && CheckPeerArgs(other, "b17", basisOf(other), good) == nil {
				t.Errorf("%s accepted as %s", lane, other)
			}
		}
	}
}

func TestRefusalNamesTheDifference(t *testing.T) {
	argv := strings.Fields(composed[Small])
	argv[4] = "--remove-\x1b[31m"
	err := CheckPeerArgs(Small, "b17", "", argv)
	if err == nil || !strings.Contains(err.Error(), `"--remove-\x1b[31m" where --timeout=60 should be`) {
		t.Error(err)
	}
}

func TestServerArgs(t *testing.T) {
	for lane, line := range composed {
		want := strings.Fields(line)[2:]
		want = append(want[:len(want)-2], "--confine-root=/srv/a b", ".", "./")
		got := ServerArgs(ReceiveSpec{Lane: lane, TreeRoot: "/srv/a b", StagingDir: "/srv/a b/.clsync/staging/b17", CompareDest: basisOf(lane)})
		if !slices.Equal(got, want) {
			t.Errorf("%s:\n got %q\nwant %q", lane, got, want)
		}
	}
}

func TestBatchAndBasisAreTokens(t *testing.T) {
	for _, bad := range []string{"", "-b", "a/b", "a b", "a:b", "..", "é", strings.Repeat("x", MaxBatch+1)} {
		if err := checkLane(Small, bad, ""); err == nil {
			t.Errorf("batch %q accepted", bad)
		}
	}
	for _, bad := range []string{"", ".", "../x", "/..", "../", "..//..", "../.\x00.", strings.Repeat("../", 70) + ".."} {
		if err := checkLane(LargeCompare, "b", bad); err == nil {
			t.Errorf("basis %q accepted", bad)
		}
	}
	for _, l := range []Lane{0, Small, LargeReflink, 4, 255} {
		if err := checkLane(l, "b", ".."); err == nil {
			t.Errorf("lane %s with a basis accepted", l)
		}
	}
	if err := checkLane(LargeCompare, "b_-9", "../.."); err != nil {
		t.Error(err)
	}
}

func TestShellWords(t *testing.T) {
	got := shellWords([]string{"/opt/my bin/clsync", "rsh", "it's", ""})
	if want := `'/opt/my bin/clsync' rsh 'it''s' ''`; got != want {
		t.Errorf("%s", got)
	}
}

func TestExitCodes(t *testing.T) {
	for code, want := range map[int]error{
		0: nil, 23: nil, 24: nil,
		11: ErrBatch, 12: ErrBatch, 30: ErrBatch, 35: ErrBatch, 255: ErrBatch, 137: ErrBatch,
		1: ErrBug, 2: ErrBug, 3: ErrBug, 10: ErrBug, 13: ErrBug, 22: ErrBug, 99: ErrBug, -1: ErrBug, 256: ErrBug,
		jailFailed: ErrJail,
	} {
		if err := classify("rsync", code, ""); !errors.Is(err, want) {
			t.Errorf("%d: %v", code, err)
		}
	}
	err := classify("rsync", 11, "rsync: write failed: No space\nrsync error: error in file IO (code 11) at io.c\n")
	if !strings.HasSuffix(err.Error(), ": rsync: write failed: No space") {
		t.Error(err)
	}
}

func TestTailIsBoundedAndEscaped(t *testing.T) {
	var tl tail
	for range 100 {
		tl.Write([]byte(strings.Repeat("x", 100)))
	}
	tl.Write([]byte("\x1b]0;\xff\nend"))
	s := tl.String()
	if len(s) > 4*maxStderr || !strings.HasSuffix(s, "\\x1b]0;\\xff\nend") || strings.ContainsRune(s, 0x1b) {
		t.Errorf("%d bytes: %q", len(s), s[max(0, len(s)-40):])
	}
	if len(tl.b) != maxStderr {
		t.Errorf("keeps %d bytes", len(tl.b))
	}
}
