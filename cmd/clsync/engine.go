package main

import (
	"log/slog"

	"github.com/clsync/clsync/node"
	"github.com/clsync/clsync/node/config"
)

// startNode makes the engine that "clsync node" runs.
func startNode(c *config.Config, log *slog.Logger) (engine, error) {
	n, err := node.New(c, log, version())
	if err != nil {
		return nil, err
	}
	return n, nil
}
