package bench

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A mirror is a floor: it watches the first tree and carries what changed to the
// second, batch by batch, in one direction, with no word to anybody.
type mirror struct {
	layout
	kind  string
	carry func(from, to string, paths []string) error
	w     *watcher

	err  error
	done chan struct{}
}

func newMirror(b *testing.B, on, kind string, carry func(from, to string, paths []string) error) *mirror {
	b.Helper()
	m := &mirror{layout: newLayout(b, on), kind: kind, carry: carry, done: make(chan struct{})}
	from, to := m.trees()
	var err error
	m.w, err = newWatcher(from)
	must(b, err)
	go func() { // close waits for it
		defer close(m.done)
		for {
			paths, err := m.w.drain()
			if errors.Is(err, os.ErrClosed) {
				return
			}
			if err == nil {
				err = m.carry(from, to, paths)
			}
			if err != nil {
				m.err = err
				return
			}
		}
	}()
	b.Cleanup(func() {
		m.close()
		if m.err != nil {
			b.Errorf("%s: %v", kind, m.err)
		}
	})
	return m
}

func (m *mirror) name() string { return m.kind }
func (m *mirror) rest()        {} // what is awaited is all there is
func (m *mirror) exact() bool  { return false }

func (m *mirror) close() {
	m.w.file.Close()
	<-m.done
}

// rsyncBatch is one bare rsync for all of them. Without -I it would miss the second
// change within a second.
func rsyncBatch(from, to string, paths []string) error {
	cmd := exec.Command("rsync", "-raHAXI", "-0", "--files-from=-", "--delete-missing-args", "--force", from+"/", to+"/")
	cmd.Stdin = strings.NewReader(strings.Join(paths, "\x00") + "\x00")
	return run(cmd, 24)
}

// copyBatch is one cp for all that is there, and one rm for all that is not.
func copyBatch(from, to string, paths []string) error {
	var there, gone bytes.Buffer
	for _, p := range paths {
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(from, p), &st); err == nil {
			there.WriteString("./" + p + "\x00")
		} else {
			gone.WriteString("./" + p + "\x00")
		}
	}
	if there.Len() > 0 {
		cmd := exec.Command("cp", "-a", "--reflink=never", "--parents", "-t", to)
		if there.Len() > 1<<16 {
			cmd = exec.Command("xargs", "-0", "cp", "-a", "--reflink=never", "--parents", "-t", to)
			cmd.Stdin = &there
		} else {
			cmd.Args = append(cmd.Args, strings.Split(strings.TrimSuffix(there.String(), "\x00"), "\x00")...)
		}
		cmd.Dir = from
		if err := run(cmd, 1, 123); err != nil { // something may have gone meanwhile
			return err
		}
	}
	if gone.Len() > 0 {
		cmd := exec.Command("xargs", "-0", "rm", "-rf")
		cmd.Stdin, cmd.Dir = &gone, to
		return run(cmd)
	}
	return nil
}

// run runs a program, of which some exit codes are no error.
func run(cmd *exec.Cmd, fine ...int) error {
	out, err := cmd.CombinedOutput()
	if err == nil {
		return nil
	}
	for _, code := range fine {
		if cmd.ProcessState.ExitCode() == code {
			return nil
		}
	}
	return fmt.Errorf("%s: %w: %s", filepath.Base(cmd.Path), err, bytes.TrimSpace(out))
}
