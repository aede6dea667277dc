package main

import (
	"errors"
	"log/slog"

	"github.com/clsync/clsync/node/config"
)

// startNode makes the engine that "clsync node" runs.
func startNode(*config.Config, *slog.Logger) (engine, error) {
	return nil, errors.New("this build has no engine")
}
