package control

import "time"

// Schema names the form of Status. It changes when a field changes its meaning or
// goes away, not when one is added.
const Schema = "clsync/status/1"

// Status is everything a node says about itself.
type Status struct {
	Schema   string    `json:"schema"`
	Time     time.Time `json:"time"`
	Healthy  bool      `json:"healthy"`
	Problems []string  `json:"problems"` // sentences that say what to do
	Node     Self      `json:"node"`
	Peers    []Peer    `json:"peers"`
	Refused  []Refused `json:"refused"`
	Trees    []Tree    `json:"trees"`
}

// Self is the node that answers.
type Self struct {
	ID            string `json:"id"`
	Name          string `json:"name"`
	Cluster       string `json:"cluster"`
	Version       string `json:"version"`
	UptimeSeconds int64  `json:"uptime_seconds"`
	Listen        string `json:"listen"`
	Rsync         string `json:"rsync"` // its version
	Jail          string `json:"jail"`  // on, or why it is not
}

// A Peer is another node of the cluster.
type Peer struct {
	ID        string    `json:"id"`
	Name      string    `json:"name"`
	Addr      string    `json:"addr"`
	Connected bool      `json:"connected"`
	Since     time.Time `json:"since"` // of being connected, or not
	LastError string    `json:"last_error,omitempty"`
}

// A Refused peer is one that was turned away.
type Refused struct {
	Name   string    `json:"name"`
	Addr   string    `json:"addr"`
	Reason string    `json:"reason"`
	Since  time.Time `json:"since"`
	Count  int64     `json:"count"`
}

// A TreeState is what a tree is doing.
type TreeState string

const (
	Starting TreeState = "starting"
	Scanning TreeState = "scanning"
	Running  TreeState = "running"
	Stopped  TreeState = "stopped" // Reason says why
)

// A Tree is one replicated folder on this node.
type Tree struct {
	Name          string     `json:"name"`
	Path          string     `json:"path"`
	State         TreeState  `json:"state"`
	Reason        string     `json:"reason,omitempty"`
	Backend       string     `json:"backend"` // of the monitor
	BackendReason string     `json:"backend_reason,omitempty"`
	Files         int64      `json:"files"`         // paths of every type
	Pending       int64      `json:"pending"`       // wanted here and not landed
	PendingBytes  int64      `json:"pending_bytes"` // of these
	Blocked       []PathNote `json:"blocked"`       // cannot land
	Busy          int64      `json:"busy"`          // being written, waited for
	BusySeconds   float64    `json:"busy_seconds"`  // of the oldest of these
	Conflicts     int64      `json:"conflicts"`     // states kept in the conflict store
	Unreadable    []PathNote `json:"unreadable"`    // cannot be looked at
	Queue         int64      `json:"queue"`         // hints not yet looked at
	Undecided     int64      `json:"undecided"`     // paths with several versions, no verdict yet
	Local         int64      `json:"local"`         // changed here on a receive-only tree
	LocalPaths    []PathNote `json:"local_paths,omitempty"`
	Lacking       []PathNote `json:"lacking,omitempty"` // landed without attributes that this disk cannot keep
	Resting       int64      `json:"resting"`           // replaced files that a program still holds open
	Counters      Counters   `json:"counters"`
	Peers         []Lag      `json:"peers"`
}

// A PathNote says what is the matter with a path.
type PathNote struct {
	Path    string    `json:"path"`
	PathB64 string    `json:"path_b64,omitempty"` // filled in by Escape
	Reason  string    `json:"reason"`
	Since   time.Time `json:"since"`
}

// Lag is how far a peer is behind this node in a tree.
type Lag struct {
	ID        string  `json:"id"`
	Name      string  `json:"name"`
	Records   int64   `json:"records"`
	Bytes     int64   `json:"bytes"`
	Seconds   float64 `json:"seconds"` // age of the oldest change it lacks
	Connected bool    `json:"connected"`
}

// Counters count from the start of the daemon and never fall.
type Counters struct {
	VersionsMade       int64 `json:"versions_made"`
	FolderVersionsMade int64 `json:"folder_versions_made"`
	RecordsApplied     int64 `json:"records_applied"`
	RecordsSent        int64 `json:"records_sent"`
	RecordsReceived    int64 `json:"records_received"`
	ContentsSent       int64 `json:"contents_sent"`
	ContentsReceived   int64 `json:"contents_received"`
	BytesSent          int64 `json:"bytes_sent"`
	BytesReceived      int64 `json:"bytes_received"`
	RsyncRuns          int64 `json:"rsync_runs"`
	Echoes             int64 `json:"echoes"`
	EchoesSuppressed   int64 `json:"echoes_suppressed"`
	Looks              int64 `json:"looks"`
	Applies            int64 `json:"applies"`
	ConflictsMade      int64 `json:"conflicts_made"`
	Overflows          int64 `json:"overflows"`
	Scans              int64 `json:"scans"`
}

// A Node is one entry of the list of nodes.
type Node struct {
	ID        string    `json:"id"`
	Name      string    `json:"name"`
	Addr      string    `json:"addr,omitempty"`
	Self      bool      `json:"self"`
	Connected bool      `json:"connected"`
	LastSeen  time.Time `json:"last_seen"`
}

// A Conflict is one state that lost and was kept.
type Conflict struct {
	ID      string    `json:"id"` // names it on this node
	Tree    string    `json:"tree"`
	Path    string    `json:"path"`
	PathB64 string    `json:"path_b64,omitempty"` // filled in by Escape
	Why     string    `json:"why"`
	When    time.Time `json:"when"`    // kept since
	Node    string    `json:"node"`    // whose state it was
	Version string    `json:"version"` // its dot
	Winner  string    `json:"winner"`  // the dot of what is shown instead
	Type    string    `json:"type"`
	Size    int64     `json:"size"`
	MTime   time.Time `json:"mtime"`
	Object  string    `json:"object"`               // path of the kept object on this machine
	ObjB64  string    `json:"object_b64,omitempty"` // filled in by Escape
}
