package monitor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// mounts knows what is mounted at and beneath the root. A mount makes no event
// that tells of paths, yet changes what stands there.
type mounts struct {
	root string
	file *os.File         // /proc/self/mountinfo, for its change signal
	seen map[mount]string // what was there at the last survey -> relative path
}

// A mount is one line of mountinfo.
type mount struct {
	id, device, source, point, kind string
}

func openMounts(root string) (*mounts, error) {
	file, err := os.OpenFile("/proc/self/mountinfo", os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("watch mounts: %w", err)
	}
	m := &mounts{root: root, file: file}
	if _, err := m.survey(); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return m, nil
}

// survey reads the list and returns the relative paths at which it changed, the
// root's being "".
func (m *mounts) survey() (changed []string, err error) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("read mounts: %w", err)
	}
	now := parseMounts(b, m.root)
	for mnt, rel := range now {
		if _, ok := m.seen[mnt]; !ok {
			changed = append(changed, rel)
		}
	}
	for mnt, rel := range m.seen {
		if _, ok := now[mnt]; !ok {
			changed = append(changed, rel)
		}
	}
	m.seen = now
	return changed, nil
}

// points returns where something is mounted beneath the root, the root excluded.
func (m *mounts) points() []mount {
	var list []mount
	for mnt, rel := range m.seen {
		if rel != "" {
			list = append(list, mnt)
		}
	}
	return list
}

// files returns where a file, not a folder, is mounted beneath the root. What
// changes it makes its events in the folder it comes from.
func (m *mounts) files() (rels []string) {
	for mnt, rel := range m.seen {
		if fi, err := os.Lstat(mnt.point); rel != "" && err == nil && !fi.IsDir() {
			rels = append(rels, rel)
		}
	}
	return rels
}

// parseMounts picks the mount that root is in and those beneath it.
func parseMounts(b []byte, root string) map[mount]string {
	found := make(map[mount]string)
	var home mount
	for line := range bytes.Lines(b) {
		f := strings.Fields(string(line))
		dash := 6
		for dash < len(f) && f[dash] != "-" {
			dash++
		}
		if dash+1 >= len(f) {
			continue
		}
		mnt := mount{id: f[0], device: f[2], source: unescape(f[3]), point: unescape(f[4]), kind: f[dash+1]}
		if rel, ok := beneath(root, mnt.point); ok && rel != "" {
			found[mnt] = rel
		} else if _, ok := beneath(mnt.point, root); ok && len(mnt.point) >= len(home.point) {
			home = mnt // the later of two at one point lies on top
		}
	}
	found[home] = ""
	return found
}

// unescape undoes the kernel's \ooo for blanks and backslashes.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		if s[0] == '\\' && len(s) >= 4 {
			if c, err := strconv.ParseUint(s[1:4], 8, 8); err == nil {
				b.WriteByte(byte(c))
				s = s[4:]
				continue
			}
		}
		b.WriteByte(s[0])
		s = s[1:]
	}
	return b.String()
}

// watch fills changed whenever the list may have changed, and at first, until ctx
// ends.
func (m *mounts) watch(ctx context.Context, changed chan<- struct{}) error {
	conn, err := m.file.SyscallConn()
	if err != nil {
		return fmt.Errorf("watch mounts: %w", err)
	}
	if err := m.file.SetReadDeadline(time.Time{}); err != nil {
		return fmt.Errorf("watch mounts: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		<-ctx.Done()
		_ = m.file.SetReadDeadline(time.Unix(1, 0)) // fails only on a closed file, which ends the wait as well
	})
	defer wg.Wait()
	defer cancel()
	// The poller is woken by a change, and takes the kernel's signal by looking: to
	// be called again is all there is to know. One call of Read serves them all,
	// since what wakes between two is forgotten. The first call is for what changed
	// before.
	err = conn.Read(func(uintptr) (done bool) {
		select {
		case changed <- struct{}{}:
		default:
		}
		return false
	})
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	return fmt.Errorf("watch mounts: %w", err)
}

func (m *mounts) close() error { return m.file.Close() }
