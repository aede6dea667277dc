package main

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/clsync/clsync/signature"
)

// systemd is the other end of sd_notify(3).
type systemd struct {
	t *testing.T
	c *net.UnixConn
}

func newSystemd(t *testing.T) (systemd, string) {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "clsync")
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: dir + "/notify", Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(c.Close(), os.RemoveAll(dir)); err != nil {
			t.Error(err)
		}
	})
	return systemd{t, c}, dir
}

// hear waits for a line and returns the lines that came before it.
func (s systemd) hear(line string) (before []string) {
	s.t.Helper()
	if err := s.c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		s.t.Fatal(err)
	}
	buf := make([]byte, 4096)
	for {
		n, err := s.c.Read(buf)
		if err != nil {
			s.t.Fatalf("waiting for %s: %v; heard %q", line, err, before)
		}
		lines := strings.Split(strings.TrimSpace(string(buf[:n])), "\n")
		if slices.ContainsFunc(lines, func(l string) bool { return strings.HasPrefix(l, line) }) {
			return append(before, lines...)
		}
		before = append(before, lines...)
	}
}

func start(t *testing.T, dir, cluster string, env ...string) *exec.Cmd {
	t.Helper()
	file := filepath.Join(dir, "c.toml")
	if err := os.WriteFile(file, fmt.Appendf(nil, "name = \"a\"\ncluster = %q\nrun_dir = %q\n", cluster, dir), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("clsync", "node", "-c", file)
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+dir+"/notify", "WATCHDOG_USEC=150000")
	cmd.Env = append(cmd.Env, env...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			if err := errors.Join(cmd.Process.Kill(), cmd.Wait()); err != nil {
				t.Log(err)
			}
		}
		if t.Failed() {
			t.Log(stderr.String())
		}
	})
	return cmd
}

func TestSystemd(t *testing.T) {
	s, dir := newSystemd(t)
	cmd := start(t, dir, "well")
	s.hear("READY=1")
	s.hear("WATCHDOG=1")
	if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	if all := s.hear("MONOTONIC_USEC="); !slices.Contains(all, "RELOADING=1") {
		t.Errorf("%q", all)
	}
	s.hear("READY=1")
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	s.hear("STOPPING=1")
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// TestWatchdogStarves: a node that does not answer does not keep the dog quiet.
func TestWatchdogStarves(t *testing.T) {
	s, dir := newSystemd(t)
	cmd := start(t, dir, "dead")
	s.hear("READY=1")
	if err := s.c.SetReadDeadline(time.Now().Add(500 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4096)
	for {
		n, err := s.c.Read(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(buf[:n]), "WATCHDOG=1") {
			t.Fatal("the dog was fed")
		}
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

func TestLog(t *testing.T) {
	say := func(format string, journal bool) string {
		var b bytes.Buffer
		log := newLog(&b, format, slog.LevelDebug, journal).With("tree", "w")
		log.Error("blocked", "path", signature.Path("a\xff\nb"), "err", errors.New("bad \xfe name"))
		log.Debug("looked")
		return b.String()
	}
	for _, tt := range []struct {
		format  string
		journal bool
		want    string
	}{
		{"text", true, `<3>level=ERROR msg=blocked tree=w path="a\xff\nb" err="bad \xfe name"` + "\n<7>level=DEBUG msg=looked tree=w\n"},
		{"json", true, `<3>{"level":"ERROR","msg":"blocked","tree":"w","path":"a\\xff\\nb","err":"bad \\xfe name"}` + "\n" + `<7>{"level":"DEBUG","msg":"looked","tree":"w"}` + "\n"},
	} {
		if got := say(tt.format, tt.journal); got != tt.want {
			t.Errorf("%s:\n%s\nwant\n%s", tt.format, got, tt.want)
		}
	}
	if got := say("text", false); !strings.HasPrefix(got, "time=") || strings.Contains(got, "<3>") {
		t.Errorf("not to the journal: %s", got)
	}
}

func TestToJournal(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}()
	var st syscall.Stat_t
	if err := syscall.Fstat(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	t.Setenv("JOURNAL_STREAM", fmt.Sprintf("%d:%d", st.Dev, st.Ino))
	if !toJournal(f) {
		t.Error("the journal's stream is not known")
	}
	t.Setenv("JOURNAL_STREAM", fmt.Sprintf("%d:%d", st.Dev, st.Ino+1))
	if toJournal(f) {
		t.Error("another stream is taken for the journal's")
	}
}

func TestLimitMemory(t *testing.T) {
	dir := t.TempDir()
	put := func(name, text string) {
		t.Helper()
		name = filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("GOMEMLIMIT", "")
	put("two", "0::/system.slice/clsync.service\n")
	put("cg/system.slice/clsync.service/memory.max", "max\n")
	put("cg/system.slice/memory.max", "1000000000\n")
	put("one", "3:cpu:/x\n5:memory:/x\n")
	put("cg/memory/x/memory.limit_in_bytes", "2000000000\n")
	put("none", "5:memory:/y\n")
	put("cg/memory/y/memory.limit_in_bytes", "9223372036854771712\n")
	for file, want := range map[string]int64{"two": 800000000, "one": 1600000000, "none": 0, "missing": 0} {
		if got := limitMemory(filepath.Join(dir, file), filepath.Join(dir, "cg")); got != want {
			t.Errorf("%s: %d, want %d", file, got, want)
		}
	}
	t.Setenv("GOMEMLIMIT", "1GiB")
	if got := limitMemory(filepath.Join(dir, "two"), filepath.Join(dir, "cg")); got != 0 {
		t.Errorf("GOMEMLIMIT is set and was overruled: %d", got)
	}
}
