package check

import (
	"fmt"
	"io"
	"strings"
	"unicode"
)

// report writes the lines. Of what is wrong with the installation's other
// programs it repeats their words: each line is cleaned and cut.
type report struct {
	w                  io.Writer
	failures, warnings int
}

// maxLine is how many bytes of a line are written.
const maxLine = 1000

// mend writes how to mend what the line before said, indented.
type mend func(lines ...string)

func (r *report) ok(format string, args ...any) mend { return r.line("ok   ", format, args) }

func (r *report) warn(format string, args ...any) mend {
	r.warnings++
	return r.line("warn ", format, args)
}

func (r *report) fail(format string, args ...any) mend {
	r.failures++
	return r.line("FAIL ", format, args)
}

func (r *report) line(level, format string, args []any) mend {
	fmt.Fprintln(r.w, level+clean(fmt.Sprintf(format, args...)))
	return func(lines ...string) {
		for _, line := range lines {
			fmt.Fprintln(r.w, "     "+clean(line))
		}
	}
}

// conclude writes the last line.
func (r *report) conclude() {
	verdict := "rosterd can do its job"
	if r.failures > 0 {
		verdict = "rosterd cannot do its job"
	}
	fmt.Fprintf(r.w, "%s: %d failed, %d to look at\n", verdict, r.failures, r.warnings)
}

// clean makes one line of s.
func clean(s string) string {
	if len(s) > maxLine {
		s = s[:maxLine] + "…"
	}
	return strings.Map(func(c rune) rune {
		if !unicode.IsPrint(c) {
			return unicode.ReplacementChar
		}
		return c
	}, strings.ToValidUTF8(s, "\uFFFD"))
}
