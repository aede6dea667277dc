package cluster

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// built holds what build has made, by kind, for the life of the process.
var built struct {
	sync.Mutex
	dir  string
	path map[bool]string
}

// Binary returns the daemon's program, built once per process from the source
// as it is. CLSYNC_BINARY names one to use instead. With race it is built with
// the race detector, or without where there is no C compiler.
func Binary(t testing.TB, race bool) string {
	t.Helper()
	if path := os.Getenv("CLSYNC_BINARY"); path != "" {
		return path
	}
	if _, err := exec.LookPath("gcc"); err != nil {
		race = false
	}
	built.Lock()
	defer built.Unlock()
	if path, ok := built.path[race]; ok {
		return path
	}
	path, err := build(race)
	if err != nil {
		t.Fatal(err)
	}
	built.path[race] = path
	return path
}

func build(race bool) (string, error) {
	if built.path == nil {
		dir, err := os.MkdirTemp("", prefix+"bin-")
		if err != nil {
			return "", err
		}
		built.dir, built.path = dir, map[bool]string{}
	}
	mod, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("find the module: %w", err)
	}
	args, cgo, name := []string{"build", "-trimpath"}, "CGO_ENABLED=0", "clsync"
	if race {
		args, cgo, name = append(args, "-race"), "CGO_ENABLED=1", "clsync-race"
	}
	path := filepath.Join(built.dir, name)
	cmd := exec.Command("go", append(args, "-o", path, "./cmd/clsync")...)
	cmd.Dir = filepath.Dir(strings.TrimSpace(string(mod)))
	cmd.Env = append(os.Environ(), cgo)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build clsync: %w\n%s", err, out)
	}
	return path, nil
}

func removeBinaries() {
	built.Lock()
	defer built.Unlock()
	if built.dir != "" {
		_ = os.RemoveAll(built.dir)
	}
}
