// Command demo shows clsync at work on one machine: three nodes with a tree each,
// changes on all of them, and how long each change took to the others.
//
// It stays until it is interrupted. With DEMO_SECONDS=n in the environment it
// ends by itself, n seconds after its start at the earliest, checks that the three
// trees are identical, and exits with 1 if they are not.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"github.com/clsync/clsync/test/compare"
)

// patience is how long a change may take before the demo has failed.
const patience = 60 * time.Second

func main() {
	binary := flag.String("clsync", "bin/clsync", "program to show")
	flag.Parse()
	runtime.LockOSThread() // the nodes die with the thread that started them
	if err := run(*binary); err != nil {
		fmt.Fprintln(os.Stderr, "\ndemo:", err)
		os.Exit(1)
	}
}

func run(binary string) (err error) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	begin := time.Now()
	seconds, err := demoSeconds()
	if err != nil {
		return err
	}
	binary, err = filepath.Abs(binary)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "clsync-demo-")
	if err != nil {
		return err
	}
	d := &demo{ctx: ctx, binary: binary, dir: dir}
	defer func() {
		err = errors.Join(err, d.stop())
		if err != nil {
			fmt.Printf("\nThe nodes' logs are kept in %s\n", dir)
			return
		}
		err = os.RemoveAll(dir)
	}()
	for _, part := range []func() error{d.start, d.show} {
		if err := part(); err != nil {
			if ctx.Err() != nil && seconds == 0 {
				fmt.Println("\nStopping.")
				return nil
			}
			return err
		}
	}
	d.epilogue()
	if seconds == 0 {
		<-ctx.Done()
		fmt.Println("\nStopping.")
		return nil
	}
	select {
	case <-ctx.Done():
	case <-time.After(time.Until(begin.Add(seconds))):
	}
	return d.identical()
}

// demoSeconds is how long to stay; 0 is until an interrupt.
func demoSeconds() (time.Duration, error) {
	v := os.Getenv("DEMO_SECONDS")
	if v == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 1 {
		return 0, fmt.Errorf("DEMO_SECONDS=%q: want a number of seconds", v)
	}
	return time.Duration(n) * time.Second, nil
}

// identical waits for what is still under way, then compares all there is to compare.
func (d *demo) identical() error {
	var ds []compare.Difference
	deadline := time.Now().Add(patience)
	for {
		ds = nil
		for _, n := range d.nodes[1:] {
			more, err := compare.Trees(d.nodes[0].tree, n.tree)
			if err != nil {
				return err
			}
			ds = append(ds, more...)
		}
		if len(ds) == 0 {
			tree, err := compare.Scan(d.nodes[0].tree, compare.Facts)
			if err != nil {
				return err
			}
			fmt.Printf("\nThe three trees are identical: %d paths, compared in content, owner, mode, times,\nattributes and links by a program that shares no code with clsync.\n", len(tree))
			return nil
		}
		if time.Now().After(deadline) || d.ctx.Err() != nil {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	for _, diff := range ds {
		fmt.Println("  ", diff)
	}
	return fmt.Errorf("the trees are not identical: %d differences", len(ds))
}
