package config

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the option table in the README")

// TestReadme keeps the README's option table equal to the options.
func TestReadme(t *testing.T) {
	const file, from, to = "../../README.md", "<!-- options -->\n", "<!-- /options -->"
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(text), from)
	table, tail, closed := strings.Cut(rest, to)
	if !ok || !closed {
		t.Fatalf("%s has no %s ... %s", file, strings.TrimSpace(from), to)
	}
	if table == reference() {
		return
	}
	if !*update {
		t.Fatal("the README's option table is not what the options say; run: go test ./node/config -update")
	}
	if err := os.WriteFile(file, []byte(head+from+reference()+to+tail), 0o644); err != nil {
		t.Fatal(err)
	}
}

// reference returns the table of all options for the README, in Markdown.
func reference() string {
	var b strings.Builder
	b.WriteString("| key | default | reload | meaning |\n|---|---|---|---|\n")
	rows(&b, "", nodeOptions)
	rows(&b, "gossip.", gossipOptions)
	rows(&b, "multicast.", multicastOptions)
	rows(&b, "tree.", treeOptions)
	return b.String()
}

func rows[T any](b *strings.Builder, prefix string, options []option[T]) {
	for _, o := range options {
		def, live := "", ""
		if o.def != "" {
			def = "`" + o.def + "`"
		}
		if o.live {
			live = "yes"
		}
		fmt.Fprintf(b, "| `%s%s` | %s | %s | %s |\n", prefix, o.key, def, live, o.doc)
	}
}
