package replica

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/clsync/clsync/signature"
)

// What broke once, told as what users do. Each is played with many schedules, and
// must end as every history does: all the same everywhere, nothing lost, nothing
// made up. A "-" lets a little happen, "settle" everything.
var transcripts = []struct{ name, text string }{
	// A file that children turn into a folder was not kept: it was taken for what
	// is shown (seeds 11, 43, 12).
	{"file against folder with children", `
		0 write d
		1 mkdir d
		1 write d/x
		settle`},
	{"link against folder with children", `
		0 symlink d
		1 mkdir d
		1 write d/x
		settle`},
	// The verdict chose the folder and dropped the link whose facts it wore (14830).
	{"two losers against children", `
		cut 0 1
		0 symlink d
		1 write d
		2 mkdir d
		2 write d/x
		join
		-
		settle`},
	{"two losers against children of a removed folder", `
		0 mkdir d
		0 write d/x
		settle
		cut 0 1
		cut 1 2
		cut 0 2
		0 remove d
		0 write d
		2 remove d
		2 symlink d
		1 write d/y
		join
		-
		settle`},
	// What a version had replaced stayed listed where a greater one that says the
	// same was known already: no cut named the path again (59, 1468, 1922).
	{"a replaced version hides behind its equal", `
		0 write d
		settle
		cut 0 1
		cut 0 2
		0 remove d
		0 mkdir d
		1 remove d
		1 mkdir d
		join
		-
		2 write f
		settle`},
	{"equal folders over a file that another node edits", `
		0 write d
		settle
		cut 0 1
		cut 1 2
		cut 0 2
		0 remove d
		0 mkdir d
		1 remove d
		1 mkdir d
		2 write d
		join
		settle`},
	// A user's delete was taken for the delete of others, and what it replaced
	// stayed listed, on no disk and in no store (499, 375).
	{"deleted here and there, in conflict", `
		0 write d
		1 write d
		-
		0 remove d
		-
		1 remove d
		-
		settle`},
	// The loser stood in the elected node's own store, which was never asked (620).
	{"a loser that the own store has", `
		0 write d
		1 write d
		-
		1 mkdir e
		1 remove d
		1 mkdir d
		1 symlink d/e
		-
		1 chmod d
		-
		settle`},
	// A change through one name was applied in place and showed under another, of
	// which a look then made a version (23, 1551, 3717).
	{"chmod of one of two links, made elsewhere", `
		0 write d
		settle
		0 link d a
		2 chmod d
		-
		settle`},
	{"chmod of three links", `
		0 write d
		0 link d a
		0 link d b
		settle
		0 chmod d
		-
		1 chmod a
		-
		settle`},
	{"touch of linked symlinks", `
		0 symlink a
		0 link a b
		settle
		0 touch b
		-
		settle`},
	// A mark that another name's removal had made stale served nobody (1588).
	{"a link outlives the name it was made of", `
		0 write a
		-
		0 link a b
		0 remove a
		-
		settle`},
	// Written under two names of two groups (43359).
	{"a link made while its file is changed", `
		0 write d
		settle
		1 touch d
		-
		0 link d a
		-
		0 write d
		settle`},
	{"a verdict keeps its links", `
		cut 0 1
		0 write d
		1 write d
		0 link d a
		join
		-
		1 link d b
		-
		settle`},
	{"a file comes and goes under the same name", `
		0 write a
		-
		0 rename a b
		-
		0 write a
		1 remove b
		-
		0 rename b a
		settle`},
	{"folder renamed, edited inside", `
		0 mkdir d
		0 write d/x
		0 write d/y
		settle
		0 rename d f
		1 write d/x
		-
		settle`},
	{"killed while it applies", `
		0 write a
		0 mkdir d
		0 write d/x
		-
		kill 1
		-
		0 rename d f
		kill 0
		-
		settle`},
}

func TestTranscripts(t *testing.T) {
	for _, tt := range transcripts {
		t.Run(strings.ReplaceAll(tt.name, " ", "_"), func(t *testing.T) {
			for seed := range uint64(60) {
				var trace strings.Builder
				if failure := tell(tt.text, seed, nil); failure != "" {
					tell(tt.text, seed, &trace)
					t.Fatalf("schedule %d: %s\n%s%s", seed, failure, trace.String(), failure)
				}
			}
		})
	}
}

// tell plays a transcript with three nodes.
func tell(text string, seed uint64, trace *strings.Builder) (failure string) {
	rng := rand.New(rand.NewPCG(seed, 4))
	s := newSim(3, rng, trace)
	defer func() {
		if r := recover(); r != nil {
			if _, ok := r.(failed); !ok {
				panic(r)
			}
		}
		failure = s.failure
	}()
	for line := range strings.Lines(text) {
		if words := strings.Fields(line); len(words) > 0 {
			s.say("# %s", strings.TrimSpace(line))
			s.act(words, rng)
		}
	}
	return ""
}

func (s *sim) act(words []string, rng *rand.Rand) {
	number := func(i int) (n int) {
		if _, err := fmt.Sscan(words[i], &n); err != nil {
			panic(err)
		}
		return n
	}
	switch words[0] {
	case "-":
		for i := rng.IntN(60); i > 0 && s.one(rng); i-- {
		}
		return
	case "settle":
		s.settle(rng)
		s.calm = false
		return
	case "cut":
		s.disconnect(number(1), number(2))
		l, _ := s.link(number(1), number(2))
		l.cut = true
		return
	case "join":
		s.join()
		return
	case "kill":
		s.nodes[number(1)].dying = true
		return
	}
	n, p := s.nodes[number(0)], signature.Path(words[2])
	d := n.disk
	at := d.names[p]
	if n.down || words[1] != "mkdir" && words[1] != "write" && words[1] != "symlink" && at == nil || !d.hasParent(p) {
		return // this schedule has gone another way
	}
	switch words[1] {
	case "write":
		if at == nil || at.kind == signature.File {
			s.write(n, p, s.fresh())
		}
	case "mkdir":
		if at == nil {
			s.place(n, p, d.make(signature.Folder, 0o755, ""))
		}
	case "symlink":
		if at == nil {
			s.place(n, p, d.make(signature.Symlink, 0, s.fresh()))
		}
	case "remove":
		s.vacate(n, p)
	case "rename":
		s.rename(n, p, signature.Path(words[3]))
	case "link":
		if q := signature.Path(words[3]); at.kind != signature.Folder && d.names[q] == nil && d.hasParent(q) {
			s.place(n, q, at)
		}
	case "chmod":
		if at.kind != signature.Symlink {
			s.chmod(n, p)
		}
	case "touch":
		s.touch(n, p, 0)
	default:
		panic(words[1])
	}
}
