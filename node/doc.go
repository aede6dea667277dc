// Package node ties the parts together: it runs one replica per tree, gives it what
// the monitor and the peers say, and carries out what it decides.
//
// Each tree has one goroutine that owns its replica core and index. It waits for
// nothing but the index's disk: looks, applies, scans, contents and cuts are done by
// others, which hand their results back to it.
package node
