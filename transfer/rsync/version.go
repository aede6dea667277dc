package rsync

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// MinVersion is the oldest rsync that is used: the two security batches before it
// are about links that a local user plants and peers that lie.
const MinVersion = "3.5.0"

// ErrVersion is returned for an rsync that cannot be used.
var ErrVersion = errors.New("rsync is not usable")

const howToGet = "Debian has it in its security archive (bookworm-security, trixie-security), " +
	"others in their updates; the source is at https://download.samba.org/pub/rsync/"

// A Version is what Probe found.
type Version struct {
	Path     string // absolute
	Version  string
	Protocol string
}

func (v Version) String() string { return v.Version }

// probed is the part of what rsync -VV prints that matters.
type probed struct {
	Version      string         `json:"version"`
	Protocol     string         `json:"protocol"`
	Capabilities map[string]any `json:"capabilities"`
	Checksums    []string       `json:"checksum_list"`
}

// Probe finds rsync and tells whether it can be used, and if not, what would do.
// binary is a path, or a name to look up in PATH.
func Probe(ctx context.Context, binary string) (Version, error) {
	path, err := exec.LookPath(binary)
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		return Version{}, fmt.Errorf("%w: no %s is installed; version %s or later is needed: %s", ErrVersion, binary, MinVersion, howToGet)
	}
	if err != nil {
		return Version{}, fmt.Errorf("%w: %w", ErrVersion, err)
	}
	if path, err = filepath.Abs(path); err != nil {
		return Version{}, fmt.Errorf("%w: %w", ErrVersion, err)
	}
	out, err := ask(ctx, path, "-VV")
	var p probed
	if err != nil || json.Unmarshal(out, &p) != nil || p.Version == "" {
		if ctx.Err() != nil {
			return Version{}, fmt.Errorf("probe rsync: %w", context.Cause(ctx))
		}
		// Before 3.2.7, -VV is text or an error.
		out, err := ask(ctx, path, "--version")
		if err != nil {
			return Version{}, fmt.Errorf("%w: run %s --version: %w", ErrVersion, path, err)
		}
		m := versionLine.FindSubmatch(out)
		if m == nil {
			return Version{}, fmt.Errorf("%w: %s does not say which version it is", ErrVersion, path)
		}
		p.Version = string(m[1])
	}
	if !atLeast(p.Version, MinVersion) {
		return Version{}, fmt.Errorf("%w: %s is version %s, version %s or later is needed: %s", ErrVersion, path, p.Version, MinVersion, howToGet)
	}
	if missing := p.missing(); len(missing) > 0 {
		return Version{}, fmt.Errorf("%w: %s, version %s, was built without %s", ErrVersion, path, p.Version, strings.Join(missing, ", "))
	}
	return Version{Path: path, Version: p.Version, Protocol: p.Protocol}, nil
}

func (p probed) missing() (missing []string) {
	for _, c := range []string{"hardlinks", "hardlink_symlinks", "symlinks", "symtimes", "xattrs", "ACLs", "inplace"} {
		// Some capabilities are words ("optional") where others are true.
		if has, ok := p.Capabilities[c]; !ok || has == false {
			missing = append(missing, c)
		}
	}
	if !slices.Contains(p.Checksums, "xxh128") {
		missing = append(missing, "xxh128")
	}
	return missing
}

var versionLine = regexp.MustCompile(`(?m)^rsync\s+version\s+v?(\S{1,40})`)

// maxAnswer bounds what a program that may not be rsync at all can say.
const maxAnswer = 256 << 10

func ask(ctx context.Context, path, option string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, path, option)
	cmd.Env = environment()
	cmd.Stdout = &limited{w: &out, left: maxAnswer}
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	return out.Bytes(), err
}

// A limited writer fails when more comes than it takes.
type limited struct {
	w    io.Writer
	left int
}

func (l *limited) Write(b []byte) (int, error) {
	if len(b) > l.left {
		return 0, io.ErrShortWrite
	}
	l.left -= len(b)
	return l.w.Write(b)
}

// atLeast compares version numbers. One that goes on with letters (3.5.0pre1) came
// before the one without.
func atLeast(v, floor string) bool {
	have, early := numbers(v)
	want, _ := numbers(floor)
	if c := slices.Compare(have, want); c != 0 {
		return c > 0
	}
	return !early
}

var prerelease = regexp.MustCompile(`^(\d+(?:\.\d+)*)(pre|dev|rc|alpha|beta)?`)

func numbers(v string) (ns []int, early bool) {
	m := prerelease.FindStringSubmatch(v)
	if m == nil {
		return nil, true
	}
	for s := range strings.SplitSeq(m[1], ".") {
		n, err := strconv.Atoi(s)
		if err != nil {
			return nil, true
		}
		ns = append(ns, n)
	}
	return ns, m[2] != ""
}
