// Package trust says who is who in a cluster.
//
// A node is known by two secrets. The cluster's key is the same file on every
// node; whoever has it belongs to the cluster. From each key in the file come, by
// HKDF with the cluster's name bound in, a gossip key, a beacon key and the key of
// a certificate authority, so that all nodes have the same authority without
// anyone issuing or carrying certificates. The node's own key never leaves its
// node; its digest is the NodeID, and the Nodes registry pins names to it. A
// member can therefore claim a name nobody has yet, but never another's NodeID.
//
// No clock is asked anywhere. A node whose clock stands in 1970 must be able to
// join, and a certificate that a node issues to itself at every start gains
// nothing from an expiry date: what ends trust is a key taken out of the file, or
// a node that was removed.
//
// Several keys may stand in the file. The first seals and issues, all are
// accepted. To change the key of a running cluster: add the new one as second on
// every node, then make it first on every node, then take the old one out. Any two
// nodes that share one key can talk meanwhile.
package trust
