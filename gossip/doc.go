// Package gossip says who is there and spreads heads.
//
// Everything it reports is a hint. Membership is memberlist's opinion, which any
// holder of the gossip key can bend; a head says that a node has news, never what
// they are; a multicast datagram says where it may be worth to dial. Whatever
// counts is settled afterwards over mutual TLS. File lists never travel here.
//
// A node is found by its seeds alone, by multicast alone, or by both. A head goes
// out three ways at once: as a broadcast that replaces the one before it, in the
// state that two nodes exchange now and then, and as one multicast datagram.
// Nodes pass on the heads they hear, so that two that cannot reach each other
// still hear of each other through a third.
//
// All that is kept or queued here has a limit. What does not fit is dropped and
// counted (Stats); only membership is never dropped, because it is kept per
// member and not per event.
package gossip
