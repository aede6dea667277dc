package replica

import (
	"cmp"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/clsync/clsync/signature"
)

// A sim drives the cores of a small cluster, with all that surrounds them, in one
// goroutine and in virtual time. Everything is drawn from the history's seeds.
type sim struct {
	nodes []*simNode
	links map[[2]int]*link
	now   time.Time
	delay time.Duration
	rng   *rand.Rand // of the move at hand
	calm  bool       // nothing fails any more
	trace *strings.Builder
	steps int

	contents int
	written  map[pair]bool
	replaced map[pair]bool // by a user, on a node that showed it
	origin   map[signature.Dot]signature.Dot
	dead     map[signature.Dot]bool // replaced by a change on a node that held it
	verdicts int
	failure  string
}

// A pair is a content at a path.
type pair struct {
	path    signature.Path
	content string
}

// A move is one step of a history. It draws from its own seed, so that leaving out
// another move leaves it as it is.
type move struct {
	kind moveKind
	seed uint64
}

type moveKind uint8

const (
	useMove moveKind = iota
	runMove
	waitMove
	crashMove
	startMove
	cutMove
	healMove
	blockMove
	deafMove
	scanMove
)

var moveNames = [...]string{"use", "run", "wait", "crash", "start", "cut", "heal", "block", "deaf", "scan"}

type history struct {
	seed  uint64
	nodes int
	moves []move
}

func (h history) String() string {
	s := fmt.Sprintf("%d nodes:", h.nodes)
	for _, m := range h.moves {
		s += " " + moveNames[m.kind]
	}
	return s
}

func draw(seed uint64) history {
	rng := rand.New(rand.NewPCG(seed, 1))
	h := history{seed: seed, nodes: 2 + rng.IntN(3)}
	faults := rng.IntN(3) // how rough it is
	for range 10 + rng.IntN(60) {
		m := move{seed: rng.Uint64()}
		switch k := rng.IntN(100); {
		case k < 45:
			m.kind = useMove
		case k < 75:
			m.kind = runMove
		case k < 80:
			m.kind = waitMove
		case faults == 0:
			m.kind = runMove
		case k < 84:
			m.kind = cutMove
		case k < 88:
			m.kind = healMove
		case faults == 1:
			m.kind = useMove
		case k < 91:
			m.kind = crashMove
		case k < 94:
			m.kind = startMove
		case k < 96:
			m.kind = blockMove
		case k < 98:
			m.kind = deafMove
		default:
			m.kind = scanMove
		}
		h.moves = append(h.moves, m)
	}
	return h
}

// maxSteps bounds how long a cluster may take to become quiet.
const maxSteps = 30000

// failed ends a run from wherever it is.
type failed struct{}

func (s *sim) fail(format string, args ...any) {
	s.failure = fmt.Sprintf(format, args...)
	panic(failed{})
}

func (s *sim) say(format string, args ...any) {
	if s.trace != nil {
		fmt.Fprintf(s.trace, "%6dms ", s.now.UnixMilli()-epoch.UnixMilli())
		fmt.Fprintf(s.trace, format, args...)
		s.trace.WriteByte('\n')
	}
}

var epoch = time.Unix(1_700_000_000, 0)

// newSim makes a cluster of nodes with empty trees and a session between any two.
func newSim(nodes int, rng *rand.Rand, trace *strings.Builder) *sim {
	s := &sim{
		links: map[[2]int]*link{}, now: epoch, trace: trace, written: map[pair]bool{}, replaced: map[pair]bool{},
		origin: map[signature.Dot]signature.Dot{}, dead: map[signature.Dot]bool{}, rng: rng,
	}
	if rng.IntN(2) == 0 {
		s.delay = 10 * time.Millisecond
	}
	for i := range nodes {
		n := s.newNode(i)
		n.skew = time.Duration(rng.IntN(3)-1) * time.Duration(rng.IntN(1000)) * time.Millisecond
		s.nodes = append(s.nodes, n)
		n.start()
	}
	s.join()
	return s
}

// join ends all partitions.
func (s *sim) join() {
	for a := range s.nodes {
		for b := range a {
			l, _ := s.link(a, b)
			l.cut = false
			s.connect(a, b)
		}
	}
}

// play runs a history and then lets the cluster come to rest.
func play(h history, trace *strings.Builder) (s *sim) {
	rng := rand.New(rand.NewPCG(h.seed, 2))
	s = newSim(h.nodes, rng, trace)
	defer func() {
		if r := recover(); r != nil {
			if _, ok := r.(failed); !ok {
				panic(r)
			}
		}
	}()
	for _, m := range h.moves {
		s.rng = rand.New(rand.NewPCG(m.seed, 3))
		s.move(m.kind, s.rng)
	}
	s.rng = rng
	s.settle(rng)
	return s
}

func (s *sim) move(kind moveKind, rng *rand.Rand) {
	n := s.nodes[rng.IntN(len(s.nodes))]
	o := rng.IntN(len(s.nodes))
	switch kind {
	case useMove:
		for range 1 + rng.IntN(3) {
			s.use(n, rng) // also while the daemon is down
		}
		s.now = s.now.Add(time.Duration(rng.IntN(3000)) * time.Microsecond)
	case runMove:
		for range 1 + rng.IntN(60) {
			if !s.one(rng) {
				break
			}
		}
	case waitMove:
		end := s.now.Add(time.Duration(rng.IntN(1500)) * time.Millisecond)
		for i := 0; i < 500 && s.one(rng) && s.now.Before(end); i++ {
		}
	case crashMove:
		if !n.down && rng.IntN(3) == 0 {
			n.crash()
		}
		n.dying = !n.down
	case startMove:
		s.restart(n, rng)
	case cutMove:
		if o != n.id {
			s.disconnect(n.id, o)
			l, _ := s.link(n.id, o)
			l.cut = rng.IntN(2) == 0
		}
	case healMove:
		for a := range s.nodes {
			for b := range a {
				if rng.IntN(2) == 0 {
					l, _ := s.link(a, b)
					l.cut = false
					s.connect(a, b)
				}
			}
		}
	case blockMove:
		p := simNames[rng.IntN(len(simNames))]
		s.say("n%d block %s", n.id, p)
		n.blocked[p] = !n.blocked[p]
	case deafMove:
		n.deaf = !n.deaf
	case scanMove:
		if !n.down {
			n.inbox = append(n.inbox, Hinted{Paths: []signature.Path{""}, Deep: true})
		}
	}
}

func (s *sim) restart(n *simNode, rng *rand.Rand) {
	if !n.down {
		return
	}
	if rng.IntN(3) == 0 {
		n.actor.Incarnation++
	}
	s.say("n%d starts as %v", n.id, n.actor)
	n.start()
	for o := range s.nodes {
		if o != n.id {
			s.connect(n.id, o)
		}
	}
}

// one lets one thing happen, and tells whether anything could.
func (s *sim) one(rng *rand.Rand) bool {
	s.rng = rng
	s.steps++
	var can []func()
	for _, n := range s.nodes {
		if n.down {
			continue
		}
		if len(n.inbox) > 0 {
			can = append(can, func() {
				ev := n.inbox[0]
				n.inbox = n.inbox[1:]
				n.step(ev, rng)
			})
		}
		if len(n.looks) > 0 {
			can = append(can, func() { n.lookStep(rng) })
		}
		if len(n.jobs) > 0 {
			can = append(can, func() {
				f := n.jobs[0]
				n.jobs = n.jobs[1:]
				f(rng)
			})
		}
		if len(n.scan) > 0 {
			can = append(can, n.scanOne)
		}
		if len(n.hints) > 0 {
			can = append(can, func() { n.hint(rng) })
		}
		if len(n.serve) > 0 {
			can = append(can, func() { n.serveStep(rng) })
		}
		if !n.wake.IsZero() && !n.wake.After(n.time()) {
			can = append(can, func() { n.step(Tick{}, rng) })
		}
	}
	for _, k := range slices.SortedFunc(maps.Keys(s.links), func(a, b [2]int) int {
		return cmp.Or(a[0]-b[0], a[1]-b[1])
	}) {
		for side, w := range s.links[k].way {
			if len(w) > 0 {
				can = append(can, func() { s.deliver(k[side], k[1-side], rng) })
			}
		}
	}
	if len(can) == 0 {
		return s.sleep()
	}
	s.now = s.now.Add(time.Duration(rng.IntN(1500)) * time.Microsecond)
	can[rng.IntN(len(can))]()
	return true
}

// sleep goes to the next moment at which time alone changes something.
func (s *sim) sleep() bool {
	var next time.Duration = -1
	for _, n := range s.nodes {
		if n.down || n.wake.IsZero() {
			continue
		}
		if d := max(0, n.wake.Sub(n.time())); next < 0 || d < next {
			next = d
		}
	}
	if next < 0 {
		return false
	}
	s.now = s.now.Add(next)
	return true
}

func (n *simNode) hint(rng *rand.Rand) {
	k := 1 + rng.IntN(len(n.hints))
	ev := Hinted{Paths: slices.Clone(n.hints[:k])}
	n.hints = n.hints[k:]
	n.inbox = append(n.inbox, ev)
}

func (s *sim) settle(rng *rand.Rand) {
	s.say("heal")
	s.calm = true
	for _, n := range s.nodes {
		n.deaf, n.dying = false, false
		clear(n.blocked)
		s.restart(n, rng)
	}
	s.join()
	for _, what := range []string{"heal", "scan once more"} {
		s.say("%s", what)
		for _, n := range s.nodes {
			n.inbox = append(n.inbox, Hinted{Paths: []signature.Path{""}, Deep: true})
		}
		for end := s.steps + maxSteps; s.one(rng); {
			if s.steps > end {
				s.fail("never quiet: %s", s.busy())
			}
		}
		s.judge()
	}
}

var (
	simSeed  = flag.Uint64("sim.seed", 0, "play this history alone")
	simSeeds = flag.Uint64("sim.seeds", 0, "play so many random histories")
	simFrom  = flag.Uint64("sim.from", 0, "the first of them")
	simAll   = flag.Bool("sim.all", false, "do not stop at the first failure")
)

func report(t *testing.T, h history) {
	t.Helper()
	small := shrink(h)
	var trace strings.Builder
	s := play(small, &trace)
	text := trace.String()
	if const_ := 400_000; len(text) > const_ {
		text = text[:const_/2] + "\n...\n" + text[len(text)-const_/2:]
	}
	t.Errorf("seed %d: %s\nreplay: go test ./node/replica -run TestSimOne -sim.seed=%d\nshrunk to %s\n%s%s",
		h.seed, s.failure, h.seed, small, text, s.failure)
}

// shrink leaves out moves for as long as the history still fails.
func shrink(h history) history {
	what := kindOf(play(h, nil).failure)
	for size := len(h.moves) / 2; size > 0; {
		cut := false
		for at := 0; at+size <= len(h.moves); {
			g := h
			g.moves = slices.Concat(h.moves[:at], h.moves[at+size:])
			if kindOf(play(g, nil).failure) == what {
				h, cut = g, true
			} else {
				at += size
			}
		}
		if !cut || size > len(h.moves) {
			size /= 2
		}
	}
	return h
}

// kindOf is the failure's first word.
func kindOf(failure string) string {
	k, _, _ := strings.Cut(failure, ":")
	return k
}

func TestSimOne(t *testing.T) {
	if *simSeed == 0 {
		t.Skip("plays the history that -sim.seed names")
	}
	if h := draw(*simSeed); play(h, nil).failure != "" {
		report(t, h)
	}
}

// TestSim plays the same histories every time.
func TestSim(t *testing.T) {
	for seed := uint64(1); seed <= 1500; seed++ {
		h := draw(seed)
		if s := play(h, nil); s.failure != "" {
			report(t, h)
			return
		}
	}
}

// TestSimMore plays as many others as -sim.seeds asks for. About one in 7000 fails;
// known, and still to be mended: 722778 (an echo), 1795353499300842136 (a folder
// that is held and gone, after a crash), 1795353521427050519 (a crash in an apply
// over an unseen edit leaves a conflict of which nobody has the content).
func TestSimMore(t *testing.T) {
	if *simSeeds == 0 {
		t.Skip("plays the histories that -sim.seeds and -sim.from name")
	}
	from, count, end := *simFrom, *simSeeds, time.Now().Add(time.Hour)
	bad, kinds := 0, map[string]int{}
	n := uint64(0)
	for ; n < count && time.Now().Before(end); n++ {
		h := draw(from + n)
		s := play(h, nil)
		if s.failure == "" {
			continue
		}
		if !*simAll {
			report(t, h)
			break
		}
		if kinds[kindOf(s.failure)]++; kinds[kindOf(s.failure)] < 8 {
			t.Errorf("seed %d (%d moves): %.300s", h.seed, len(h.moves), s.failure)
		}
		bad++
	}
	t.Logf("%d histories, %d failed: %v", n, bad, kinds)
}

// TestSimRepeats: the same history twice is the same to the last effect. The order
// of a map must not show.
func TestSimRepeats(t *testing.T) {
	for seed := uint64(1); seed <= 40; seed++ {
		var a, b strings.Builder
		play(draw(seed), &a)
		play(draw(seed), &b)
		if a.String() != b.String() {
			x, y := strings.Split(a.String(), "\n"), strings.Split(b.String(), "\n")
			for i := range min(len(x), len(y)) {
				if x[i] != y[i] {
					t.Fatalf("seed %d, line %d:\n%s\n%s", seed, i, x[i], y[i])
				}
			}
		}
	}
}
