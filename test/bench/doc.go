// Package bench measures two daemons on one machine against what anybody could
// write in an afternoon, in the same run: inotify with one bare local rsync per
// drained batch, and inotify with one cp per drained batch. Ratios travel from
// machine to machine, times do not.
//
//	make bench
//	CLSYNC_BENCH=small make bench                   # to see that it works
//	go test -run '^$' -bench Small -benchtime 1x ./test/bench
//
// The daemons are built as they are shipped and talk over the loopback device of a
// network namespace of their own, so that the bytes on the wire can be counted;
// without root they use the machine's, and those rows are left out. Nothing is
// judged by time. What is judged is that the trees are the same in the end, and
// that what should not travel does not.
//
// CLSYNC_BINARY names a daemon to use instead of building one.
package bench
