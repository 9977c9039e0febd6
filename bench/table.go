package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// row is a line of the table: what rosterd did, beside its limit.
type row struct {
	what  string
	unit  string  // of both figures
	limit string  // the program or the figure that is the limit
	wants float64 // of the ratio; 0: nothing
	least bool    // the ratio is to be at least that, else at most
	note  string

	samples []sample
}

// sample is what one run gave: the limit's figure, and rosterd's.
type sample struct{ limit, got float64 }

// board collects the samples. Rows are printed in the order in which they were
// made. It is for one goroutine.
type board struct {
	rows []*row
}

func (b *board) row(what, unit, limit string, wants float64, least bool) *row {
	r := &row{what: what, unit: unit, limit: limit, wants: wants, least: least}
	b.rows = append(b.rows, r)
	return r
}

func (r *row) add(limit, got float64) { r.samples = append(r.samples, sample{limit, got}) }

// median is the middle one. It changes the order.
func median[T float64 | time.Duration](all []T) T {
	slices.Sort(all)
	return all[len(all)/2]
}

// figures are the medians, and the ratios of the runs in order.
func (r *row) figures() (limit, got float64, ratios []float64) {
	var limits, gots []float64
	for _, s := range r.samples {
		limits, gots = append(limits, s.limit), append(gots, s.got)
		if s.limit > 0 {
			ratios = append(ratios, s.got/s.limit)
		}
	}
	slices.Sort(ratios)
	return median(limits), median(gots), ratios
}

// print writes the table. The ratio is the median of the runs' own ratios: the
// two programs of a run meet the same machine.
func (b *board) print(w io.Writer) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "WHAT\tLIMIT\t\tROSTERD\tRATIO\tWANTED\t\tRUNS")
	for _, r := range b.rows {
		if len(r.samples) == 0 {
			note := r.note
			if note == "" {
				note = "not measured"
			}
			fmt.Fprintf(t, "%s\t%s\t\t%s\t\t%s\t\t\n", r.what, r.limit, note, r.wanted())
			continue
		}
		limit, got, ratios := r.figures()
		ratio, verdict, spread := "", "", ""
		if len(ratios) > 0 {
			m := ratios[len(ratios)/2]
			ratio, verdict = short(m), r.verdict(m)
			spread = fmt.Sprintf("%s to %s", short(ratios[0]), short(ratios[len(ratios)-1]))
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", r.what, r.limit, figure(limit, r.unit), figure(got, r.unit), ratio, r.wanted(), verdict, spread)
	}
	t.Flush()
	for _, r := range b.rows {
		if r.note != "" && len(r.samples) > 0 {
			fmt.Fprintf(w, "%s: %s\n", r.what, r.note)
		}
	}
}

func (r *row) wanted() string {
	switch {
	case r.wants == 0:
		return "-"
	case r.least:
		return "≥ " + short(r.wants)
	}
	return "≤ " + short(r.wants)
}

func (r *row) verdict(ratio float64) string {
	switch {
	case r.wants == 0:
		return ""
	case r.least == (ratio >= r.wants) || ratio == r.wants:
		return "reached"
	}
	return "MISSED"
}

// short writes a ratio with as many digits as are worth reading.
func short(x float64) string {
	s := fmt.Sprintf("%.3g", x)
	if strings.Contains(s, "e") {
		s = fmt.Sprintf("%.0f", x)
	}
	return s
}

func figure(x float64, unit string) string { return short(x) + unit }
