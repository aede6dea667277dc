//go:build !race

package rsync

const race = false
