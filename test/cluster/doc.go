// Package cluster runs real daemons in network namespaces of their own.
//
// A test package that uses it calls Main from TestMain. The tests then run in
// private mount and process namespaces: every mount, network namespace, loop
// device and daemon lives in there and ends with the test process, even when that
// is killed. Nothing of the machine's own network is touched; the bridge that
// the nodes are plugged into stands in a namespace too.
//
// New makes a cluster; its nodes' trees are changed by the test through ordinary
// system calls and judged by package compare. What a daemon logs goes to a file,
// the tail of which is printed when the test fails. A daemon that ends by itself,
// panics or races fails the test whatever else it shows. CLSYNC_TEST_KEEP=1 keeps
// the nodes' folders, and on failure has the daemons write what they were at.
package cluster
