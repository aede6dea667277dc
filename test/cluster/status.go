package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
)

// A Status is what "clsync status --json" says, as far as tests look at it.
type Status struct {
	Healthy  bool     `json:"healthy"`
	Problems []string `json:"problems"`
	Node     struct {
		ID   string `json:"id"`
		Name string `json:"name"`
		Jail string `json:"jail"`
	} `json:"node"`
	Refused []struct {
		Name   string `json:"name"`
		Addr   string `json:"addr"`
		Reason string `json:"reason"`
	} `json:"refused"`
	Trees []Tree `json:"trees"`
}

// A Tree is the state of one tree.
type Tree struct {
	Name          string   `json:"name"`
	Path          string   `json:"path"`
	State         string   `json:"state"`
	Reason        string   `json:"reason"`
	Backend       string   `json:"backend"`
	BackendReason string   `json:"backend_reason"`
	Pending       int      `json:"pending"` // wanted and not landed
	Blocked       []Block  `json:"blocked"`
	Busy          int      `json:"busy"`  // being written by somebody
	Queue         int      `json:"queue"` // hints not looked at
	Conflicts     int      `json:"conflicts"`
	Unreadable    []Block  `json:"unreadable"`
	Counters      Counters `json:"counters"`
	Peers         []Lag    `json:"peers"`
	Undecided     int64    `json:"undecided"`
}

// Running is the state of a tree that does its work.
const Running = "running"

// A Block is a path with which something is the matter.
type Block struct {
	Path   string `json:"path"`
	Reason string `json:"reason"`
}

// A Lag is how far a peer is behind.
type Lag struct {
	Name      string  `json:"name"`
	Records   int     `json:"records"`
	Bytes     int64   `json:"bytes"`
	Seconds   float64 `json:"seconds"`
	Connected bool    `json:"connected"`
}

// busy says what the tree still has to do, nothing if it is at rest.
func (t Tree) busy() string {
	if t.State != Running || t.Pending > 0 || len(t.Blocked) > 0 || t.Busy > 0 || t.Queue > 0 || len(t.Unreadable) > 0 {
		return fmt.Sprintf("%s (%s), pending %d, busy %d, queue %d, blocked %q, unreadable %q",
			t.State, t.Reason, t.Pending, t.Busy, t.Queue, t.Blocked, t.Unreadable)
	}
	for _, p := range t.Peers {
		if p.Connected && p.Records > 0 {
			return fmt.Sprintf("%s is %d records behind", p.Name, p.Records)
		}
	}
	return ""
}

// Counters only ever rise while a daemon runs.
type Counters map[string]int64

// Status asks the daemon. It fails the test if there is no answer.
func (n *Node) Status() Status {
	n.c.t.Helper()
	s, err := n.status()
	if err != nil {
		n.c.t.Fatalf("status of %s: %v", n.Name, err)
	}
	return s
}

// TreeStatus returns the state of the node's tree.
func (n *Node) TreeStatus() Tree {
	n.c.t.Helper()
	return n.Status().Trees[0]
}

// status takes an answer for an answer whatever the exit status is: that tells
// health, and a test may well look at a node that is not well.
func (n *Node) status() (Status, error) {
	var s Status
	out, err := exec.Command(n.c.binary, "status", "--json", "--config", n.configFile()).Output()
	if len(out) == 0 && err != nil {
		return s, stderrOf(err)
	}
	if err := json.Unmarshal(out, &s); err != nil {
		return s, fmt.Errorf("%w in %q", err, out)
	}
	if len(s.Trees) == 0 {
		return s, errors.New("no trees")
	}
	return s, nil
}

// Counters returns the counters of every running node, by name.
func (c *Cluster) Counters() map[string]Counters {
	c.t.Helper()
	all := map[string]Counters{}
	for _, n := range c.Nodes {
		if n.Running() {
			all[n.Name] = n.TreeStatus().Counters
		}
	}
	return all
}

// Since returns by how much each counter has risen on each node.
func Since(before, after map[string]Counters) map[string]Counters {
	all := map[string]Counters{}
	for node, cs := range after {
		all[node] = Counters{}
		for k, v := range cs {
			if d := v - before[node][k]; d != 0 {
				all[node][k] = d
			}
		}
	}
	return all
}

// Sum adds up one counter over all nodes.
func Sum(all map[string]Counters, counter string) (sum int64) {
	for _, cs := range all {
		sum += cs[counter]
	}
	return sum
}
