package main

import "github.com/clsync/clsync/transfer/rsync"

// helpers are what our own processes start us as. They are not for people and do
// not show in --help.
var helpers = map[string]func(args []string) int{
	"rsh":  rsync.HelperMain, // rsync -e: the way to the session
	"jail": rsync.JailMain,   // puts itself in jail, then becomes the receiving rsync
}
