package monitor

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// An event is one fanotify event: what happened, by whom, and to what.
type event struct {
	mask  uint64
	pid   int
	infos []info
}

// An info names a folder, or a name in it, or an object, by file handle.
type info struct {
	kind   uint8 // FAN_EVENT_INFO_TYPE_*
	fsid   [2]int32
	handle string // the handle's type in 4 bytes, then its bytes
	name   string // "" or "." is the object of the handle itself
}

// Sizes as in linux/fanotify.h.
const (
	metadataSize = unix.FAN_EVENT_METADATA_LEN
	infoSize     = 4      // type, pad, length
	handleStart  = 4 + 8  // after the file system's ID
	handleBytes  = 12 + 8 // after the handle's length and type
)

var errEvent = errors.New("malformed fanotify event")

// parseEvents calls visit for every event in b. The event is only valid until
// visit returns.
func parseEvents(b []byte, visit func(*event)) error {
	var ev event
	for len(b) > 0 {
		if len(b) < metadataSize {
			return fmt.Errorf("%w: %d bytes left", errEvent, len(b))
		}
		size := int(binary.NativeEndian.Uint32(b))
		start := int(binary.NativeEndian.Uint16(b[6:]))
		if b[4] != unix.FANOTIFY_METADATA_VERSION {
			return fmt.Errorf("%w: version %d", errEvent, b[4])
		}
		if size > len(b) || start < metadataSize || start > size {
			return fmt.Errorf("%w: size %d of %d", errEvent, size, len(b))
		}
		ev.mask = binary.NativeEndian.Uint64(b[8:])
		ev.pid = int(int32(binary.NativeEndian.Uint32(b[20:])))
		var err error
		if ev.infos, err = parseInfos(ev.infos[:0], b[start:size]); err != nil {
			return err
		}
		visit(&ev)
		b = b[size:]
	}
	return nil
}

func parseInfos(infos []info, b []byte) ([]info, error) {
	for len(b) > 0 {
		if len(b) < infoSize {
			return nil, fmt.Errorf("%w: info of %d bytes", errEvent, len(b))
		}
		kind, size := b[0], int(binary.NativeEndian.Uint16(b[2:]))
		if size < infoSize || size > len(b) {
			return nil, fmt.Errorf("%w: info of size %d in %d", errEvent, size, len(b))
		}
		rec := b[:size]
		b = b[size:]
		switch kind {
		case unix.FAN_EVENT_INFO_TYPE_FID, unix.FAN_EVENT_INFO_TYPE_DFID, unix.FAN_EVENT_INFO_TYPE_DFID_NAME,
			unix.FAN_EVENT_INFO_TYPE_OLD_DFID_NAME, unix.FAN_EVENT_INFO_TYPE_NEW_DFID_NAME:
		default:
			continue // nothing we asked for
		}
		if len(rec) < handleBytes {
			return nil, fmt.Errorf("%w: handle in %d bytes", errEvent, len(rec))
		}
		n := int(binary.NativeEndian.Uint32(rec[handleStart:]))
		if n < 0 || n > len(rec)-handleBytes {
			return nil, fmt.Errorf("%w: handle of %d in %d bytes", errEvent, n, len(rec))
		}
		i := info{kind: kind, handle: string(rec[handleStart+4 : handleBytes+n])}
		i.fsid[0] = int32(binary.NativeEndian.Uint32(rec[4:]))
		i.fsid[1] = int32(binary.NativeEndian.Uint32(rec[8:]))
		if kind != unix.FAN_EVENT_INFO_TYPE_FID && kind != unix.FAN_EVENT_INFO_TYPE_DFID {
			name, _, _ := bytes.Cut(rec[handleBytes+n:], []byte{0})
			i.name = string(name)
		}
		infos = append(infos, i)
	}
	return infos, nil
}

// fileHandle makes of an info's handle what open_by_handle_at takes.
func (i *info) fileHandle() unix.FileHandle {
	b := []byte(i.handle)
	return unix.NewFileHandle(int32(binary.NativeEndian.Uint32(b)), b[4:])
}

// key names the handle's object among all file systems.
func (i *info) key() string {
	var b [8]byte
	binary.NativeEndian.PutUint32(b[:], uint32(i.fsid[0]))
	binary.NativeEndian.PutUint32(b[4:], uint32(i.fsid[1]))
	return string(b[:]) + i.handle
}
