package rsync

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clsync/clsync/signature"
)

// spy runs in the jail in rsync's place and tells, a line each, what it could do.
func spy(tree, outside string) int {
	say := func(what string, err error) {
		if err != nil {
			var errno unix.Errno
			if errors.As(err, &errno) {
				fmt.Printf("%s: %s\n", what, unix.ErrnoName(errno))
			} else {
				fmt.Printf("%s: %v\n", what, err)
			}
			return
		}
		fmt.Printf("%s: done\n", what)
	}
	fmt.Printf("pid: %d\n", os.Getpid())
	wd, _ := os.Getwd()
	fmt.Printf("in: %s\n", strings.TrimPrefix(wd, tree))
	names := func(dir string) (ns []string) {
		es, _ := os.ReadDir(dir)
		for _, e := range es {
			ns = append(ns, e.Name())
		}
		return ns
	}
	fmt.Printf("root: %s\n", strings.Join(names("/"), " "))
	fmt.Printf("tree: %s\n", strings.Join(names(tree), " "))
	for _, p := range []string{"/etc/passwd", "/proc/self/status", "/dev/null", outside + "/secret", "to-passwd", "to-outside/secret", tree + "/live"} {
		_, err := os.ReadFile(p)
		say("read "+strings.TrimPrefix(strings.Replace(p, outside, "outside", 1), tree), err)
	}
	for _, p := range []string{"/new", tree + "/new", tree + "/live", "/usr/lib/new", outside + "/new", "to-outside/new", "../../../new", "staged"} {
		err := os.WriteFile(p, []byte("x"), 0o600)
		say("write "+strings.TrimPrefix(strings.Replace(p, outside, "outside", 1), tree), err)
	}
	say("chmod /live", os.Chmod(tree+"/live", 0o777))
	say("chown staged", os.Chown("staged", 1, 1))
	say("mknod", unix.Mknod("disk", unix.S_IFBLK|0o600, int(unix.Mkdev(254, 0))))
	_, err := os.ReadFile("disk")
	say("read disk", err)
	say("mount", unix.Mount("tmpfs", ".", "tmpfs", 0, ""))
	say("remount", unix.Mount("", tree, "", unix.MS_REMOUNT|unix.MS_BIND, ""))
	say("unmount", unix.Unmount(wd, unix.MNT_DETACH))
	say("chroot", unix.Chroot("."))
	say("unshare", unix.Unshare(unix.CLONE_NEWNS))
	say("setuid", unix.Setresuid(1000, 1000, 1000))
	say("trusted", unix.Setxattr("staged", "trusted.x", []byte("y"), 0))
	start := func(path string) error {
		p, err := os.StartProcess(path, []string{path}, &os.ProcAttr{})
		if err == nil {
			_, err = p.Wait()
		}
		return err
	}
	say("run shell", start("/bin/sh"))
	say("make program", os.WriteFile("prog", []byte("#!rsync"), 0o755))
	say("run staged", start("./prog"))
	ifs, _ := net.Interfaces()
	for _, i := range ifs {
		fmt.Printf("interface: %s %v\n", i.Name, i.Flags&net.FlagUp != 0)
	}
	var open []string
	for fd := 3; fd < 100; fd++ {
		var st unix.Stat_t
		if unix.Fstat(fd, &st) == nil && (st.Mode&unix.S_IFMT == unix.S_IFDIR || st.Mode&unix.S_IFMT == unix.S_IFREG) {
			open = append(open, fmt.Sprint(fd))
		}
	}
	fmt.Printf("open: %s\n", strings.Join(open, " "))
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	say("capget", unix.Capget(&hdr, &data[0]))
	fmt.Printf("caps: %x %x %x\n", data[0].Effective, data[0].Permitted, data[0].Inheritable|data[1].Effective|data[1].Permitted)
	var bounding uint64
	for c := range 64 {
		if v, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(c), 0, 0, 0); err == nil && v == 1 {
			bounding |= 1 << c
		}
	}
	nnp, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
	fmt.Printf("bounding: %x nnp: %d %v\n", bounding, nnp, err)
	var as, nofile, core unix.Rlimit
	say("limits", errors.Join(unix.Getrlimit(unix.RLIMIT_AS, &as), unix.Prlimit(0, unix.RLIMIT_NOFILE, nil, &nofile), unix.Getrlimit(unix.RLIMIT_CORE, &core)))
	fmt.Printf("as: %d nofile: %d core: %d\n", as.Max, nofile.Max, core.Max)
	return 0
}

func spyOn(t *testing.T, lane Lane) map[string]string {
	t.Helper()
	needRoot(t)
	r := newRun(t, lane)
	outside := t.TempDir()
	write(t, outside+"/secret", "s")
	write(t, r.tree+"/live", "l")
	for name, to := range map[string]string{"to-passwd": "/etc/passwd", "to-outside": outside} {
		if err := os.Symlink(to, filepath.Join(r.staging, name)); err != nil {
			t.Fatal(err)
		}
	}
	r.recv.Binary = fakeRsync(t, "spy")
	tree, staging, err := r.recv.open()
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	defer staging.Close()
	cmd, files, err := jailCommandFor(r.recv, tree, staging, []string{r.tree, outside})
	defer closeAll(files)
	if err != nil {
		t.Fatal(err)
	}
	pr, pw, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer pr.Close()
	cmd.Stdout, cmd.Env = pw, environment()
	p, err := launch(cmd)
	pw.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer p.end()
	out, err := io.ReadAll(pr)
	if err != nil {
		t.Fatal(err)
	}
	<-p.done
	if p.code() != 0 {
		t.Fatalf("ended with %d: %s\n%s", p.code(), p.tail.String(), out)
	}
	t.Logf("%s", out)
	said := map[string]string{}
	for line := range strings.Lines(string(out)) {
		k, v, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		said[k] = v
	}
	if read(t, r.tree+"/live") != "l" {
		t.Error("the live file was written")
	}
	if _, err := os.Stat(outside + "/new"); err == nil {
		t.Error("written outside")
	}
	return said
}

func TestJailHasNothingElse(t *testing.T) {
	for _, lane := range []Lane{Small, LargeCompare} {
		t.Run(lane.String(), func(t *testing.T) {
			said := spyOn(t, lane)
			want := map[string]string{
				"pid": "1", "in": "/.clsync/staging/b17",
				"read /etc/passwd": "ENOENT", "read /proc/self/status": "ENOENT", "read /dev/null": "ENOENT",
				"read outside/secret": "ENOENT", "read to-passwd": "ENOENT", "read to-outside/secret": "ENOENT",
				"write /new": "EROFS", "write /usr/lib/new": "EROFS", "write outside/new": "ENOENT",
				"write to-outside/new": "ENOENT", "write ../../../new": "EROFS", "write staged": "done",
				"chown staged": "done", "mknod": "done", "read disk": "EACCES",
				"mount": "EPERM", "remount": "EPERM", "unmount": "EPERM", "chroot": "EPERM", "unshare": "EPERM",
				"setuid": "EPERM", "trusted": "EPERM", "run staged": "EACCES",
				"run shell": "ENOENT", "make program": "done", "interface": "lo false", "open": "",
				"caps": "8800001b 8800001b 0", "bounding": "8800001b nnp: 1 <nil>",
				"as": fmt.Sprintf("%d nofile: %d core: 0", DefaultMemory, DefaultDescriptors),
			}
			if lane == Small {
				want["tree"] = signature.Private
				want["read /live"] = "ENOENT"
				want["write /live"] = "EROFS"
			} else {
				want["tree"] = signature.Private + " live"
				want["read /live"] = "done"
				want["write /live"] = "EROFS"
				want["chmod /live"] = "EROFS"
			}
			for k, w := range want {
				if g, ok := said[k]; g != w || !ok {
					t.Errorf("%s: %q, want %q", k, g, w)
				}
			}
			for _, n := range strings.Fields(said["root"]) {
				if !slices.Contains([]string{"etc", "lib", "lib32", "lib64", "usr", "tmp"}, n) {
					t.Errorf("/%s is there", n)
				}
			}
		})
	}
}

// A link that somebody planted in staging leads rsync nowhere.
func TestPlantedLinkInStaging(t *testing.T) {
	modes(t, func(t *testing.T, mode JailMode) {
		for _, lane := range []Lane{Small, LargeReflink, LargeCompare} {
			r := newRun(t, lane)
			r.recv.Jail = mode
			outside := t.TempDir()
			write(t, outside+"/victim", "victim")
			r.write("d/victim", "changed")
			r.write("victim", "changed")
			if err := os.Symlink(outside, r.staging+"/d"); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(outside+"/victim", r.staging+"/victim"); err != nil {
				t.Fatal(err)
			}
			e := r.do(t.Context())
			if got := read(t, outside+"/victim"); got != "victim" {
				t.Errorf("%s: written outside: %q (%v, %v)", lane, got, e.gotErr, e.sendErr)
			}
			es, err := os.ReadDir(outside)
			if err != nil || len(es) != 1 {
				t.Errorf("%s: %v, %v", lane, es, err)
			}
		}
	})
}

func TestResolveJail(t *testing.T) {
	bin := needRsync(t)
	jailer := helper(self(t), "jail")
	if m, err := ResolveJail(t.Context(), Off, bin, nil, "", nil); m != Off || err != nil {
		t.Error(m, err)
	}
	if m, err := ResolveJail(t.Context(), Auto, bin, []string{"/bin/false"}, t.TempDir(), nil); m != Off || err != nil {
		t.Error("a jail that cannot be is not given up:", m, err)
	}
	if _, err := ResolveJail(t.Context(), Require, bin, []string{"/bin/false"}, t.TempDir(), nil); !errors.Is(err, ErrJail) {
		t.Error(err)
	}
	needRoot(t)
	if m, err := ResolveJail(t.Context(), Auto, bin, jailer, t.TempDir(), nil); m != Require || err != nil {
		t.Error(m, err)
	}
}

func TestBrokenJailIsReported(t *testing.T) {
	needRoot(t)
	r := newRun(t, Small)
	r.write("a", "x")
	r.recv.Jail = Require
	r.recv.Binary = filepath.Join(t.TempDir(), "rsync") // there, but no program
	write(t, r.recv.Binary, "no program")
	e := r.do(t.Context())
	if !errors.Is(e.gotErr, ErrJail) || e.got.Code != jailFailed {
		t.Errorf("%v, %+v", e.gotErr, e.got)
	}
	if !errors.Is(e.sendErr, ErrBatch) || errors.Is(e.sendErr, ErrJail) {
		t.Errorf("the sender is told %v", e.sendErr)
	}
	r.nobodyIsLeft()
}

// The mounts of a jail die with it: the file system is free at once.
func TestJailKeepsNoFileSystemBusy(t *testing.T) {
	needRoot(t)
	img := filepath.Join(t.TempDir(), "img")
	write(t, img, "")
	if err := os.Truncate(img, 16<<20); err != nil {
		t.Fatal(err)
	}
	mnt := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	command := func(name string, args ...string) (string, error) {
		out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
		return string(out), err
	}
	if out, err := command("mkfs.ext4", "-q", img); err != nil {
		t.Skip("needs mkfs.ext4:", err, out)
	}
	for _, lane := range []Lane{Small, LargeCompare, Small, LargeCompare} {
		if out, err := command("mount", "-o", "loop", img, mnt); err != nil {
			t.Skip("needs loop devices:", err, out)
		}
		r := newRun(t, lane)
		r.recv.Jail, r.tree, r.staging = Require, mnt, mnt+"/.clsync/staging/b17"
		r.recv.TreeRoot, r.recv.StagingDir = r.tree, r.staging
		if err := os.MkdirAll(r.staging, 0o700); err != nil {
			t.Fatal(err)
		}
		r.write("a", "x")
		r.must()
		if err := unix.Unmount(mnt, 0); err != nil {
			t.Fatal("unmount:", err)
		}
		// A device still in use refuses an exclusive open; a loop device detaches itself.
		until(t, "loop device is free", func() bool {
			out, err := command("losetup", "-j", img)
			return err == nil && out == ""
		})
	}
}

func benchmark(b *testing.B, mode JailMode, files int) {
	r := newRun(b, Small)
	if mode == Require {
		needRoot(b)
	}
	r.transport = "tcp"
	r.recv.Jail = mode
	for i := range files {
		r.write(fmt.Sprint("f", i), "content")
	}
	var got, sent time.Duration
	early := 0
	for b.Loop() {
		e := r.do(b.Context())
		if e.gotErr != nil || e.sendErr != nil {
			b.Fatal(e.gotErr, e.sendErr)
		}
		got, sent = got+e.got.Took, sent+e.sent.Took
		if e.got.Early {
			early++
		}
	}
	b.ReportMetric(float64(got.Microseconds())/1000/float64(b.N), "ms-received")
	b.ReportMetric(float64(sent.Microseconds())/1000/float64(b.N), "ms-sent")
	b.ReportMetric(float64(early)/float64(b.N), "early")
}

func BenchmarkPlain1(b *testing.B)    { benchmark(b, Off, 1) }
func BenchmarkJail1(b *testing.B)     { benchmark(b, Require, 1) }
func BenchmarkPlain1000(b *testing.B) { benchmark(b, Off, 1000) }
func BenchmarkJail1000(b *testing.B)  { benchmark(b, Require, 1000) }
