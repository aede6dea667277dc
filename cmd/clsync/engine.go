package main

import (
	"log/slog"

	"github.com/clsync/clsync/node"
	"github.com/clsync/clsync/node/config"
)

// startNode makes the engine that "clsync node" runs.
func startNode(c *config.Config, log *slog.Logger) (engine, error) {
	return node.New(c, log, version())
}
