//go:build race

package rsync

const race = true
