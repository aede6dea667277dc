package config

import (
	"fmt"
	"strings"
)

// Template returns the commented file that "clsync init" writes: every option
// with its default, commented out, and the trees given. set holds values, as they
// would stand in the file, by the option's full name ("name", "gossip.seeds").
func Template(set map[string]string, trees ...Tree) string {
	var b strings.Builder
	b.WriteString("# clsync: configuration of one node. Unknown keys are errors.\n" +
		"# Check it with: clsync check-config FILE\n" +
		"# Keys marked (reload) change with: systemctl reload clsync\n")
	section(&b, "", nodeOptions, set)
	b.WriteString("\n[gossip]\n")
	section(&b, "gossip.", gossipOptions, set)
	b.WriteString("\n[multicast]\n")
	section(&b, "multicast.", multicastOptions, set)
	for _, t := range trees {
		b.WriteString("\n[[tree]]\n")
		section(&b, "tree.", treeOptions, map[string]string{
			"tree.name": fmt.Sprintf("%q", t.Name), "tree.path": fmt.Sprintf("%q", t.Path),
		})
	}
	if len(trees) == 0 {
		var example strings.Builder
		section(&example, "tree.", treeOptions, nil)
		b.WriteString("\n# One [[tree]] per replicated folder.\n# [[tree]]\n" + example.String())
	}
	return b.String()
}

func section[T any](b *strings.Builder, prefix string, options []option[T], set map[string]string) {
	for _, o := range options {
		mark, value := "# ", o.show
		if value == "" {
			value = o.def
		}
		if v, ok := set[prefix+o.key]; ok {
			mark, value = "", v
		}
		doc := o.doc
		if o.live {
			doc += " (reload)"
		}
		fmt.Fprintf(b, "\n# %s\n%s%s = %s\n", doc, mark, o.key, value)
	}
}
