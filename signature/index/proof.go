package index

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/clsync/clsync/signature/wire"
)

// A Proof is what the caller knows of the moment: this boot of this machine (the
// kernel's random boot_id) and this mount of the tree. With the inode and birth
// time of the index file, which Open adds, it tells the index that was written here
// from one restored, cloned or copied.
type Proof struct {
	BootID string
	Mount  uint64
}

// encode puts the proof together with file's identity. It returns nil if the file
// system keeps no birth time: then nothing can be proven.
func (p Proof) encode(file *os.File) ([]byte, error) {
	var st unix.Statx_t
	const want = unix.STATX_INO | unix.STATX_BTIME
	if err := unix.Statx(int(file.Fd()), "", unix.AT_EMPTY_PATH, want, &st); err != nil {
		return nil, &os.PathError{Op: "statx", Path: file.Name(), Err: err}
	}
	if st.Mask&want != want || p.BootID == "" {
		return nil, nil
	}
	if len(p.BootID) > maxName {
		return nil, fmt.Errorf("boot ID of %d bytes", len(p.BootID))
	}
	return frame(func(w *wire.Writer) {
		w.Array(5)
		w.String(p.BootID)
		w.Uint(p.Mount)
		w.Uint(st.Ino)
		w.Int(st.Btime.Sec)
		w.Uint(uint64(st.Btime.Nsec))
	}), nil
}
