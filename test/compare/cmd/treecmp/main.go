// Command treecmp prints in what two trees differ, names escaped, one difference
// a line. It exits with 0 where they are the same, 1 where they are not, and 2
// where one cannot be read.
package main

import (
	"fmt"
	"os"

	"github.com/clsync/clsync/test/compare"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: treecmp TREE TREE")
		os.Exit(2)
	}
	ds, err := compare.Trees(os.Args[1], os.Args[2])
	if err != nil {
		fmt.Fprintln(os.Stderr, "treecmp:", err)
		os.Exit(2)
	}
	for _, d := range ds {
		fmt.Println(d)
	}
	if len(ds) > 0 {
		os.Exit(1)
	}
}
