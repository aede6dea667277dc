//go:build !linux

package monitor

import "context"

// mounts knows nothing here: only the owner's scan finds what was mounted.
type mounts struct{}

func openMounts(string) (*mounts, error) { return &mounts{}, nil }

func (*mounts) survey() ([]string, error) { return nil, nil }

func (*mounts) files() []string { return nil }

func (*mounts) watch(ctx context.Context, _ chan<- struct{}) error {
	<-ctx.Done()
	return nil
}

func (*mounts) close() error { return nil }
