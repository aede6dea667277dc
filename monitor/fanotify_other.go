//go:build !linux

package monitor

import "errors"

func openFanotify(Config, *sink, *counters) (backend, error) {
	return nil, errors.New("fanotify: only on Linux")
}
