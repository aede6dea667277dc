package load

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestAWriterKnowsWhatItLeft makes every operation often and finds nothing wrong
// or lost on the very tree it wrote to; then spoils it and finds that.
func TestAWriterKnowsWhatItLeft(t *testing.T) {
	root := t.TempDir()
	must(t, os.Mkdir(filepath.Join(root, "w"), 0o755))
	h := &History{}
	w := &Writer{Node: "a", Root: root, Dir: "w", Rate: 10_000, Seed: 7, History: h}
	must(t, w.Run(t.Context(), 0)) // sets up
	for range 2000 {
		must(t, w.Step())
	}
	check := func(root string, wantWrong, wantLost bool) {
		t.Helper()
		wrong, err := w.Wrong(root)
		must(t, err)
		lost, err := Lost(h, []string{root}, []string{filepath.Join(root, "nowhere")})
		must(t, err)
		if (len(wrong) > 0) != wantWrong || (len(lost) > 0) != wantLost {
			t.Errorf("wrong: %v\nlost: %v", wrong, lost)
		}
	}
	check(root, false, false)
	kinds := map[kind]int{}
	var some string
	for p, s := range w.state {
		kinds[s.kind]++
		if s.kind == file {
			some = p
		}
	}
	if kinds[file] == 0 || kinds[folder] == 0 || kinds[symlink] == 0 {
		t.Errorf("not everything occurs: %v", kinds)
	}
	if h.Changes() < 2000 {
		t.Errorf("%d changes in 2000 operations", h.Changes())
	}
	copied := t.TempDir()
	if out, err := exec.Command("cp", "-a", root+"/.", copied).CombinedOutput(); err != nil {
		t.Fatalf("cp: %v %s", err, out)
	}
	must(t, os.WriteFile(filepath.Join(copied, some), []byte("torn"), 0o644))
	check(copied, true, true)
	must(t, os.WriteFile(filepath.Join(root, "w", "risen"), nil, 0o644))
	check(root, true, false)
}

func TestLostLooksIntoTheStoresAndAtWhatReplaced(t *testing.T) {
	tree, store := t.TempDir(), t.TempDir()
	contents := map[string][]byte{"visible": []byte("1"), "stored": []byte("2"), "replaced": []byte("3"), "lost": []byte("4")}
	h := &History{}
	for name, b := range contents {
		h.Add(Write{Node: "n", Path: name, Sum: SumOf(b)})
	}
	h.Add(Write{Node: "m", Path: "replaced", Replaces: []Sum{SumOf(contents["replaced"])}})
	must(t, os.WriteFile(filepath.Join(tree, "visible"), contents["visible"], 0o644))
	must(t, os.MkdirAll(filepath.Join(store, "deep", "er"), 0o755))
	must(t, os.WriteFile(filepath.Join(store, "deep", "er", "x"), contents["stored"], 0o644))
	lost, err := Lost(h, []string{tree}, []string{store})
	must(t, err)
	if len(lost) != 1 || !strings.Contains(lost[0], `"lost"`) {
		t.Errorf("Lost = %q, want the one named lost", lost)
	}
	// Whoever writes again what it replaced has not saved it anywhere else.
	h.Add(Write{Node: "m", Path: "lost", Sum: SumOf(contents["lost"]), Replaces: []Sum{SumOf(contents["lost"])}})
	lost, err = Lost(h, []string{tree}, []string{store})
	must(t, err)
	if len(lost) != 2 {
		t.Errorf("Lost = %q, want both writes", lost)
	}
}
