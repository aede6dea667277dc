// Package signature says what a path is and how its versions stand to each other.
//
// The types here are values: a Signature is the replicated facts of a path, a
// Version names it with a Dot, a Record is what the index keeps, Knowledge says
// which dots a node has taken in. The words are those of DESIGN.md, section 1.
//
// Looking at the disk is here too (Root): beneath the root, through no symlink,
// opening regular files only, and never believing a file that moved meanwhile.
package signature
