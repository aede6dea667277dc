package bench

import (
	"os"
	"time"
)

// A scale says how much is done.
type scale struct {
	creates, others int           // samples of latency
	files           int           // in the batch, and in the renamed folder
	many            int           // in the big tree
	big, changed    int64         // bytes of the big file, and of the change in it
	idle            time.Duration // for how long nothing is done
}

var full = scale{creates: 200, others: 60, files: 10_000, many: 100_000, big: 1 << 30, changed: 1 << 20, idle: 30 * time.Second}

// sized is the full measure, or with CLSYNC_BENCH=small one that shows within two
// minutes whether everything works.
func sized() scale {
	if os.Getenv("CLSYNC_BENCH") == "small" {
		return scale{creates: 20, others: 8, files: 1000, many: 5000, big: 64 << 20, changed: 1 << 20, idle: 5 * time.Second}
	}
	return full
}

// patience is how long one thing may take before it is taken for broken.
const patience = 2 * time.Minute
