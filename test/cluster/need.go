package cluster

import (
	"os"
	"os/exec"
	"testing"
)

// Need skips the test, and says why, where no cluster can be run. With
// CLSYNC_TEST_REQUIRE=1, as in CI, it fails instead: a run in which everything
// was skipped has shown nothing.
func Need(t testing.TB, tools ...string) {
	t.Helper()
	unable := t.Skip
	if os.Getenv("CLSYNC_TEST_REQUIRE") != "" {
		unable = t.Fatal
	}
	if os.Getuid() != 0 {
		unable("needs root: makes network namespaces and mounts")
	}
	if os.Getenv(insideEnv) != "tests" {
		unable("needs a mount namespace of its own: run the tests through cluster.Main")
	}
	for _, tool := range append([]string{"ip", "nsenter", "rsync", "mount"}, tools...) {
		if _, err := exec.LookPath(tool); err != nil {
			unable("needs the program " + tool + ", which is not installed")
		}
	}
}
