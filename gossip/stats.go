package gossip

import "sync/atomic"

// Stats counts what happened since New.
type Stats struct {
	HeadsAnnounced  uint64 // by Announce
	HeadsReceived   uint64 // new ones, from anywhere
	HeadsStale      uint64 // known already, or older than what is known
	HeadsDropped    uint64 // no room in the table or in the event queue
	HintsSent       uint64 // datagrams with a head
	HintsReceived   uint64
	BeaconsSent     uint64
	BeaconsReceived uint64
	BadDatagrams    uint64 // not ours by form: other magic, version or cluster, malformed
	BadHMAC         uint64
	Replayed        uint64 // seen before, or older than one seen
	RateLimited     uint64 // datagrams dropped unread
	SendErrors      uint64 // datagrams an interface did not take
	BadMessages     uint64 // malformed, though from a holder of the gossip key
	FoundDropped    uint64 // more found nodes than are kept
	Conflicts       uint64
	StreamsRefused  uint64 // TCP connections over the limit or from outside CIDRs
	JoinAttempts    uint64
	Joins           uint64
}

// counters are Stats while they count.
type counters struct {
	headsAnnounced, headsReceived, headsStale, headsDropped     atomic.Uint64
	hintsSent, hintsReceived, beaconsSent, beaconsReceived      atomic.Uint64
	badDatagrams, badHMAC, replayed, rateLimited, sendErrors    atomic.Uint64
	badMessages, foundDropped, conflicts, refused, tries, joins atomic.Uint64
}

func (c *counters) snapshot() Stats {
	return Stats{
		HeadsAnnounced:  c.headsAnnounced.Load(),
		HeadsReceived:   c.headsReceived.Load(),
		HeadsStale:      c.headsStale.Load(),
		HeadsDropped:    c.headsDropped.Load(),
		HintsSent:       c.hintsSent.Load(),
		HintsReceived:   c.hintsReceived.Load(),
		BeaconsSent:     c.beaconsSent.Load(),
		BeaconsReceived: c.beaconsReceived.Load(),
		BadDatagrams:    c.badDatagrams.Load(),
		BadHMAC:         c.badHMAC.Load(),
		Replayed:        c.replayed.Load(),
		RateLimited:     c.rateLimited.Load(),
		SendErrors:      c.sendErrors.Load(),
		BadMessages:     c.badMessages.Load(),
		FoundDropped:    c.foundDropped.Load(),
		Conflicts:       c.conflicts.Load(),
		StreamsRefused:  c.refused.Load(),
		JoinAttempts:    c.tries.Load(),
		Joins:           c.joins.Load(),
	}
}
