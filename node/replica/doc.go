// Package replica decides what a node makes of what it sees and hears of one tree.
//
// Core takes events in and gives effects out. It reads no clock, disk or socket,
// starts no goroutine and draws no random number: the daemon and the simulator
// drive the same code. What it knows of paths lies in an Index, which it alone
// writes; its owner makes those writes durable before it carries out the effects
// (Effects.Save), so that nothing is told or done that a crash could unsay.
//
// The rules are those of DESIGN.md, sections 4 to 7, for a tree without units.
package replica
