package main

import (
	"flag"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/clsync/clsync/node/control"
	"github.com/clsync/clsync/node/control/controltest"
)

var update = flag.Bool("update", false, "rewrite golden files")

func TestStatusText(t *testing.T) {
	now := time.Date(2026, 11, 22, 3, 14, 15, 0, time.UTC)
	well := controltest.Sample(now)
	well.Refused, well.Peers, well.Trees = nil, well.Peers[:1], well.Trees[:1]
	well.Trees[0].Blocked, well.Trees[0].Peers, well.Trees[0].Conflicts = nil, well.Trees[0].Peers[:1], 0
	for file, s := range map[string]control.Status{
		"testdata/sick.golden":  controltest.Sample(now),
		"testdata/well.golden":  well,
		"testdata/alone.golden": {Node: control.Self{Name: "a", Cluster: "c", Version: "v"}},
	} {
		s.Judge(now)
		s.Escape()
		got := statusText(s)
		if *update {
			if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), got); diff != "" {
			t.Errorf("%s (-update rewrites it):\n%s", file, diff)
		}
	}
}

func TestTerminal(t *testing.T) {
	for in, want := range map[string]string{
		"plain é": "plain é", "a\x1b[2J": `a\x1b[2J`, "\xff": `\xff`, "a\nb": `a\nb`, `c:\x "q"`: `c:\x "q"`, "\u202e": `\u202e`, "\ufffd": "\ufffd",
	} {
		if got := terminal(in); got != want {
			t.Errorf("terminal(%q) = %s", in, got)
		}
	}
}
