package control

import (
	"fmt"
	"strings"
	"time"
)

// patience is how long a node that has just started, or a peer that has just
// gone, may be without a connection before it is a problem.
const patience = 15 * time.Second

// stuck is the age from which a waiting change or a busy file is a problem.
const stuck = 10 * time.Minute

// Judge adds to the engine's own problems what the facts show, and says whether
// the node is healthy. Every problem is a sentence that says what to do. Kept
// conflicts are none: they are there to be looked at, at leisure.
func (s *Status) Judge(now time.Time) {
	s.Schema = Schema
	s.Time = now.UTC().Truncate(time.Millisecond)
	for _, t := range s.Trees {
		s.Problems = append(s.Problems, t.problems()...)
	}
	for _, p := range s.Peers {
		if !p.Connected && time.Duration(s.Node.UptimeSeconds)*time.Second >= patience && now.Sub(p.Since) >= patience {
			s.problem("Node %s is not connected%s%s. Look whether clsync runs there and whether %s can be reached from here. If it is gone for good: clsync nodes remove %s",
				Escape(p.Name), since(now, p.Since), because(p.LastError), p.Addr, Escape(p.Name))
		}
	}
	for _, r := range s.Refused {
		s.problem("Node %s at %s was refused%s: %s. If you know it, set that right there; if you do not, find out who it is",
			Escape(r.Name), r.Addr, times(r.Count), r.Reason)
	}
	s.Healthy = len(s.Problems) == 0
}

func (s *Status) problem(format string, args ...any) {
	s.Problems = append(s.Problems, fmt.Sprintf(format, args...))
}

func (t Tree) problems() (ps []string) {
	say := func(format string, args ...any) { ps = append(ps, "Tree "+t.Name+" "+fmt.Sprintf(format, args...)) }
	if t.State == Stopped {
		say("is stopped%s. Nothing is deleted anywhere meanwhile. It goes on by itself as soon as that is mended",
			because(t.Reason))
	}
	if n := len(t.Blocked); n > 0 {
		say("has %s that cannot land here, the first %s: %s. All else goes on; clsync retries", count(n, "path"), Escape(t.Blocked[0].Path), t.Blocked[0].Reason)
	}
	if n := len(t.Unreadable); n > 0 {
		say("has %s that cannot be read, so that changes there are not sent, the first %s: %s", count(n, "path"), Escape(t.Unreadable[0].Path), t.Unreadable[0].Reason)
	}
	if n := len(t.Lacking); n > 0 {
		say("has %s whose attributes the file system of %s does not keep, the first %s. The others keep them; use ext4, xfs or btrfs here", count(n, "path"), Escape(t.Path), Escape(t.Lacking[0].Path))
	}
	if t.Busy > 0 && t.BusySeconds >= stuck.Seconds() {
		say("waits for %s that some program keeps writing, the longest for %s. It is sent when that pauses", count(int(t.Busy), "path"), short(time.Duration(t.BusySeconds*float64(time.Second))))
	}
	for _, l := range t.Peers {
		if l.Connected && l.Seconds >= stuck.Seconds() {
			say("is not keeping up on node %s: %s behind for %s. Look at clsync status there", Escape(l.Name), count(int(l.Records), "record"), short(time.Duration(l.Seconds*float64(time.Second))))
		}
	}
	return ps
}

// Ready says whether every tree has had its first scan and runs, and if not, why.
func (s *Status) Ready() error {
	var not []string
	for _, t := range s.Trees {
		if t.State != Running {
			not = append(not, "tree "+t.Name+" is "+string(t.State))
		}
	}
	if len(not) > 0 {
		return fmt.Errorf("%s", strings.Join(not, ", "))
	}
	return nil
}

func because(reason string) string {
	if reason == "" {
		return ""
	}
	return " (" + reason + ")"
}

func since(now, t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return " since " + short(now.Sub(t))
}

func times(n int64) string {
	if n <= 1 {
		return ""
	}
	return fmt.Sprintf(" %d times", n)
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// short is a duration to two digits that matter.
func short(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h %d min", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}
