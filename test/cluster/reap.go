package cluster

import (
	"os"
	"path/filepath"
	"time"
)

// Everything that outlives a killed test process begins like this and stands in
// the temporary folder. The rest has ended with its sandbox.
const prefix = "clsync-test-"

// reap removes what tests killed more than an hour ago have left. A young folder
// may belong to a package that is tested at this moment.
func reap() {
	old, err := filepath.Glob(filepath.Join(os.TempDir(), prefix+"*"))
	if err != nil {
		return
	}
	for _, path := range old {
		if st, err := os.Lstat(path); err == nil && st.IsDir() && time.Since(st.ModTime()) > time.Hour {
			// What is still mounted there is busy and stays; the next run tries again.
			_ = os.RemoveAll(path)
		}
	}
}
