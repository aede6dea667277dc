//go:build linux

package monitor

import (
	"encoding/binary"
	"errors"
	"reflect"
	"testing"

	"golang.org/x/sys/unix"
)

// encodeEvent is what the kernel does.
func encodeEvent(mask uint64, pid int32, infos ...[]byte) []byte {
	b := make([]byte, metadataSize)
	for _, i := range infos {
		b = append(b, i...)
	}
	binary.NativeEndian.PutUint32(b, uint32(len(b)))
	b[4] = unix.FANOTIFY_METADATA_VERSION
	binary.NativeEndian.PutUint16(b[6:], metadataSize)
	binary.NativeEndian.PutUint64(b[8:], mask)
	binary.NativeEndian.PutUint32(b[16:], ^uint32(0)) // no descriptor
	binary.NativeEndian.PutUint32(b[20:], uint32(pid))
	return b
}

func encodeInfo(kind uint8, handle, name string) []byte {
	b := make([]byte, handleBytes)
	b[0] = kind
	binary.NativeEndian.PutUint32(b[4:], 1)
	binary.NativeEndian.PutUint32(b[8:], 2)
	binary.NativeEndian.PutUint32(b[12:], uint32(len(handle)))
	binary.NativeEndian.PutUint32(b[16:], 0x81)
	b = append(append(b, handle...), name...)
	for b = append(b, 0); len(b)%4 != 0; {
		b = append(b, 0)
	}
	binary.NativeEndian.PutUint16(b[2:], uint16(len(b)))
	return b
}

func TestParseEvents(t *testing.T) {
	var b []byte
	b = append(b, encodeEvent(unix.FAN_RENAME|unix.FAN_ONDIR, 7,
		encodeInfo(unix.FAN_EVENT_INFO_TYPE_OLD_DFID_NAME, "handle01", "old\xff"),
		encodeInfo(unix.FAN_EVENT_INFO_TYPE_NEW_DFID_NAME, "handle02", "a longer new name"),
		encodeInfo(unix.FAN_EVENT_INFO_TYPE_FID, "handle03", ""))...)
	b = append(b, encodeEvent(unix.FAN_Q_OVERFLOW, 0)...)
	var got []event
	must(t, parseEvents(b, func(ev *event) {
		got = append(got, event{ev.mask, ev.pid, append([]info(nil), ev.infos...)})
	}))
	handle := func(s string) string {
		return string(binary.NativeEndian.AppendUint32(nil, 0x81)) + s
	}
	want := []event{
		{unix.FAN_RENAME | unix.FAN_ONDIR, 7, []info{
			{unix.FAN_EVENT_INFO_TYPE_OLD_DFID_NAME, [2]int32{1, 2}, handle("handle01"), "old\xff"},
			{unix.FAN_EVENT_INFO_TYPE_NEW_DFID_NAME, [2]int32{1, 2}, handle("handle02"), "a longer new name"},
			{unix.FAN_EVENT_INFO_TYPE_FID, [2]int32{1, 2}, handle("handle03"), ""},
		}},
		{unix.FAN_Q_OVERFLOW, 0, nil},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	for n := range len(b) {
		seen := 0
		err := parseEvents(b[:n], func(*event) { seen++ })
		if whole := n == 0 || n == len(b)-metadataSize; whole != (err == nil) || err != nil && !errors.Is(err, errEvent) {
			t.Errorf("cut off at %d of %d: %v", n, len(b), err)
		}
	}
}

func FuzzParseEvents(f *testing.F) {
	f.Add(encodeEvent(unix.FAN_CREATE, 1, encodeInfo(unix.FAN_EVENT_INFO_TYPE_DFID_NAME, "handle01", "name")))
	f.Add(encodeEvent(unix.FAN_Q_OVERFLOW, 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		_ = parseEvents(b, func(ev *event) {
			for n := range ev.infos {
				i := &ev.infos[n]
				if h := i.fileHandle(); h.Size() != len(i.handle)-4 || len(i.key()) != len(i.handle)+8 {
					t.Errorf("handle %q", i.handle)
				}
			}
		})
	})
}
