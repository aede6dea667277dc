package signature

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

const maxXattrValue = 64 << 10 // XATTR_SIZE_MAX

// replicates tells whether the attribute belongs to a path's facts. The integrity
// subsystem's are bound to one machine's inodes and keys.
func (c LookConfig) replicates(name string) bool {
	switch name {
	case "security.evm", "security.ima":
		return false
	case "trusted.SGI_ACL_FILE", "trusted.SGI_ACL_DEFAULT": // xfs shows the ACLs twice
		return false
	case "security.selinux":
		return c.SELinux
	case "system.posix_acl_access", "system.posix_acl_default":
		return true
	}
	return strings.HasPrefix(name, "user.") || strings.HasPrefix(name, "trusted.") || strings.HasPrefix(name, "security.")
}

// Xattrs reads the replicated attributes of what an O_PATH descriptor holds, be
// it a symlink. A file system without attributes has none.
func (r *Root) Xattrs(pin *os.File) (Xattrs, error) {
	path := ProcPath(pin)
	names, err := grow(256, func(b []byte) (int, error) { return unix.Listxattr(path, b) })
	if err == unix.ENOTSUP {
		return "", nil
	}
	if err != nil {
		return "", &os.PathError{Op: "list attributes of", Path: pin.Name(), Err: err}
	}
	var xs []Xattr
	for raw := range bytes.SplitSeq(names, []byte{0}) {
		name := string(raw)
		if name == "" || !r.cfg.replicates(name) {
			continue
		}
		v, err := grow(256, func(b []byte) (int, error) { return unix.Getxattr(path, name, b) })
		if err == unix.ENODATA { // gone since it was listed: ctime has moved
			continue
		}
		if err != nil {
			return "", &os.PathError{Op: "read attribute " + Quote(name) + " of", Path: pin.Name(), Err: err}
		}
		xs = append(xs, Xattr{name, string(v)})
	}
	e := EncodeXattrs(xs)
	if len(e) > MaxXattrs {
		return "", fmt.Errorf("%w: %d bytes", ErrXattrs, len(e))
	}
	return e, nil
}

// SetXattrs makes the replicated attributes of what an O_PATH descriptor holds
// those of want: it writes what differs and removes what is not in it. All other
// attributes are left alone, and refused if want has them.
func (r *Root) SetXattrs(pin *os.File, want Xattrs) error {
	var unkept []string
	have, err := r.Xattrs(pin)
	if err != nil || have == want {
		return err
	}
	old, err := DecodeXattrs(have)
	if err != nil {
		return err
	}
	xs, err := DecodeXattrs(want)
	if err != nil {
		return err
	}
	path := ProcPath(pin)
	current := make(map[string]string, len(old))
	for _, x := range old {
		current[x.Name] = x.Value
	}
	for _, x := range xs {
		if !r.cfg.replicates(x.Name) {
			return fmt.Errorf("%w: %s is not replicated here", ErrXattrs, Quote(x.Name))
		}
		v, ok := current[x.Name]
		delete(current, x.Name)
		if ok && v == x.Value {
			continue
		}
		err := unix.Setxattr(path, x.Name, []byte(x.Value), 0)
		if err == unix.EOPNOTSUPP {
			unkept = append(unkept, Quote(x.Name))
			continue
		}
		if err != nil {
			return &os.PathError{Op: "set attribute " + Quote(x.Name) + " of", Path: pin.Name(), Err: err}
		}
	}
	for name := range current {
		if err := unix.Removexattr(path, name); err != nil && !errors.Is(err, unix.ENODATA) {
			return &os.PathError{Op: "remove attribute " + Quote(name) + " of", Path: pin.Name(), Err: err}
		}
	}
	if len(unkept) > 0 {
		return fmt.Errorf("%w: %s", ErrUnkept, strings.Join(unkept, ", "))
	}
	return nil
}

// grow calls read with a larger buffer until what is there fits in.
func grow(size int, read func([]byte) (int, error)) ([]byte, error) {
	for {
		b := make([]byte, size)
		n, err := retry(func() (int, error) { return read(b) })
		if err == unix.ERANGE && size < maxXattrValue {
			size = min(size*8, maxXattrValue)
			continue
		}
		if err != nil {
			return nil, err
		}
		return b[:n], nil
	}
}
