package rsync

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

var (
	// ErrBatch: this run came to nothing, another may not. Back off and retry.
	ErrBatch = errors.New("batch broke off")
	// ErrBug: rsync was called wrongly or is not what was probed. A retry does the same.
	ErrBug = errors.New("rsync went wrong")
	// ErrRefused: the peer did not accept the batch.
	ErrRefused = errors.New("peer refused the batch")
	// ErrSpec: the caller asked for what cannot be.
	ErrSpec = errors.New("not a batch")
	// ErrJail: the jail could not be set up. rsync was not started.
	ErrJail = errors.New("set up jail")
)

// A Result says how a run ended. With a nil error it means: look at seal and verify.
type Result struct {
	Code   int    // our rsync's exit code; 128 and more: the signal that killed it
	Stderr string // its last words, escaped

	PeerCode   int    // Send only: the receiver's exit code, as the peer tells it
	PeerStderr string // Send only, escaped

	In, Out int64 // bytes from and to the peer
	Took    time.Duration
	Jailed  bool // Receive only
	// Early: everything was in place, and nobody waited for rsync's exit. Code is
	// then what it would have been: 0, or 23 if it complained.
	Early bool
}

// settled tells whether a code leaves the decision to seal and verify.
func settled(code int) bool { return code == 0 || code == 23 || code == 24 }

// classify turns an exit code into what the caller must do about it.
func classify(whose string, code int, stderr string) error {
	switch {
	case settled(code):
		return nil
	case code == 11, code == 12, code == 30, code == 35, code == 255:
		return fmt.Errorf("%w: %s ended with %d (%s)%s", ErrBatch, whose, code, codeNames[code], lastLine(stderr))
	case code == jailFailed:
		return fmt.Errorf("%w%s", ErrJail, lastLine(stderr))
	case code > 128 && code < 255: // the kernel's hand or ours, not rsync's opinion
		return fmt.Errorf("%w: %s was killed by signal %d%s", ErrBatch, whose, code-128, lastLine(stderr))
	}
	return fmt.Errorf("%w: %s ended with %d%s", ErrBug, whose, code, lastLine(stderr))
}

var codeNames = map[int]string{
	11:  "file input or output",
	12:  "protocol stream",
	30:  "timeout",
	35:  "timeout of the daemon",
	255: "helper",
}

// lastLine gives the cause as an appendix to a sentence. rsync's own last line
// names its source file and says nothing; the one before is the cause.
func lastLine(stderr string) string {
	lines := strings.Split(strings.TrimSpace(stderr), "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		if l := strings.TrimSpace(lines[i]); l != "" && (i == 0 || !strings.HasPrefix(l, "rsync error:")) {
			return ": " + l
		}
	}
	return ""
}

// maxStderr bounds what is kept of a program's last words, at either end.
const maxStderr = 4 << 10

// escape makes a program's words fit for logs: they hold names, and names hold
// any byte. Newlines stay.
func escape(b []byte) string {
	var out strings.Builder
	for _, c := range b {
		if c == '\n' || c >= ' ' && c < 0x7f {
			out.WriteByte(c)
		} else {
			fmt.Fprintf(&out, `\x%02x`, c)
		}
	}
	return out.String()
}

// cutStderr bounds and escapes the words a peer sent.
func cutStderr(s string) string {
	if len(s) > maxStderr {
		s = s[len(s)-maxStderr:]
	}
	return escape([]byte(s))
}
