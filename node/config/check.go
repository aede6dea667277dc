package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/clsync/clsync/signature"
	"github.com/clsync/clsync/signature/rules"
)

// maxSocket is what fits into a unix socket's address, its closing NUL aside.
const maxSocket = 107

// checkName allows what can stand in a label, a file name and a table.
func checkName(s string) error {
	if s == "" {
		return errors.New("missing")
	}
	if len(s) > 64 {
		return errors.New("longer than 64 bytes")
	}
	for i, c := range []byte(s) {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !letter && (i == 0 || !strings.ContainsRune("._-", rune(c))) {
			return fmt.Errorf("%q: use letters, digits, and inside also . _ -", s)
		}
	}
	return nil
}

func checkPath(s string) error {
	switch {
	case s == "":
		return errors.New("missing")
	case !filepath.IsAbs(s):
		return fmt.Errorf("%q is not absolute", s)
	case strings.IndexByte(s, 0) >= 0:
		return fmt.Errorf("%q holds NUL", s)
	case filepath.Clean(s) != s:
		return fmt.Errorf("%q: write %q", s, filepath.Clean(s))
	}
	return nil
}

func checkRunDir(c *Config) error {
	if err := checkPath(c.RunDir); err != nil {
		return err
	}
	if n := len(c.Socket()); n > maxSocket {
		return fmt.Errorf("the socket's path would have %d bytes; Linux takes %d", n, maxSocket)
	}
	return nil
}

func checkProgram(s string) error {
	if s == "" || strings.Contains(s, "/") && !filepath.IsAbs(s) {
		return fmt.Errorf("%q is neither a plain name nor an absolute path", s)
	}
	return nil
}

// splitAddr reads host:port with a numeric port.
func splitAddr(s string) (host string, port int, err error) {
	host, p, err := net.SplitHostPort(s)
	if err != nil {
		return "", 0, fmt.Errorf(`%q: want "address:port", an IPv6 address in [ ]`, s)
	}
	n, err := strconv.ParseUint(p, 10, 16)
	if err != nil {
		return "", 0, fmt.Errorf("%q: the port is not a number up to 65535", s)
	}
	return host, int(n), nil
}

func checkListen(s string) error {
	host, _, err := splitAddr(s)
	if err != nil {
		return err
	}
	if host == "" {
		return nil
	}
	if _, err := netip.ParseAddr(host); err != nil {
		return fmt.Errorf("%q: %q is not an address of this machine", s, host)
	}
	return nil
}

func checkAdvertise(s string) error {
	if s == "" {
		return nil
	}
	host, port, err := splitAddr(s)
	if err != nil {
		return err
	}
	if ip, err := netip.ParseAddr(host); host == "" || port == 0 || err == nil && ip.IsUnspecified() {
		return fmt.Errorf("%q is nothing that a peer could dial", s)
	}
	return nil
}

func checkLoopback(s string) error {
	if s == "" {
		return nil
	}
	host, _, err := splitAddr(s)
	if err != nil {
		return err
	}
	if ip, err := netip.ParseAddr(host); host != "localhost" && (err != nil || !ip.IsLoopback()) {
		return fmt.Errorf("%q is not a loopback address: metrics are not encrypted and ask for no password", s)
	}
	return nil
}

func checkMulticast(s string) error {
	host, port, err := splitAddr(s)
	if err != nil {
		return err
	}
	if ip, err := netip.ParseAddr(host); err != nil || !ip.Is4() || !ip.IsMulticast() || port == 0 {
		return fmt.Errorf("%q is not an IPv4 multicast group with its port", s)
	}
	return nil
}

func checkInterfaces(names []string) error {
	for _, s := range names {
		if s == "" || len(s) > 15 || strings.ContainsAny(s, "/ \t\n\x00") {
			return fmt.Errorf("%q is no interface's name", s)
		}
	}
	return nil
}

func checkGroup(s string) error {
	if s == "" {
		return nil
	}
	_, err := GroupID(s)
	return err
}

// GroupID looks a group up; a number stands for itself.
func GroupID(s string) (int, error) {
	if n, err := strconv.ParseUint(s, 10, 31); err == nil {
		return int(n), nil
	}
	g, err := user.LookupGroup(s)
	if err != nil {
		return 0, fmt.Errorf("no group %q on this machine", s)
	}
	return strconv.Atoi(g.Gid)
}

// fillSeeds checks the seeds and adds the port where none is given.
func fillSeeds(g *Gossip) error {
	for i, s := range g.Seeds {
		if !strings.Contains(s, ":") || strings.HasPrefix(s, "[") && strings.HasSuffix(s, "]") || isAddr(s) {
			s = net.JoinHostPort(strings.Trim(s, "[]"), strconv.Itoa(GossipPort))
		}
		host, port, err := splitAddr(s)
		if err != nil {
			return err
		}
		if host == "" || port == 0 || strings.ContainsAny(host, " /@\x00") {
			return fmt.Errorf("%q is no node's address", g.Seeds[i])
		}
		g.Seeds[i] = s
	}
	return nil
}

func isAddr(s string) bool {
	_, err := netip.ParseAddr(s)
	return err == nil
}

func prefixes(all []string) ([]netip.Prefix, error) {
	var ps []netip.Prefix
	for _, s := range all {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, fmt.Errorf(`%q: want a network such as "192.0.2.0/24"`, s)
		}
		if p != p.Masked() {
			return nil, fmt.Errorf("%q has bits beyond its length; write %q", s, p.Masked())
		}
		ps = append(ps, p)
	}
	return ps, nil
}

// together checks what only shows when options are seen side by side.
func (r *reader) together(c *Config) {
	for i := range c.Trees {
		t := &c.Trees[i]
		key := treeKey(i)
		compiled, err := rules.Compile(t.Ignore, t.Only)
		if err != nil {
			name, _, _ := strings.Cut(err.Error(), ":")
			r.fail(key+"."+name, "%v", err)
		}
		t.Rules = compiled
		for _, o := range c.Trees[:i] {
			if t.Name != "" && t.Name == o.Name {
				r.fail(key+".name", "name: there are two trees %q", t.Name)
			}
			if within(t.Path, o.Path) || within(o.Path, t.Path) {
				r.fail(key+".path", "path: %q and %q of tree %q lie within each other", t.Path, o.Path, o.Name)
			}
		}
		for _, own := range []struct {
			key, path string
			folder    bool
		}{{"state_dir", c.StateDir, true}, {"run_dir", c.RunDir, true}, {"key_file", c.KeyFile, false}} {
			if within(own.path, t.Path) && !ignored(*t, own.path, own.folder) {
				r.fail(key+".path", "path: %s (%q) lies in the tree and must never be replicated: ignore it, or move it", own.key, own.path)
			}
		}
	}
}

// ignored tells whether the tree's rules leave out a path that lies in it.
func ignored(t Tree, path string, folder bool) bool {
	p, err := signature.ParsePath(strings.TrimPrefix(strings.TrimPrefix(path, t.Path), "/"))
	return err == nil && t.Rules.Ignored(p, folder)
}

// within tells whether path is dir or lies beneath it.
func within(path, dir string) bool {
	if path == "" || dir == "" {
		return false
	}
	return path == dir || dir == "/" || strings.HasPrefix(path, dir+"/")
}
