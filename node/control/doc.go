// Package control is how people and scripts ask a running node about itself.
//
// The daemon serves HTTP on a unix socket. Who asks is known from the kernel, not
// from what they say: reading is for root, the daemon's user and the operators'
// group, changing for root and the daemon's user only. There is no other way in;
// metrics alone can also be had on a loopback address.
//
// Names of files are bytes. In everything that leaves here they are escaped as Go
// escapes them (without the quotes), so that no name can steer a terminal or
// break JSON; where that loses the bytes, path_b64 has them.
package control
