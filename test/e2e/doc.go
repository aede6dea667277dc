// Package e2e shows the promises of DESIGN.md, section 3, on real daemons with
// real rsync and real file systems. Each test's name ends with the numbers of
// the promises it shows. There is nothing in it but tests.
package e2e
