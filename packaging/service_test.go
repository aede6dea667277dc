// Package packaging holds what a distribution installs beside the program.
package packaging

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// installed returns a copy of the unit whose program exists.
func installed(t *testing.T) string {
	t.Helper()
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skip("needs systemd-analyze, of Debian's package systemd")
	}
	text, err := os.ReadFile("clsync.service")
	if err != nil {
		t.Fatal(err)
	}
	program, err := exec.LookPath("true")
	if err != nil {
		t.Fatal(err)
	}
	unit := filepath.Join(t.TempDir(), "clsync.service")
	if err := os.WriteFile(unit, []byte(strings.ReplaceAll(string(text), "/usr/bin/clsync", program)), 0o644); err != nil {
		t.Fatal(err)
	}
	return unit
}

// TestVerify: systemd understands every line.
func TestVerify(t *testing.T) {
	out, err := exec.Command("systemd-analyze", "verify", "--man=no", installed(t)).CombinedOutput()
	if err != nil || strings.Contains(string(out), "clsync.service:") {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestExposure keeps the unit as tight as it is; 9.6 is a service without any of it.
func TestExposure(t *testing.T) {
	const worst = 4.8
	out, err := exec.Command("systemd-analyze", "security", "--no-pager", "--offline=yes", installed(t)).Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	m := regexp.MustCompile(`Overall exposure level for clsync.service: ([0-9.]+)`).FindSubmatch(out)
	if m == nil {
		t.Fatalf("no level in\n%s", out)
	}
	level, err := strconv.ParseFloat(string(m[1]), 64)
	if err != nil || level > worst {
		t.Errorf("exposure %s, was %v: %v", m[1], worst, err)
	}
	t.Logf("exposure %v", level)
}
