package main

import (
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
)

// limitMemory tells Go how much memory the cgroup leaves it, so that it collects
// garbage before the kernel kills. A fifth stays for rsync and the kernel. It
// returns the limit set, or 0.
func limitMemory(proc, cgroups string) int64 {
	if os.Getenv("GOMEMLIMIT") != "" {
		return 0 // somebody knows better
	}
	text, err := os.ReadFile(proc)
	if err != nil {
		return 0 // no cgroups, no limit
	}
	least := int64(math.MaxInt64)
	for line := range strings.Lines(string(text)) {
		_, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
		kind, group, _ := strings.Cut(rest, ":")
		switch kind {
		case "":
			least = min(least, lowest(cgroups, group, "memory.max"))
		case "memory":
			least = min(least, lowest(filepath.Join(cgroups, "memory"), group, "memory.limit_in_bytes"))
		}
	}
	if least >= 1<<50 { // version 1 writes "none" as a huge number
		return 0
	}
	least -= least / 5
	debug.SetMemoryLimit(least)
	return least
}

// lowest reads the limits of a group and of all above it.
func lowest(top, group, file string) int64 {
	least := int64(math.MaxInt64)
	for dir := filepath.Clean("/" + group); ; dir = filepath.Dir(dir) {
		text, err := os.ReadFile(filepath.Join(top, dir, file))
		if err == nil {
			if n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil && n > 0 {
				least = min(least, n) // "max" is no number
			}
		}
		if dir == "/" {
			return least
		}
	}
}
