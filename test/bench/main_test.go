package bench

import (
	"testing"

	"github.com/clsync/clsync/test/cluster"
)

// The sandbox is for the file systems that a benchmark mounts: nothing stays.
func TestMain(m *testing.M) { cluster.Main(m) }
