// Package restore copies a kept object with everything that belongs to it.
//
// It is what "clsync conflicts restore" does: the copy is made aside, on the
// target's file system, complete with owner, attributes, mode and times, and then
// takes its name in one step. No symlink is followed on the way, neither beneath
// the folder that it goes into nor inside what is copied. Nothing is overwritten
// unless the caller says so, and a folder that is not empty never.
package restore
