package e2e

import "time"

// Deadlines of waits. They are for a machine of two cores that is busy with other
// tests; how long it really took is printed.
const (
	wait     = 30 * time.Second
	longWait = 120 * time.Second
)
