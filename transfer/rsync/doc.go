// Package rsync runs the system's rsync at both ends of a byte stream that
// others provide. rsync only ever fills a staging folder; what it staged is
// verified and applied elsewhere.
//
// What a caller may count on:
//
//   - Names travel NUL-separated on standard input, never in an argument vector.
//   - The receiver composes its own command line. The peer's is only compared
//     with it (CheckPeerArgs) and never run.
//   - When Send or Receive return, no process of theirs is left and nothing
//     writes to staging any more.
//   - Exit codes are hints. 0, 23 and 24 mean "look at seal and verify": rsync
//     delivers mixtures of old and new with exit code 0. Verify decides.
//
// # The 20 ms at rsync's end
//
// rsync polls for its child's end every 20 ms, at both ends; a run of one small
// file takes 5 ms, and 20 to 40 ms more to exit. Neither sleep is waited for:
//
// The sender's rsync finds its -e child gone already. Our helper hands its
// descriptors to the daemon and leaves at once, so rsync exits as soon as it has
// read the receiver's final goodbye. That goodbye is written by the receiving
// generator after the last file was renamed and the last folder touched: it is
// rsync's own proof that everything is in place. Only then, and only for the
// exit codes 0, 23 and 24, does Send call CloseWrite.
//
// The receiver, on that orderly end, looks whether the process that writes
// content is gone too (rsync's generator ends it after the goodbye; its end of
// our pipe is then closed). If so, what is left is a generator asleep. It is
// killed and reaped, which proves that nothing writes any more, and
// Result.Early is set. A peer that lies about the goodbye gains nothing: the same
// kill happens, and verify finds what is missing. In all other cases the exit is
// waited for.
//
// Measured on two busy cores over loopback TCP, one small file: 14 ms from the call
// of Send to its return and 6 ms in Receive, against 48 ms for a plain local rsync.
// The jail adds 6 to 8 ms, of which 4 are the start of a Go program and none the
// namespaces; they are hidden if Receive is called when the batch is asked for.
//
// # Sub-commands
//
// HelperMain and JailMain are sub-commands of our own binary (clsync rsh, clsync
// jail). They run for every batch, so main must call them before it sets up
// anything else, the command line library included.
package rsync
