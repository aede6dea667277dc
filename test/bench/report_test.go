package bench

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// A report is the table of one benchmark: a row for each thing measured, a column
// for each that was measured, the floors' in the same run.
type report struct {
	rows []*row
}

type row struct {
	what   string
	unit   string
	target string
	of     map[string]float64
}

// add notes a value under a row's name.
func (r *report) add(what, unit, who string, value float64) {
	for _, x := range r.rows {
		if x.what == what {
			x.of[who] = value
			return
		}
	}
	r.rows = append(r.rows, &row{what: what, unit: unit, of: map[string]float64{who: value}})
}

// took notes times, as their middle and their tail.
func (r *report) took(what, who string, all []time.Duration) {
	slices.Sort(all)
	for _, p := range []int{50, 95, 99} {
		at := min(len(all)-1, len(all)*p/100)
		r.add(fmt.Sprintf("%s p%d", what, p), "ms", who, ms(all[at]))
	}
}

// target says what a row should be.
func (r *report) target(what, target string) {
	for _, x := range r.rows {
		if x.what == what {
			x.target = target
		}
	}
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func seconds(d time.Duration) float64 { return d.Seconds() }

// print writes the table: ours, its ratios to the floors, and the floors themselves.
func (r *report) print(title string) {
	var b strings.Builder
	fmt.Fprintf(&b, "\n%s (%s)\n", title, machine())
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "what\tclsync\tto rsync\tto cp\trsync\tcp\tunit\ttarget")
	for _, x := range r.rows {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", x.what, x.value("clsync"), x.ratio("rsync"), x.ratio("cp"),
			x.value("rsync"), x.value("cp"), x.unit, x.target)
	}
	w.Flush()
	fmt.Fprintln(os.Stdout, b.String())
}

func (x *row) value(who string) string {
	v, ok := x.of[who]
	switch {
	case !ok:
		return "-"
	case v >= 100 || v == 0:
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.3g", v)
}

func (x *row) ratio(to string) string {
	ours, ok := x.of["clsync"]
	floor, is := x.of[to]
	if !ok || !is || floor == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1fx", ours/floor)
}
