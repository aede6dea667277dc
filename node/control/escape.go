package control

import (
	"encoding/base64"
	"strconv"
	"unicode/utf8"
)

// Escape returns s as Go would write it between quotes. Plain text stays as it
// is; Unescape gives the bytes back.
func Escape(s string) string {
	q := strconv.Quote(s)
	return q[1 : len(q)-1]
}

// Unescape reads what Escape wrote.
func Unescape(s string) (string, error) { return strconv.Unquote(`"` + s + `"`) }

// b64 keeps the bytes of a name that JSON cannot hold.
func b64(s string) string {
	if utf8.ValidString(s) {
		return ""
	}
	return base64.StdEncoding.EncodeToString([]byte(s))
}

// Escape escapes every name in s and keeps the bytes where needed. It is run once,
// by the server; slices are replaced, for the engine may still hold them.
func (s *Status) Escape() {
	each(&s.Problems, func(p *string) { *p = printable(*p) })
	each(&s.Peers, func(p *Peer) {
		p.Name, p.Addr, p.LastError = Escape(p.Name), Escape(p.Addr), printable(p.LastError)
	})
	each(&s.Refused, func(r *Refused) {
		r.Name, r.Addr, r.Reason = Escape(r.Name), Escape(r.Addr), printable(r.Reason)
	})
	each(&s.Trees, func(t *Tree) {
		t.Path, t.Reason, t.BackendReason = Escape(t.Path), printable(t.Reason), printable(t.BackendReason)
		each(&t.Blocked, (*PathNote).escape)
		each(&t.Unreadable, (*PathNote).escape)
		each(&t.LocalPaths, (*PathNote).escape)
		each(&t.Lacking, (*PathNote).escape)
		each(&t.Peers, func(l *Lag) { l.Name = Escape(l.Name) })
	})
}

func (n *PathNote) escape() {
	n.PathB64, n.Path, n.Reason = b64(n.Path), Escape(n.Path), printable(n.Reason)
}

func (c *Conflict) escape() {
	c.PathB64, c.Path = b64(c.Path), Escape(c.Path)
	c.ObjB64, c.Object = b64(c.Object), Escape(c.Object)
	c.Why, c.Node = printable(c.Why), Escape(c.Node)
}

// ObjectPath returns where the kept object lies, bytes and all.
func (c Conflict) ObjectPath() (string, error) { return raw(c.Object, c.ObjB64) }

// RawPath returns the path in the tree, bytes and all.
func (c Conflict) RawPath() (string, error) { return raw(c.Path, c.PathB64) }

func raw(escaped, b string) (string, error) {
	if b == "" {
		return Unescape(escaped)
	}
	out, err := base64.StdEncoding.DecodeString(b)
	return string(out), err
}

// printable escapes what is not printable and leaves quotes and backslashes, of
// which error texts with quoted names are full, as they are.
func printable(s string) string {
	for i, c := range s {
		if !strconv.IsPrint(c) || c == utf8.RuneError && !utf8.ValidString(s[i:min(len(s), i+3)]) {
			return Escape(s)
		}
	}
	return s
}

// each changes copies of the elements, and makes an absent list an empty one: in
// JSON a list is never null.
func each[T any](list *[]T, change func(*T)) {
	out := make([]T, len(*list))
	copy(out, *list)
	for i := range out {
		change(&out[i])
	}
	*list = out
}
