package config

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/BurntSushi/toml"
)

// Parse is Load for a text at hand; file is what errors call it.
func Parse(file, text string) (*Config, error) {
	var raw map[string]any
	if _, err := toml.Decode(text, &raw); err != nil {
		var syntax toml.ParseError
		if !errors.As(err, &syntax) {
			return nil, Errors{{File: file, Msg: err.Error()}}
		}
		return nil, Errors{{File: file, Line: syntax.Position.Line, Msg: syntax.Message}}
	}
	r := &reader{file: file, at: lines(text)}
	c := &Config{File: file}
	r.config(c, raw)
	r.together(c)
	if len(r.errs) > 0 {
		slices.SortStableFunc(r.errs, func(a, b Error) int { return cmp.Compare(a.Line, b.Line) })
		return nil, r.errs
	}
	return c, nil
}

type reader struct {
	file string
	at   map[string]int
	errs Errors
}

// fail notes an error at a key, or, where the key is not in the file, at its table.
func (r *reader) fail(key, format string, args ...any) {
	line, ok := r.at[key]
	for !ok && key != "" {
		key = key[:max(0, strings.LastIndexByte(key, '.'))]
		line, ok = r.at[key]
	}
	r.errs = append(r.errs, Error{File: r.file, Line: line, Msg: fmt.Sprintf(format, args...)})
}

func (r *reader) config(c *Config, raw map[string]any) {
	environment(c)
	sub := []string{"gossip", "multicast", "tree"}
	read(r, "", raw, nodeOptions, c, sub...)
	read(r, "gossip.", r.table(raw, "gossip"), gossipOptions, &c.Gossip)
	read(r, "multicast.", r.table(raw, "multicast"), multicastOptions, &c.Multicast)
	for i, t := range r.tables(raw, "tree") {
		c.Trees = append(c.Trees, Tree{})
		read(r, treeKey(i)+".", t, treeOptions, &c.Trees[i])
	}
}

func treeKey(i int) string { return "tree[" + strconv.Itoa(i) + "]" }

// environment puts in what systemd says, which goes before the defaults and
// after the file.
func environment(c *Config) {
	c.StateDir, _, _ = strings.Cut(os.Getenv("STATE_DIRECTORY"), ":")
	c.RunDir, _, _ = strings.Cut(os.Getenv("RUNTIME_DIRECTORY"), ":")
	if host, err := os.Hostname(); err == nil {
		c.Name, _, _ = strings.Cut(host, ".")
	}
}

func (r *reader) table(raw map[string]any, key string) map[string]any {
	switch v := raw[key].(type) {
	case nil:
		return nil
	case map[string]any:
		return v
	}
	r.fail(key, "%s is a table: write [%s] on a line of its own", key, key)
	return nil
}

func (r *reader) tables(raw map[string]any, key string) []map[string]any {
	switch v := raw[key].(type) {
	case nil:
		return nil
	case []map[string]any:
		return v
	}
	r.fail(key, "%s may come more than once: write [[%s]] on a line of its own", key, key)
	return nil
}

// read fills one table: defaults first, then what the file says, then the checks.
func read[T any](r *reader, prefix string, raw map[string]any, options []option[T], into *T, sub ...string) {
	known := slices.Clone(sub)
	for _, o := range options {
		known = append(known, o.key)
		if v, ok := raw[o.key]; ok {
			if err := assign(o.at(into), v); err != nil {
				r.fail(prefix+o.key, "%s: %v", o.key, err)
				continue
			}
		} else if o.def != "" && isZero(o.at(into)) {
			if err := assign(o.at(into), literal(o.def)); err != nil {
				panic("default of " + o.key + ": " + err.Error())
			}
		}
		if o.check != nil {
			if err := o.check(into); err != nil {
				r.fail(prefix+o.key, "%s: %v", o.key, err)
			}
		}
	}
	for _, k := range slices.Sorted(maps.Keys(raw)) {
		if !slices.Contains(known, k) {
			r.fail(prefix+k, "%s", unknown(prefix, k, known))
		}
	}
}

// unknown says what a key was probably meant to be.
func unknown(prefix, key string, known []string) string {
	msg := fmt.Sprintf("unknown key %q%s", key, place(prefix))
	if near, ok := nearest(key, known); ok {
		return msg + fmt.Sprintf("; did you mean %q?", near)
	}
	for _, t := range []struct {
		prefix string
		keys   []string
	}{
		{"gossip.", keys(gossipOptions)}, {"multicast.", keys(multicastOptions)},
		{"tree[0].", keys(treeOptions)}, {"", keys(nodeOptions)},
	} {
		if slices.Contains(t.keys, key) {
			if t.prefix == "" {
				return msg + "; it belongs at the top, before the first table"
			}
			return msg + "; it belongs" + place(t.prefix)
		}
	}
	return msg
}

func keys[T any](options []option[T]) []string {
	var ks []string
	for _, o := range options {
		ks = append(ks, o.key)
	}
	return ks
}

// place names a table as it is written.
func place(prefix string) string {
	switch {
	case prefix == "":
		return ""
	case strings.HasPrefix(prefix, "tree["):
		return " in [[tree]]"
	}
	return " in [" + strings.TrimSuffix(prefix, ".") + "]"
}

// literal reads a value as it would stand in the file.
func literal(s string) any {
	var v map[string]any
	if _, err := toml.Decode("v = "+s, &v); err != nil {
		panic("default " + s + ": " + err.Error())
	}
	return v["v"]
}

func isZero(p any) bool {
	s, ok := p.(*string)
	return !ok || *s == ""
}

// assign puts a value of the file into a field.
func assign(field, v any) (err error) {
	switch f := field.(type) {
	case *bool:
		var ok bool
		if *f, ok = v.(bool); !ok {
			return errors.New("want true or false")
		}
	case *[]string:
		*f, err = stringsOf(v)
	case *[]netip.Prefix:
		var all []string
		if all, err = stringsOf(v); err == nil {
			*f, err = prefixes(all)
		}
	case *Size:
		if n, ok := v.(int64); ok && n >= 0 {
			*f = Size(n)
			return nil
		}
		return assignText(f, v)
	default:
		return assignText(f, v)
	}
	return err
}

func assignText(field, v any) (err error) {
	s, ok := v.(string)
	if !ok {
		return fmt.Errorf("want a string in quotes, not %v", v)
	}
	switch f := field.(type) {
	case *string:
		*f = s
	case *Jail:
		*f = Jail(s)
	case *Monitor:
		*f = Monitor(s)
	case *Duration:
		*f, err = ParseDuration(s)
	case *Size:
		*f, err = ParseSize(s)
	case *slog.Level:
		if err = oneOf(s, "debug", "info", "warn", "error"); err == nil {
			err = f.UnmarshalText([]byte(s))
		}
	default:
		panic(fmt.Sprintf("option of type %T", field))
	}
	return err
}

func stringsOf(v any) ([]string, error) {
	list, ok := v.([]any)
	if !ok {
		return nil, fmt.Errorf(`want a list such as ["a", "b"], not %v`, v)
	}
	var all []string
	for _, e := range list {
		s, ok := e.(string)
		if !ok {
			return nil, fmt.Errorf("want strings in quotes, not %v", e)
		}
		all = append(all, s)
	}
	return all, nil
}
