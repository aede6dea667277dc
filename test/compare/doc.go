// Package compare tells in what two trees differ.
//
// It is the judge of the tests and therefore shares no code with what it judges:
// it reads the disk by itself, by descriptor and without following a link, and
// compares everything that rsync -aHAXS --numeric-ids keeps: type, mode, owner,
// size, content, modification time to the nanosecond (of links and specials too),
// link target, device number, every extended attribute but security.selinux,
// which names are hard links of one another, and where files have holes.
//
// The facts of the root itself are not compared, nor is .clsync at the top, nor
// what only a disk knows: inode numbers, change times, sizes of folders.
package compare
