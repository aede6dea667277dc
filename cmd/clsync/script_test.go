package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/clsync/clsync/node/config"
	"github.com/clsync/clsync/node/control"
	"github.com/clsync/clsync/node/control/controltest"
)

// TestMain makes the test program a clsync whose engine moves no file.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"clsync": func() { os.Exit(run(os.Args[1:], startFake)) },
	})
}

// fake is an engine whose condition is the cluster's name: well, sick, stuck, or dead.
type fake struct {
	*controltest.Engine
	log  *slog.Logger
	mood string
}

func startFake(c *config.Config, log *slog.Logger) (engine, error) {
	now := time.Now()
	s := control.Status{Node: control.Self{Name: c.Name, Cluster: c.Cluster, UptimeSeconds: 5}}
	var kept []control.Conflict
	for _, t := range c.Trees {
		s.Trees = append(s.Trees, control.Tree{Name: t.Name, Path: t.Path, State: control.Running, Backend: "fanotify"})
		kept = append(kept,
			control.Conflict{
				ID: "7f01", Tree: t.Name, Path: "file", Why: "changed on two nodes at once", When: now, Node: "b", Type: "file",
				Object: filepath.Join(filepath.Dir(t.Path), "kept"),
			},
			control.Conflict{ID: "7f02", Tree: t.Name, Path: "gone\n\xff", When: now, Node: "\x1b[2Jb", Type: "file", Object: filepath.Join(filepath.Dir(t.Path), "kept")})
	}
	if c.Cluster == "sick" {
		s = controltest.Sample(now)
	}
	e := controltest.New(s, []control.Node{
		{ID: "01", Name: c.Name, Self: true}, {ID: "11", Name: "b", Connected: true, LastSeen: now}, {ID: "22", Name: "c", LastSeen: now.Add(-72 * time.Hour)},
	}, kept)
	if c.Cluster == "dead" {
		e.SetHealth(errors.New("the loop does not answer"))
	}
	return &fake{e, log, c.Cluster}, nil
}

func (f *fake) Run(ctx context.Context) error {
	if f.mood == "stuck" {
		select {}
	}
	<-ctx.Done()
	for _, what := range f.Asked() {
		f.log.Info("asked", "what", what)
	}
	return nil
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			// A socket's path is short, and a script's folder is not.
			dir, err := os.MkdirTemp("/tmp", "clsync")
			if err != nil {
				return err
			}
			e.Defer(func() {
				if err := os.RemoveAll(dir); err != nil {
					t.Error(err)
				}
			})
			e.Setenv("RUN", dir)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"code": code, "until": until, "signal": send, "subst": subst, "mode": mode,
		},
	})
}

// code N CMD...: the command ends with exit code N.
func code(ts *testscript.TestScript, neg bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	var exit *exec.ExitError
	got := 0
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// until CMD...: the command is run until it succeeds, for 15 s.
func until(ts *testscript.TestScript, neg bool, args []string) {
	for end := time.Now().Add(15 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		err := ts.Exec(args[0], args[1:]...)
		if err == nil {
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("%q: %v", args, err)
		}
	}
}

// signal NAME: sent to the daemon in the background.
func send(ts *testscript.TestScript, neg bool, args []string) {
	s := map[string]os.Signal{"TERM": syscall.SIGTERM, "HUP": syscall.SIGHUP}[args[0]]
	for _, c := range ts.BackgroundCmds() {
		ts.Check(c.Process.Signal(s))
	}
}

// subst FILE: variables in it are replaced.
func subst(ts *testscript.TestScript, neg bool, args []string) {
	for _, f := range args {
		text := os.Expand(ts.ReadFile(f), ts.Getenv)
		ts.Check(os.WriteFile(ts.MkAbs(f), []byte(text), 0o644))
	}
}

// mode OCTAL FILE...
func mode(ts *testscript.TestScript, neg bool, args []string) {
	for _, f := range args[1:] {
		st, err := os.Stat(ts.MkAbs(f))
		ts.Check(err)
		if got := strconv.FormatUint(uint64(st.Mode().Perm()), 8); got != args[0] {
			ts.Fatalf("%s has mode %s, want %s", f, got, args[0])
		}
	}
}
