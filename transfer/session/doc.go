// Package session keeps one mutual-TLS session to every peer, and opens data
// streams beside it.
//
// A session carries small control frames both ways and tells within
// Config.DeadAfter when the other side is gone. Exactly one lives per pair of
// nodes, whoever dialled: of the two, the node with the lower ID decides which
// connection is kept, numbers its decisions, and the other follows the greatest
// number. So both always agree, also when both dial at once, when a node restarts
// with its old connection still half alive, and when messages on two connections
// overtake one another. A connection is refused in favour of a live session unless
// the peer is a new process or says that it has seen that session end.
//
// A stream is a connection of its own to the same port, so that a large file never
// stands in front of a control frame; flow control is TCP's. Connections of
// streams that ended cleanly are used again. Streams live within a session: they
// end with it, and only a peer with a session may open one.
//
// Nothing is read from a stranger before TLS with a client certificate is through.
// What strangers may cost is bounded: connections at once, connections per address
// and time, and seconds. Addresses that members connect from have a share of their own.
//
// On the wire, after TLS, the dialler sends one byte: control or stream.
//
//	control: hello from both; keep or decline from the lower node; then frames.
//	frame:   payload length (4 bytes, big endian), type (1), payload, CRC-32C of all that (4).
//	stream:  open; accept or reject; then data, stderr, eof, exit; fin from both; again open.
//	chunk:   kind (1 byte), length (3, big endian), bytes; at most 64 KiB in all. TLS seals it.
package session
