package gossip

import "fmt"

// SetSeeds replaces the seeds while running, all of them or, where one cannot be,
// none. Nodes that are members stay so.
func (c *Cluster) SetSeeds(seeds []string) error {
	if err := checkSeeds(seeds); err != nil {
		return err
	}
	c.seek.setSeeds(seeds)
	return nil
}

func checkSeeds(seeds []string) error {
	if len(seeds) > maxSeeds {
		return fmt.Errorf("%w: %d seeds, at most %d", ErrConfig, len(seeds), maxSeeds)
	}
	for _, s := range seeds {
		if _, _, err := splitSeed(s, 1); err != nil {
			return fmt.Errorf("%w: seed %q: %w", ErrConfig, s, err)
		}
	}
	return nil
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
