package control_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/clsync/clsync/node/config"
	"github.com/clsync/clsync/node/control"
	"github.com/clsync/clsync/node/control/controltest"
)

// TestMain also plays a stranger: see ask.
func TestMain(m *testing.M) {
	if socket := os.Getenv("CONTROL_TEST_SOCKET"); socket != "" {
		os.Exit(stranger(socket))
	}
	goleak.VerifyTestMain(m)
}

// stranger tries both verbs and prints what came of it.
func stranger(socket string) int {
	c := control.NewClient(socket)
	_, read := c.Status(context.Background())
	change := c.RemoveNode(context.Background(), "b")
	for _, err := range []error{read, change} {
		switch {
		case err == nil:
			os.Stdout.WriteString("ok ")
		case errors.Is(err, control.ErrDenied):
			os.Stdout.WriteString("denied ")
		default:
			os.Stdout.WriteString(err.Error() + " ")
		}
	}
	return 0
}

// serve runs a server and returns the configuration that clients need.
func serve(t *testing.T, e control.Engine, change func(*config.Config)) *config.Config {
	t.Helper()
	dir, err := os.MkdirTemp("", "clsync") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	c := &config.Config{RunDir: filepath.Join(dir, "run")}
	if change != nil {
		change(c)
	}
	s, err := control.Listen(c, e, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return c
}

func sample() *controltest.Engine {
	now := time.Now()
	return controltest.New(controltest.Sample(now),
		[]control.Node{{ID: "01", Name: "a", Self: true}, {ID: "11", Name: "b", Connected: true, LastSeen: now}},
		[]control.Conflict{{ID: "7f", Tree: "www", Path: "caf\xe9\n/x", Object: "/srv/www/.clsync/kept/\xff"}, {ID: "80", Tree: "etc", Path: "passwd"}})
}

func client(t *testing.T, c *config.Config) *control.Client {
	cl := control.NewClient(c.Socket())
	t.Cleanup(cl.Close)
	return cl
}

func TestStatus(t *testing.T) {
	c := serve(t, sample(), nil)
	s, err := client(t, c).Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if s.Schema != control.Schema || s.Healthy || s.Node.Name != "a" {
		t.Errorf("%+v", s)
	}
	b := s.Trees[0].Blocked[0]
	if b.Path != `caf\xe9\n/x` || b.PathB64 != "Y2Fm6QoveA==" {
		t.Errorf("blocked %q %q", b.Path, b.PathB64)
	}
	if s.Refused[0].Name != `evil\x1b[2J` {
		t.Errorf("refused %q", s.Refused[0].Name)
	}
	for _, want := range []string{"Node c is not connected since 12 min", "clsync nodes remove c", "Tree etc is stopped", "no space left on device", `evil\x1b[2J`} {
		if !slices.ContainsFunc(s.Problems, func(p string) bool { return strings.Contains(p, want) }) {
			t.Errorf("no problem says %q: %q", want, s.Problems)
		}
	}
}

// TestLists: in JSON a list is a list, also when nothing is in it.
func TestLists(t *testing.T) {
	c := serve(t, controltest.New(control.Status{Trees: []control.Tree{{Name: "w", State: control.Running}}}, nil, nil), nil)
	h := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", c.Socket())
	}}}
	for _, path := range []string{"/v1/status", "/v1/nodes", "/v1/conflicts", "/healthz", "/readyz"} {
		resp, err := h.Get("http://x" + path)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(resp.Body)
		if err := errors.Join(err, resp.Body.Close()); err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != http.StatusOK || !json.Valid(text) || strings.Contains(string(text), "null") {
			t.Errorf("%s: %s %s", path, resp.Status, text)
		}
	}
	s, err := client(t, c).Status(t.Context())
	if err != nil || !s.Healthy {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestConflictsAndNodes(t *testing.T) {
	e := sample()
	cl := client(t, serve(t, e, nil))
	all, err := cl.Conflicts(t.Context(), "")
	if err != nil || len(all) != 2 {
		t.Fatalf("%v, %v", all, err)
	}
	path, err := all[0].RawPath()
	object, err2 := all[0].ObjectPath()
	if err != nil || err2 != nil || path != "caf\xe9\n/x" || object != "/srv/www/.clsync/kept/\xff" {
		t.Errorf("%q %q %v %v", path, object, err, err2)
	}
	if one, err := cl.Conflicts(t.Context(), "etc"); err != nil || len(one) != 1 || one[0].ID != "80" {
		t.Errorf("%v, %v", one, err)
	}
	if err := cl.Restore(t.Context(), "www", "7f", "new\xff\nname"); err != nil {
		t.Error(err)
	}
	if err := cl.RemoveNode(t.Context(), "zz"); !errors.Is(err, control.ErrNotFound) {
		t.Error(err)
	}
	if err := cl.RemoveNode(t.Context(), "a"); !errors.Is(err, control.ErrRefused) {
		t.Error(err)
	}
	if err := cl.RemoveNode(t.Context(), "b"); err != nil {
		t.Error(err)
	}
	if want := []string{`restore www 7f "new\xff\nname"`, "remove b"}; !slices.Equal(e.Asked(), want) {
		t.Errorf("asked %q", e.Asked())
	}
}

// TestCredentials: a process of another user asks, with and without the group.
func TestCredentials(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to be somebody else")
	}
	const group, other = 54321, 54322
	tests := []struct {
		name      string
		operators string
		uid, gid  uint32
		groups    []uint32
		open      bool // the socket's mode is opened, so that only the check is left
		want      string
	}{
		{"root", "", 0, 0, nil, false, "ok ok"},
		{"nobody, by mode", "", other, other, nil, false, "denied denied"},
		{"nobody, by credentials", "", other, other, nil, true, "denied denied"},
		{"operator by first group", "54321", other, group, nil, false, "ok denied"},
		{"operator by other group", "54321", other, other, []uint32{1, 2, group}, false, "ok denied"},
		{"in no such group", "54321", other, other, []uint32{1, 2}, true, "denied denied"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := serve(t, sample(), func(c *config.Config) { c.Operators = tt.operators })
			mode := os.FileMode(0o755)
			if err := os.Chmod(filepath.Dir(c.RunDir), mode); err != nil {
				t.Fatal(err)
			}
			if tt.open {
				if err := errors.Join(os.Chmod(c.RunDir, 0o755), os.Chmod(c.Socket(), 0o666)); err != nil {
					t.Fatal(err)
				}
			}
			cmd := exec.Command(copyOfTest(t))
			cmd.Env = []string{"CONTROL_TEST_SOCKET=" + c.Socket()}
			cmd.SysProcAttr = as(tt.uid, tt.gid, tt.groups)
			cmd.Stderr = os.Stderr
			out, err := cmd.Output()
			if got := strings.TrimSpace(string(out)); err != nil || got != tt.want {
				t.Errorf("got %q, %v, want %q", got, err, tt.want)
			}
		})
	}
}

func TestSocketMode(t *testing.T) {
	for operators, want := range map[string]os.FileMode{"": 0o600, "0": 0o660} {
		c := serve(t, sample(), func(c *config.Config) { c.Operators = operators })
		st, err := os.Stat(c.Socket())
		if err != nil || st.Mode().Perm() != want {
			t.Errorf("operators %q: mode %v, %v", operators, st.Mode(), err)
		}
	}
}

func TestUnreachable(t *testing.T) {
	dir := t.TempDir()
	cl := control.NewClient(filepath.Join(dir, "s"))
	if _, err := cl.Status(t.Context()); !errors.Is(err, control.ErrUnreachable) {
		t.Error(err)
	}
}

func TestSecondDaemon(t *testing.T) {
	c := serve(t, sample(), nil)
	_, err := control.Listen(c, sample(), slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), "another clsync answers") {
		t.Error(err)
	}
}

// TestStaleSocket: what a killed daemon left behind is replaced; what is no socket
// is not.
func TestStaleSocket(t *testing.T) {
	serve(t, sample(), func(c *config.Config) {
		if err := os.MkdirAll(c.RunDir, 0o755); err != nil {
			t.Fatal(err)
		}
		u, err := net.ListenUnix("unix", &net.UnixAddr{Name: c.Socket(), Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		u.SetUnlinkOnClose(false)
		if err := u.Close(); err != nil {
			t.Fatal(err)
		}
	})
	c := &config.Config{RunDir: t.TempDir()}
	if err := os.WriteFile(c.Socket(), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := control.Listen(c, sample(), slog.New(slog.DiscardHandler)); err == nil {
		t.Error("a file was taken for a stale socket")
	}
}

func TestMetrics(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	serve(t, sample(), func(c *config.Config) { c.Metrics = addr })
	h := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := h.Get("http://" + addr + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"clsync_up 1", `clsync_versions_made_total{tree="www"} 42`, `clsync_sent_bytes_total{tree="www"} 1.073741824e+09`,
		`clsync_peer_lag_records{peer="c",tree="www"} 17`, `clsync_tree_running{tree="etc"} 0`, `clsync_peer_connected{peer="b"} 1`, "go_goroutines",
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
	// Nothing but metrics on a network address.
	for _, path := range []string{"/v1/status", "/v1/nodes", "/healthz"} {
		resp, err := h.Get("http://" + addr + path)
		if err != nil {
			t.Fatal(err)
		}
		if err := resp.Body.Close(); err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != http.StatusNotFound {
			t.Errorf("%s over TCP: %s", path, resp.Status)
		}
	}
}

func TestEscape(t *testing.T) {
	for in, want := range map[string]string{
		"plain": "plain", "a b": "a b", "é": "é", "a\nb": `a\nb`, "\xff": `\xff`, `a"b\`: `a\"b\\`, "\u202e": `\u202e`, "\x1b[2J": `\x1b[2J`,
	} {
		if got := control.Escape(in); got != want {
			t.Errorf("Escape(%q) = %s", in, got)
		}
		if back, err := control.Unescape(want); err != nil || back != in {
			t.Errorf("Unescape(%s) = %q, %v", want, back, err)
		}
	}
}
