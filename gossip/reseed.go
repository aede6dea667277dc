package gossip

// SetSeeds replaces the seeds while running. Nodes that are members stay so.
func (c *Cluster) SetSeeds(seeds []string) {
	c.seek.setSeeds(seeds)
}

func (s *seeker) setSeeds(seeds []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	want := map[string]bool{}
	for _, seed := range seeds {
		key := "seed " + seed
		want[key] = true
		if s.targets[key] == nil {
			s.targets[key] = &target{seed: seed}
		}
	}
	for key, t := range s.targets {
		if t.seed != "" && !want[key] {
			delete(s.targets, key)
		}
	}
	s.rouse()
}
