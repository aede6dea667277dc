package config

import "reflect"

// Changes are what a reload would do.
type Changes struct {
	Live    []string // keys whose new value is used from now on
	Restart []string // keys whose new value is used after a restart only
	Added   []string // trees
	Removed []string // trees
}

// None tells whether nothing differs. The key file's contents are not looked at.
func (c Changes) None() bool {
	return len(c.Live)+len(c.Restart)+len(c.Added)+len(c.Removed) == 0
}

// Diff says what differs between two configurations, and what of it a running
// node can take over. Trees are matched by name; a tree with another path is the
// same tree and needs a restart.
func Diff(before, now *Config) Changes {
	var c Changes
	compare(&c, "", nodeOptions, before, now)
	compare(&c, "gossip.", gossipOptions, &before.Gossip, &now.Gossip)
	compare(&c, "multicast.", multicastOptions, &before.Multicast, &now.Multicast)
	for _, t := range now.Trees {
		old, ok := before.Tree(t.Name)
		if !ok {
			c.Added = append(c.Added, t.Name)
			continue
		}
		compare(&c, "tree "+t.Name+": ", treeOptions, &old, &t)
	}
	for _, t := range before.Trees {
		if _, ok := now.Tree(t.Name); !ok {
			c.Removed = append(c.Removed, t.Name)
		}
	}
	return c
}

// Effective returns what runs after a reload: now, with what needs a restart
// left as it was.
func Effective(before, now *Config) *Config {
	e := *now
	e.Trees = nil
	hold(nodeOptions, before, &e)
	hold(gossipOptions, &before.Gossip, &e.Gossip)
	hold(multicastOptions, &before.Multicast, &e.Multicast)
	for _, t := range now.Trees {
		if old, ok := before.Tree(t.Name); ok {
			hold(treeOptions, &old, &t)
		}
		e.Trees = append(e.Trees, t)
	}
	return &e
}

func hold[T any](options []option[T], before, now *T) {
	for _, o := range options {
		if !o.live {
			reflect.ValueOf(o.at(now)).Elem().Set(reflect.ValueOf(o.at(before)).Elem())
		}
	}
}

func compare[T any](c *Changes, prefix string, options []option[T], before, now *T) {
	for _, o := range options {
		a, b := reflect.ValueOf(o.at(before)).Elem(), reflect.ValueOf(o.at(now)).Elem()
		if a.Kind() == reflect.Slice && a.Len() == 0 && b.Len() == 0 || reflect.DeepEqual(a.Interface(), b.Interface()) {
			continue
		}
		if o.live {
			c.Live = append(c.Live, prefix+o.key)
		} else {
			c.Restart = append(c.Restart, prefix+o.key)
		}
	}
}
