// Package index is what a node remembers of a tree: a record per path, found by
// path, by dot, by content and by inode, and the few facts that go with all of them.
//
// Memory keeps it in maps, for tests and the simulator. Store keeps it in a file,
// over days, power cuts and rotten disks; both answer alike. What was put since the
// last Commit stands in memory and is seen by every read; Commit makes it durable
// in one transaction, or none of it. Discard forgets it.
//
// None of the reading and putting methods returns an error. A Store that meets one
// keeps it (Err), answers with zero from then on and commits nothing more: its owner
// looks at Err after each step, before it acts upon an answer.
//
// Both belong to one goroutine. A callback may read and put; whether the iteration
// it is called from still comes across what it puts is not promised.
//
// Every value in the file carries a CRC-32C of its key and itself, and the file as
// a whole a sum over all of them. Open reads all of it before anything is believed:
// a flipped bit, a lost page or an older page is damage, never a different answer. A
// damaged file is set aside and a fresh one begun; what that means for the node's
// dots is the caller's to decide, and Found tells it what it needs.
package index
