package rsync

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/clsync/clsync/signature"
)

// Lane says how a batch's contents travel.
type Lane uint8

const (
	// Small is many files in one run, whole. It keeps holes.
	Small Lane = iota + 1
	// LargeReflink patches in place a clone of the live file that the caller put
	// into staging. Only for files whose basis was cloned: a new or sparse file
	// would lose its holes (8 blocks became 10 248).
	LargeReflink
	// LargeCompare reads the live file as the basis and writes a new one.
	LargeCompare
)

var laneNames = [...]string{"none", "small", "large-reflink", "large-compare"}

func (l Lane) String() string {
	if int(l) < len(laneNames) {
		return laneNames[l]
	}
	return "invalid"
}

// Valid tells whether l is one of the lanes.
func (l Lane) Valid() bool { return l >= Small && l <= LargeCompare }

// ErrArgs is returned for a peer's argument vector that is not the one we would
// have composed.
var ErrArgs = errors.New("rsync arguments are not ours")

// Options that both ends must have alike. xxh128 is fast and no secret; our own
// hash verifies. Compression was the door of several vulnerabilities. The timeout
// is rsync's own, a peer can defeat it: the watchdog does not rely on it.
var shared = []string{
	"--timeout=60",
	"--checksum-choice=xxh128",
	"--compress-choice=none",
	"--max-alloc=512M",
}

// sendArgs is the sender's command line. -I, since the quick check misses a
// second edit of the same size within a second; --ignore-missing-args, since
// seal reports what vanished. root is the folder's own path: a name whose parent
// became a link out of it is refused, where rsync by itself would follow the link
// if root owns it. rsync does not pass that option on.
func sendArgs(spec SendSpec, root string) []string {
	argv := append([]string{
		"-lptgoHAX", "--numeric-ids", "-I", "-0", "--files-from=-",
		"--no-implied-dirs", "--ignore-missing-args", "--confine-root=" + root,
	}, shared...)
	switch spec.Lane {
	case LargeReflink:
		argv = append(argv, "--no-whole-file", "--inplace")
	case LargeCompare:
		argv = append(argv, "--no-whole-file", "-S", "--compare-dest="+spec.CompareDest)
	default:
		argv = append(argv, "-W", "-S")
	}
	return append(argv, "-e", shellWords(spec.Helper), "./", destination(spec.Batch))
}

// destination is a token in the form of a host and a path. No name is resolved:
// the helper hands both to the daemon.
func destination(batch string) string { return host + ":" + batch + "/" }

const host = "batch"

// serverOptions is the part of the server's command line that follows from lane
// and compareDest alone. rsync composes it from sendArgs.
func serverOptions(lane Lane, compareDest string) []string {
	flags, more := "-lWHogtpAXIRSe.LsfxCIvu", []string(nil)
	switch lane {
	case LargeReflink:
		flags, more = "-lHogtpAXIRe.LsfxCIvu", []string{"--inplace"}
	case LargeCompare:
		flags, more = "-lHogtpAXIRSe.LsfxCIvu", []string{"--compare-dest", compareDest}
	}
	argv := append([]string{"--server", flags}, shared...)
	argv = append(argv, "--numeric-ids")
	argv = append(argv, more...)
	return append(argv, "--no-implied-dirs")
}

// ServerArgs is the receiver's command line, without the program. It runs in the
// staging folder, so no path of the receiver is in it but the tree's root, which
// rsync must not leave for a basis.
func ServerArgs(spec ReceiveSpec) []string {
	return append(serverOptions(spec.Lane, spec.CompareDest), "--confine-root="+spec.TreeRoot, ".", "./")
}

// CheckPeerArgs compares the argument vector that the peer's rsync composed for
// its -e program with the only one that we accept for this lane and batch.
func CheckPeerArgs(lane Lane, batch, compareDest string, argv []string) error {
	if err := checkLane(lane, batch, compareDest); err != nil {
		return fmt.Errorf("%w: %w", ErrArgs, err)
	}
	want := append([]string{host, "rsync"}, serverOptions(lane, compareDest)...)
	want = append(want, ".", batch+"/")
	for i := range max(len(want), len(argv)) {
		switch {
		case i >= len(argv):
			return fmt.Errorf("%w: %s is missing", ErrArgs, want[i])
		case i >= len(want):
			return fmt.Errorf("%w: %s is too much", ErrArgs, quoteArg(argv[i]))
		case argv[i] != want[i]:
			return fmt.Errorf("%w: %s where %s should be", ErrArgs, quoteArg(argv[i]), want[i])
		}
	}
	return nil
}

func quoteArg(s string) string {
	if len(s) > 100 {
		s = s[:100]
	}
	return signature.Quote(s)
}

// MaxBatch bounds a batch's name. It is a token of letters, digits, - and _,
// since rsync escapes all else.
const MaxBatch = 64

func checkLane(lane Lane, batch, compareDest string) error {
	switch {
	case !lane.Valid():
		return fmt.Errorf("lane %d", lane)
	case !isToken(batch):
		return fmt.Errorf("batch %s is not a name of up to %d letters and digits", quoteArg(batch), MaxBatch)
	}
	return checkCompareDest(lane, compareDest)
}

// checkCompareDest accepts nothing but steps up: from staging, the basis is
// always beneath the root that staging is in.
func checkCompareDest(lane Lane, dest string) error {
	if lane != LargeCompare {
		if dest != "" {
			return fmt.Errorf("lane %s has no basis folder", lane)
		}
		return nil
	}
	up := strings.Split(dest, "/")
	if len(up) > 64 || slices.ContainsFunc(up, func(s string) bool { return s != ".." }) {
		return fmt.Errorf("basis folder %s is not ../.. and so on", quoteArg(dest))
	}
	return nil
}

func isToken(s string) bool {
	if s == "" || len(s) > MaxBatch || s[0] == '-' {
		return false
	}
	for _, c := range []byte(s) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_':
		default:
			return false
		}
	}
	return true
}

// shellWords quotes a command as rsync's -e takes it: words separated by spaces,
// quotes around what holds any, a quote in quotes doubled, no backslashes.
func shellWords(argv []string) string {
	words := make([]string, len(argv))
	for i, s := range argv {
		if s == "" || strings.ContainsAny(s, ` '"`) {
			s = "'" + strings.ReplaceAll(s, "'", "''") + "'"
		}
		words[i] = s
	}
	return strings.Join(words, " ")
}
