package compare

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A Kind is one way to differ.
type Kind string

const (
	Missing Kind = "missing" // there is nothing in b
	Extra   Kind = "extra"   // there is nothing in a
	Type    Kind = "type"
	Mode    Kind = "mode"
	Owner   Kind = "owner"
	Group   Kind = "group"
	Size    Kind = "size"
	Content Kind = "content"
	MTime   Kind = "mtime"
	Target  Kind = "target"
	Device  Kind = "device"
	Xattr   Kind = "xattr"
	Links   Kind = "links" // other names are links of this file
	Holes   Kind = "holes" // other bytes are in holes
)

// A Difference is one fact of one path in which the trees are not the same.
type Difference struct {
	Path string
	Kind Kind
	A, B string // what each tree shows, for people
}

// String escapes all that a terminal could take for something else.
func (d Difference) String() string {
	return fmt.Sprintf("%s %s: %s, %s", d.Kind, strconv.QuoteToASCII(d.Path), d.A, d.B)
}

// Trees reads both trees, contents included, and returns their differences in
// the order of the paths.
func Trees(a, b string) ([]Difference, error) {
	var (
		ta, tb     Tree
		errA, errB error
		done       = make(chan struct{})
	)
	go func() {
		defer close(done)
		tb, errB = Scan(b, Contents)
	}()
	ta, errA = Scan(a, Contents)
	<-done
	if errA != nil {
		return nil, errA
	}
	if errB != nil {
		return nil, errB
	}
	return Diff(ta, tb), nil
}

// Diff compares what two scans of the same depth have read.
func Diff(a, b Tree) []Difference {
	var ds []Difference
	for _, path := range slices.Sorted(maps.Keys(a)) {
		if eb, ok := b[path]; ok {
			ds = append(ds, entries(a[path], eb)...)
		} else {
			ds = append(ds, Difference{path, Missing, typeName(a[path].Type), "nothing"})
		}
	}
	for _, path := range slices.Sorted(maps.Keys(b)) {
		if _, ok := a[path]; !ok {
			ds = append(ds, Difference{path, Extra, "nothing", typeName(b[path].Type)})
		}
	}
	slices.SortStableFunc(ds, func(x, y Difference) int { return strings.Compare(x.Path, y.Path) })
	return ds
}

// Without returns the differences that are of none of the kinds.
func Without(ds []Difference, kinds ...Kind) []Difference {
	return slices.DeleteFunc(slices.Clone(ds), func(d Difference) bool { return slices.Contains(kinds, d.Kind) })
}

func entries(a, b *Entry) (ds []Difference) {
	add := func(k Kind, va, vb any) {
		ds = append(ds, Difference{a.Path, k, fmt.Sprint(va), fmt.Sprint(vb)})
	}
	if a.Type != b.Type {
		add(Type, typeName(a.Type), typeName(b.Type))
		return ds
	}
	if a.Mode != b.Mode {
		add(Mode, fmt.Sprintf("%04o", a.Mode), fmt.Sprintf("%04o", b.Mode))
	}
	if a.UID != b.UID {
		add(Owner, a.UID, b.UID)
	}
	if a.GID != b.GID {
		add(Group, a.GID, b.GID)
	}
	if a.MTime != b.MTime {
		add(MTime, stamp(a.MTime), stamp(b.MTime))
	}
	switch {
	case a.Size != b.Size:
		add(Size, a.Size, b.Size)
	case a.Sum != b.Sum:
		add(Content, fmt.Sprintf("%x", a.Sum[:6]), fmt.Sprintf("%x", b.Sum[:6]))
	}
	if a.Target != b.Target {
		add(Target, strconv.QuoteToASCII(a.Target), strconv.QuoteToASCII(b.Target))
	}
	if a.Rdev != b.Rdev {
		add(Device, device(a.Rdev), device(b.Rdev))
	}
	if a.Leader != b.Leader {
		add(Links, "links of "+strconv.QuoteToASCII(a.Leader), "links of "+strconv.QuoteToASCII(b.Leader))
	}
	if a.Size == b.Size && abs(a.Data-b.Data) > tolerance(a.Size) {
		add(Holes, fmt.Sprintf("%d of %d bytes are data", a.Data, a.Size), fmt.Sprintf("%d of %d bytes are data", b.Data, b.Size))
	}
	return append(ds, attributes(a, b)...)
}

func attributes(a, b *Entry) (ds []Difference) {
	names := map[string]bool{}
	for n := range a.Xattrs {
		names[n] = true
	}
	for n := range b.Xattrs {
		names[n] = true
	}
	show := func(m map[string]string, n string) string {
		if v, ok := m[n]; ok {
			return fmt.Sprintf("%q=%q", n, v)
		}
		return fmt.Sprintf("no %q", n)
	}
	for _, n := range slices.Sorted(maps.Keys(names)) {
		va, inA := a.Xattrs[n]
		vb, inB := b.Xattrs[n]
		if va != vb || inA != inB {
			ds = append(ds, Difference{a.Path, Xattr, show(a.Xattrs, n), show(b.Xattrs, n)})
		}
	}
	return ds
}

// tolerance is how much less or more of a file may be in holes: file systems
// allocate in units of their own, and rsync makes a hole of any run of zeros.
func tolerance(size int64) int64 { return 128<<10 + size/50 }

func stamp(ns int64) string { return time.Unix(0, ns).UTC().Format("2006-01-02T15:04:05.000000000Z") }
func device(d uint64) string {
	return fmt.Sprintf("%d:%d", unix.Major(d), unix.Minor(d))
}
func abs(n int64) int64 { return max(n, -n) }
