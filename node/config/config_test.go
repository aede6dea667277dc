package config

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const full = `
name = "a"
cluster = "office"
key_file = "/etc/clsync/office.key"
state_dir = "/var/lib/clsync"
run_dir = "/run/clsync"
listen = "192.0.2.1:7370"
advertise = "a.example:7370"
rsync = "/usr/local/bin/rsync"
jail = "require"
metrics = "127.0.0.1:7379"
log_format = "json"
log_level = "debug"
operators = "0"

[gossip]
listen = "[::]:7371"
seeds = ["192.0.2.2", "b.example:99", "2001:db8::1", "[2001:db8::2]"]
cidrs = ["192.0.2.0/24"]
fast = true

[multicast]
enabled = false
group = "239.1.2.3:99"
interfaces = ["eth0"]

[[tree]]
name = "www"
path = "/srv/www"
monitor = "fsnotify"
ignore = ["*.tmp"]
only = ["site"]
delay = "250ms"
big_size = "1GiB"
big_delay = "1m"
receive_only = true
scan_interval = "1h"
selinux = true

[[tree]]
name = "etc"
path = "/srv/etc"
`

func TestFull(t *testing.T) {
	c, err := Parse("f", full)
	if err != nil {
		t.Fatal(err)
	}
	if c.Name != "a" || c.Jail != JailRequire || c.LogLevel != slog.LevelDebug || !c.Gossip.Fast || c.Multicast.Enabled {
		t.Errorf("%+v", c)
	}
	if want := []string{"192.0.2.2:7371", "b.example:99", "[2001:db8::1]:7371", "[2001:db8::2]:7371"}; !slices.Equal(c.Gossip.Seeds, want) {
		t.Errorf("seeds %q", c.Gossip.Seeds)
	}
	w := c.Trees[0]
	if time.Duration(w.Delay) != 250*time.Millisecond || w.BigSize != 1<<30 || !w.ReceiveOnly || !w.SELinux || !w.Rules.Ignored("x.tmp", false) || w.Rules.Ignored("site/x", false) {
		t.Errorf("%+v", w)
	}
	e := c.Trees[1]
	if e.Monitor != MonitorAuto || e.BigSize != 128<<20 || time.Duration(e.BigDelay) != 10*time.Second || time.Duration(e.ScanInterval) != 10*time.Minute || e.Delay != 0 || e.Rules == nil {
		t.Errorf("defaults: %+v", e)
	}
	if c.Socket() != "/run/clsync/control.sock" {
		t.Error(c.Socket())
	}
}

func TestDefaults(t *testing.T) {
	c, err := Parse("f", `name = "a"`)
	if err != nil {
		t.Fatal(err)
	}
	if c.Cluster != "clsync" || c.Listen != "[::]:7370" || c.Gossip.Listen != ":7371" || !c.Multicast.Enabled || c.Multicast.Group != "239.255.73.70:7372" || c.Jail != JailAuto || c.LogLevel != slog.LevelInfo || c.LogFormat != "text" || c.Rsync != "rsync" || c.KeyFile != "/etc/clsync/cluster.key" {
		t.Errorf("%+v", c)
	}
}

func TestSystemdFolders(t *testing.T) {
	t.Setenv("STATE_DIRECTORY", "/s/one:/s/two")
	t.Setenv("RUNTIME_DIRECTORY", "/r")
	c, err := Parse("f", `name = "a"`)
	if err != nil || c.StateDir != "/s/one" || c.RunDir != "/r" {
		t.Errorf("%+v, %v", c, err)
	}
	c, err = Parse("f", "name = \"a\"\nstate_dir = \"/mine\"")
	if err != nil || c.StateDir != "/mine" {
		t.Errorf("the file does not go before the environment: %+v, %v", c, err)
	}
}

// TestErrors: each wrong file with all that must be said about it.
func TestErrors(t *testing.T) {
	const tree = "[[tree]]\nname = \"w\"\npath = \"/w\"\n"
	tests := []struct{ name, text, want string }{
		{"syntax", "name = \"a\"\nlisten = = 3\n", "f:2: expected value but found '=' instead"},
		{"twice", "name = \"a\"\nname = \"b\"\n", "f:2: Key 'name' has already been defined."},
		{"misspelt", "nmae = \"a\"\n", `f:1: unknown key "nmae"; did you mean "name"?`},
		{"misspelt in a tree", tree + "\n# a comment\ningore = []\n", `f:6: unknown key "ingore" in [[tree]]; did you mean "ignore"?`},
		{"in the second tree", tree + "[[tree]]\nname = \"v\"\npath = \"/v\"\nbigsize = 3", `f:7: unknown key "bigsize" in [[tree]]; did you mean "big_size"?`},
		{"misspelt table", "[gosip]\nseeds = []\n", `f:1: unknown key "gosip"; did you mean "gossip"?`},
		{"elsewhere", "seeds = []\n", `f:1: unknown key "seeds"; it belongs in [gossip]`},
		{"tree's key at the top", "scan_interval = \"1m\"\n", `f:1: unknown key "scan_interval"; it belongs in [[tree]]`},
		{"top's key in a table", "[gossip]\nlog_format = \"text\"\n", `f:2: unknown key "log_format" in [gossip]; it belongs at the top, before the first table`},
		{"far from all", "zzzzzzzz = 1", `f:1: unknown key "zzzzzzzz"`},
		{"all at once", "listen = 5\njail = \"of\"\n" + tree + "delay = \"soon\"\nonly = \"x\"\n",
			`f:1: listen: want a string in quotes, not 5
f:2: jail: "of" is none of "auto", "off", "require"; did you mean "off"?
f:6: delay: want a duration such as "250ms", "10s", "5m", "1h30m" or "30d"
f:7: only: want a list such as ["a", "b"], not x`},
		{"one tree only", "[tree]\nname = \"a\"\n", "f:1: tree may come more than once: write [[tree]] on a line of its own"},
		{"no table", "gossip = 3", "f:1: gossip is a table: write [gossip] on a line of its own"},
		{"missing path", "\n[[tree]]\nname = \"w\"", "f:2: path: missing"},
		{"relative path", "[[tree]]\nname = \"w\"\npath = \"srv\"", `f:3: path: "srv" is not absolute`},
		{"unclean path", "[[tree]]\nname = \"w\"\npath = \"/srv/../x/\"", `f:3: path: "/srv/../x/": write "/x"`},
		{"bad pattern", tree + "ignore = [\"ok\", \"[z-a]\"]", `f:4: ignore: pattern "[z-a]": the range 'z'-'a' is empty`},
		{"bad only", tree + "only = [\n  \"!x\",\n]", `f:4: only: pattern "!x": an exception belongs in ignore`},
		{"same name", tree + "[[tree]]\nname = \"w\"\npath = \"/v\"", `f:5: name: there are two trees "w"`},
		{"nested", tree + "[[tree]]\nname = \"v\"\npath = \"/w/v\"", `f:6: path: "/w/v" and "/w" of tree "w" lie within each other`},
		{"key in a tree", "[[tree]]\nname = \"e\"\npath = \"/etc\"", `f:3: path: key_file ("/etc/clsync/cluster.key") lies in the tree and must never be replicated: ignore it, or move it`},
		{"public metrics", `metrics = "0.0.0.0:80"`, `f:1: metrics: "0.0.0.0:80" is not a loopback address: metrics are not encrypted and ask for no password`},
		{"unicast", "[multicast]\ngroup = \"10.0.0.1:5\"", `f:2: group: "10.0.0.1:5" is not an IPv4 multicast group with its port`},
		{"cidr", "[gossip]\ncidrs = [\"10.0.0.1/8\"]", `f:2: cidrs: "10.0.0.1/8" has bits beyond its length; write "10.0.0.0/8"`},
		{"seed", "[gossip]\nseeds = [\"a:b\"]", `f:2: seeds: "a:b": the port is not a number up to 65535`},
		{"advertise", `advertise = "0.0.0.0:7370"`, `f:1: advertise: "0.0.0.0:7370" is nothing that a peer could dial`},
		{"listen", `listen = "a.example:7370"`, `f:1: listen: "a.example:7370": "a.example" is not an address of this machine`},
		{"rsync", `rsync = "bin/rsync"`, `f:1: rsync: "bin/rsync" is neither a plain name nor an absolute path`},
		{"name", `name = "-a"`, `f:1: name: "-a": use letters, digits, and inside also . _ -`},
		{"group", `operators = "no-such-group"`, `f:1: operators: no group "no-such-group" on this machine`},
		{"level", `log_level = "debgu"`, `f:1: log_level: "debgu" is none of "debug", "info", "warn", "error"; did you mean "debug"?`},
		{"bool", tree + `receive_only = "yes"`, `f:4: receive_only: want true or false`},
		{"size", tree + `big_size = "big"`, `f:4: big_size: want a size such as "512KiB", "128MiB" or "1.5GB"`},
		{"never", tree + `scan_interval = "0s"`, `f:4: scan_interval: 0s is not between 1s and 720h`},
		{"socket", `run_dir = "/` + strings.Repeat("x", 100) + `"`, "f:1: run_dir: the socket's path would have 114 bytes; Linux takes 107"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Parse("f", tt.text)
			var errs Errors
			if !errors.As(err, &errs) {
				t.Fatalf("got %v", err)
			}
			if diff := cmp.Diff(tt.want, err.Error()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestKeyLeftOut: /etc can be a tree if the rules leave the key out.
func TestKeyLeftOut(t *testing.T) {
	for _, rules := range []string{`only = ["passwd", "shadow"]`, `ignore = ["/clsync/"]`, `ignore = ["*.key"]`} {
		if _, err := Parse("f", "[[tree]]\nname = \"e\"\npath = \"/etc\"\n"+rules); err != nil {
			t.Errorf("%s: %v", rules, err)
		}
	}
}

func TestLoadMissing(t *testing.T) {
	_, err := Load(filepath.Join(t.TempDir(), "none"))
	if !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

func TestUnits(t *testing.T) {
	for in, want := range map[string]string{"0s": "0s", "10s": "10s", "5m": "5m", "1h30m": "1h30m", "30d": "720h", "250ms": "250ms", "60m": "1h"} {
		if d, err := ParseDuration(in); err != nil || d.String() != want {
			t.Errorf("ParseDuration(%q) = %s, %v", in, d, err)
		}
	}
	for in, want := range map[string]Size{"0": 0, "512": 512, "64KiB": 64 << 10, "128 MiB": 128 << 20, "1.5GB": 1.5e9, "2B": 2} {
		if s, err := ParseSize(in); err != nil || s != want {
			t.Errorf("ParseSize(%q) = %d, %v", in, s, err)
		}
	}
	for _, bad := range []string{"", "B", "-1", "nan", "inf", "1e3", "0x10", "1.2.3", "99999999TiB"} {
		if s, err := ParseSize(bad); err == nil {
			t.Errorf("ParseSize(%q) = %d", bad, s)
		}
	}
	for _, s := range []Size{0, 1, 1023, 1 << 10, 128 << 20, 3 << 30} {
		if back, err := ParseSize(s.String()); err != nil || back != s {
			t.Errorf("%d is written %s and read %d, %v", s, s, back, err)
		}
	}
}

func TestDiff(t *testing.T) {
	before, err := Parse("f", full)
	if err != nil {
		t.Fatal(err)
	}
	if d := Diff(before, before); !d.None() {
		t.Errorf("nothing changed: %+v", d)
	}
	text := strings.NewReplacer(
		`log_level = "debug"`, `log_level = "warn"`,
		`listen = "192.0.2.1:7370"`, `listen = "192.0.2.9:7370"`,
		`ignore = ["*.tmp"]`, `ignore = ["*.bak"]`,
		`"/srv/www"`, `"/srv/new"`,
		`name = "etc"`, `name = "spool"`,
		`fast = true`, `fast = false`,
		`seeds = ["192.0.2.2",`, `seeds = [`,
	).Replace(full)
	now, err := Parse("f", text)
	if err != nil {
		t.Fatal(err)
	}
	want := Changes{
		Live:    []string{"log_level", "gossip.seeds", "tree www: ignore"},
		Restart: []string{"listen", "gossip.fast", "tree www: path"},
		Added:   []string{"spool"},
		Removed: []string{"etc"},
	}
	if diff := cmp.Diff(want, Diff(before, now)); diff != "" {
		t.Error(diff)
	}
	e := Effective(before, now)
	if e.Listen != before.Listen || e.LogLevel != slog.LevelWarn || e.Trees[0].Path != "/srv/www" || !e.Trees[0].Rules.Ignored("x.bak", false) || e.Trees[1].Name != "spool" {
		t.Errorf("%+v", e)
	}
	if now.Listen != "192.0.2.9:7370" || now.Trees[0].Path != "/srv/new" {
		t.Error("Effective changed its argument")
	}
}

func TestTemplateIsAConfiguration(t *testing.T) {
	text := Template(map[string]string{"name": `"a"`}, Tree{Name: "www", Path: "/srv/www"})
	c, err := Parse("f", text)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if c.Name != "a" || len(c.Trees) != 1 || c.Trees[0].Path != "/srv/www" {
		t.Errorf("%+v", c)
	}
	// What is commented out must be right as well.
	var all strings.Builder
	for line := range strings.Lines(Template(map[string]string{"name": `"a"`})) {
		if s, ok := strings.CutPrefix(line, "# "); ok && (strings.Contains(s, " = ") || strings.HasPrefix(s, "[[")) {
			line = s
		}
		all.WriteString(line)
	}
	if _, err := Parse("f", strings.ReplaceAll(all.String(), `"adm"`, `"0"`)); err != nil {
		t.Errorf("%v\n%s", err, all.String())
	}
}

func TestLines(t *testing.T) {
	text := "a = \"\"\"x\n\\\"\"\"\"\n" + // 1-2: a closing quote after an escaped one
		"b = [ # ]\n '[', \"]\",\n]\n" + // 3-5
		"[t] # [x]\n\"k y\" = {a = 1, b = \"}\"}\n" + // 6-7
		"[[r]]\nx = '''\n]]'''\nd.e = 1\n[[r]]\nx = 1" // 8-13
	want := map[string]int{"a": 1, "b": 3, "t": 6, "t.k y": 7, "r[0]": 8, "r[0].x": 9, "r[0].d": 11, "r[0].d.e": 11, "r[1]": 12, "r[1].x": 13}
	if diff := cmp.Diff(want, lines(text)); diff != "" {
		t.Error(diff)
	}
}

// FuzzParse: no text makes the reader hang or panic, and what it takes, it can say.
func FuzzParse(f *testing.F) {
	f.Add(full)
	f.Add("a = \"\"\"x\n\\\"\"\"\"\n[t]\n[[r]]\nx = '''\n]]'''")
	f.Add("gossip = {seeds = [\"a\"]}\ntree = [{name = \"x\"}]\n")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := Parse("f", text)
		var errs Errors
		if err != nil && (!errors.As(err, &errs) || len(errs) == 0) {
			t.Fatalf("an error of another kind: %v", err)
		}
		if err == nil && !Diff(c, c).None() {
			t.Fatal("it differs from itself")
		}
	})
}
