package cluster

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { Main(m) }

// reach tells whether b can be reached from a.
func reach(nw *Network, a, b int) error {
	return nw.Do(a, func() error {
		conn, err := net.DialTimeout("tcp4", nw.Addr(b)+":7000", 300*time.Millisecond)
		if err != nil {
			return err
		}
		return conn.Close()
	})
}

func TestPartitionAndHeal(t *testing.T) {
	Need(t)
	nw, err := NewNetwork(3)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := nw.Close(); err != nil {
			t.Error(err)
		}
		if left, _ := filepath.Glob(strings.TrimSuffix(nw.Namespace(0), "1") + "*"); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	}()
	for i := range 3 {
		if err := nw.Do(i, func() error {
			l, err := net.Listen("tcp4", nw.Addr(i)+":7000")
			t.Cleanup(func() { _ = l.Close() })
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	all := func(want map[[2]int]bool) {
		t.Helper()
		for a := range 3 {
			for b := range 3 {
				if a == b {
					continue
				}
				ok := want == nil || want[[2]int{min(a, b), max(a, b)}]
				err := reach(nw, a, b)
				// A link that comes up is noticed within a second.
				for deadline := time.Now().Add(3 * time.Second); ok && err != nil && time.Now().Before(deadline); {
					err = reach(nw, a, b)
				}
				if (err == nil) != ok {
					t.Errorf("%d to %d: %v, want reachable: %v", a, b, err, ok)
				}
			}
		}
	}
	steps := []struct {
		do   func() error
		want map[[2]int]bool // nil: everybody
	}{
		{func() error { return nil }, nil},
		{func() error { return nw.Partition([]int{0, 1}, []int{2}) }, map[[2]int]bool{{0, 1}: true}},
		{func() error { return nw.Partition([]int{0}, []int{1, 2}) }, map[[2]int]bool{{1, 2}: true}},
		{func() error { return nw.Heal() }, nil},
		{func() error { return nw.Unplug(1) }, map[[2]int]bool{{0, 2}: true}},
		{func() error { return nw.Heal() }, nil},
	}
	for _, s := range steps {
		if err := s.do(); err != nil {
			t.Fatal(err)
		}
		all(s.want)
	}
}

// TestMulticastCrossesTheSwitch sends what a beacon is.
func TestMulticastCrossesTheSwitch(t *testing.T) {
	Need(t)
	nw, err := NewNetwork(2)
	if err != nil {
		t.Fatal(err)
	}
	defer nw.Close()
	group := &net.UDPAddr{IP: net.IPv4(239, 255, 73, 70), Port: 7372}
	var in *net.UDPConn
	if err := nw.Do(1, func() error {
		eth, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		in, err = net.ListenMulticastUDP("udp4", eth, group)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	// A beacon is sent again and again: the switch may not forward yet.
	buf := make([]byte, 100)
	for end := time.Now().Add(10 * time.Second); ; {
		if err := nw.Do(0, func() error { return sendBy(group) }); err != nil {
			t.Fatal(err)
		}
		if err := in.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		n, err := in.Read(buf)
		if err == nil && string(buf[:n]) == "hello" {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("received %q, %v", buf[:n], err)
		}
	}
}

// sendBy names its interface, as clsync does: there is no route to the group.
func sendBy(group *net.UDPAddr) error {
	eth, err := net.InterfaceByName("eth0")
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptIPMreqn(fd, unix.IPPROTO_IP, unix.IP_MULTICAST_IF, &unix.IPMreqn{Ifindex: int32(eth.Index)}); err != nil {
		return err
	}
	return unix.Sendto(fd, []byte("hello"), 0, &unix.SockaddrInet4{Port: group.Port, Addr: [4]byte(group.IP.To4())})
}

// TestDisks mounts every kind, loses it and gets it back.
func TestDisks(t *testing.T) {
	for _, kind := range []FS{Tmpfs, Ext4, XFS} {
		t.Run(string(kind), func(t *testing.T) {
			Need(t, kind.tools()...)
			path := filepath.Join(t.TempDir(), "fs")
			d, err := NewDisk(kind, path, 320<<20)
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := d.Unmount(); err != nil {
					t.Error(err)
				}
			}()
			if names, err := os.ReadDir(path); err != nil || len(names) > 0 {
				t.Errorf("a new disk holds %v, %v", names, err)
			}
			file := filepath.Join(path, "file")
			if err := os.WriteFile(file, []byte("x"), 0o644); err != nil {
				t.Fatal(err)
			}
			if err := d.Unmount(); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Lstat(file); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("unmounted, the file shows: %v", err)
			}
			if err := d.Mount(); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Lstat(file); (err == nil) != (kind != Tmpfs) {
				t.Errorf("mounted again, the file shows: %v", err)
			}
		})
	}
}

// TestTheSandboxHidesWhatItMounts shows that nothing done here can be left on
// the machine: process 1 is our own, and /run/netns is not the machine's.
func TestTheSandboxHidesWhatItMounts(t *testing.T) {
	Need(t)
	init, err := os.Readlink("/proc/1/exe")
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Readlink("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if init != self {
		t.Errorf("process 1 is %s, want %s", init, self)
	}
	var st unix.Statfs_t
	if err := unix.Statfs("/run/netns", &st); err != nil || st.Type != unix.TMPFS_MAGIC {
		t.Errorf("/run/netns is of type %x, %v", st.Type, err)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, " / / ") && strings.Contains(line, "shared:") {
			t.Errorf("the root is shared: %s", line)
		}
	}
}

func TestReapTakesTheOldOnly(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	young, old := filepath.Join(os.TempDir(), prefix+"young"), filepath.Join(os.TempDir(), prefix+"old")
	other := filepath.Join(os.TempDir(), "other")
	long := time.Now().Add(-2 * time.Hour)
	for _, dir := range []string{young, old, other} {
		if err := errors.Join(os.MkdirAll(filepath.Join(dir, "x"), 0o755), os.Chtimes(dir, long, long)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chtimes(young, time.Now(), time.Now()); err != nil {
		t.Fatal(err)
	}
	reap()
	for dir, want := range map[string]bool{young: true, old: false, other: true} {
		if _, err := os.Lstat(dir); (err == nil) != want {
			t.Errorf("%s: %v, want it there: %v", dir, err, want)
		}
	}
}

func TestSinceAndSum(t *testing.T) {
	before := map[string]Counters{"a": {"x": 3, "y": 1}}
	after := map[string]Counters{"a": {"x": 5, "y": 1}, "b": {"x": 2}}
	got := Since(before, after)
	if want := "map[a:map[x:2] b:map[x:2]]"; fmt.Sprint(got) != want {
		t.Errorf("Since = %v, want %s", got, want)
	}
	if s := Sum(got, "x"); s != 4 {
		t.Errorf("Sum = %d, want 4", s)
	}
}
