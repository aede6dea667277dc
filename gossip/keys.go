package gossip

import (
	"bytes"
	"fmt"
	"slices"
)

// SetKeys replaces all keys while running. To change a key without losing sight of
// anyone, give every node first (old, new), then (new, old), then (new).
func (c *Cluster) SetKeys(keys, beaconKeys [][]byte) error {
	if err := checkKeys("gossip", keys); err != nil {
		return err
	}
	if c.cast != nil {
		if err := checkKeys("beacon", beaconKeys); err != nil {
			return err
		}
	}
	c.keys.Lock()
	defer c.keys.Unlock()
	if err := c.setRing(cloneKeys(keys)); err != nil {
		return fmt.Errorf("set gossip keys: %w", err)
	}
	if c.cast != nil {
		s := newSeal(c.cfg.Cluster, beaconKeys)
		c.cast.seal.Store(&s)
	}
	return nil
}

// setRing removes keys from the end only: Keyring.RemoveKey moves what stands
// behind the removed key within the slice that GetKeys has given to readers. A
// kept key that stands behind a stale one is therefore away for a moment.
func (c *Cluster) setRing(keys [][]byte) error {
	in := func(list [][]byte, k []byte) bool {
		return slices.ContainsFunc(list, func(o []byte) bool { return bytes.Equal(o, k) })
	}
	if err := c.ring.AddKey(keys[0]); err != nil {
		return err
	}
	if err := c.ring.UseKey(keys[0]); err != nil {
		return err
	}
	for {
		have := c.ring.GetKeys()
		if !slices.ContainsFunc(have, func(k []byte) bool { return !in(keys, k) }) {
			break
		}
		if err := c.ring.RemoveKey(have[len(have)-1]); err != nil {
			return err
		}
	}
	for _, k := range keys[1:] {
		if err := c.ring.AddKey(k); err != nil {
			return err
		}
	}
	return nil
}
