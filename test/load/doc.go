// Package load writes into trees as programs do, at a bounded rate, and remembers
// what each write put there and what it replaced.
//
// Every content is unique, so that an offline checker can tell afterwards whether
// one was lost: Lost wants each visible, in a conflict store, or replaced by
// somebody who had it on their own disk (promise I2). A Writer has its paths to
// itself; what it left is what all nodes must show in the end, and Wrong says
// where one does not (I1, I5).
package load
