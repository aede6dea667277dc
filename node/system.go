package node

import (
	"fmt"
	"io/fs"
	"net"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/clsync/clsync/signature"
)

// skipFolder tells a walk not to go into a folder.
var skipFolder = fs.SkipDir

// stat reads the stat mark of a path without looking at its content.
func stat(r *signature.Root, p signature.Path) (signature.StatMark, bool) {
	f, err := r.OpenBeneath(p, unix.O_PATH)
	if err != nil {
		return signature.StatMark{}, false
	}
	defer f.Close()
	m, err := signature.Mark(f)
	return m, err == nil
}

// bootID names this boot of the machine.
func bootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read boot ID: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

func port(a net.Addr) int {
	if t, ok := a.(*net.TCPAddr); ok {
		return t.Port
	}
	return 0
}

// host returns the host of host:port, or all of s where there is no port.
func host(s string) string {
	if h, p, err := net.SplitHostPort(s); err == nil {
		if _, err := strconv.Atoi(p); err == nil {
			return h
		}
	}
	return s
}
