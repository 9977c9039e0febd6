package fetcher

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"rosterd/internal/leak"
	"rosterd/roster"
)

// series is what each makes of the numbers below n, with commas.
func series(n int, each func(i int) string) string {
	var all strings.Builder
	for i := range n {
		if i > 0 {
			all.WriteByte(',')
		}
		all.WriteString(each(i))
	}
	return all.String()
}

// TestHostileContents: whatever a backend puts into a roster, each entry is an
// item that every server takes or is skipped with its reason, and the other
// contacts are served. If there are none, that is a failure.
func TestHostileContents(t *testing.T) {
	const (
		megabyte = 1 << 20
		bidi     = "\u202e\u2066\u200f"
	)
	entry := func(contact, fields string) string { return fmt.Sprintf("%q:{%s}", contact, fields) }
	for name, test := range map[string]struct {
		entries string // beside that of the nurse
		items   int    // beside that
		skipped counts
		ignored counts
		check   func(t *testing.T, r *roster.Roster)
	}{
		"10,000 groups": {
			entries: entry("romeo@example.org", `"groups":[`+series(10_000, func(i int) string { return fmt.Sprintf(`"Group %d"`, i) })+`]`),
			items:   1,
			ignored: counts{fieldGroups: 1},
		},
		"10,000 groups as an object": {
			entries: entry("romeo@example.org", `"groups":{`+series(10_000, func(i int) string { return fmt.Sprintf(`"Group %d":true`, i) })+`}`),
			items:   1,
			ignored: counts{fieldGroups: 1},
		},
		"10,000 groups of 10,000 contacts": {
			entries: series(10_000, func(i int) string {
				return entry(fmt.Sprintf("contact%d@example.org", i), fmt.Sprintf(`"groups":["Group %d"]`, i))
			}),
			items: 10_000,
		},
		"the same group 10,000 times": {
			entries: entry("romeo@example.org", `"groups":[`+series(10_000, func(int) string { return `"Friends"` })+`]`),
			items:   1,
			check: func(t *testing.T, r *roster.Roster) {
				if i, _ := r.Item(mustParse("romeo@example.org")); !slices.Equal(i.Groups, []string{"Friends"}) {
					t.Errorf("%d groups", len(i.Groups))
				}
			},
		},
		"a megabyte of name": {
			entries: entry("romeo@example.org", `"name":"`+strings.Repeat("x", megabyte)+`"`),
			items:   1,
			ignored: counts{fieldName: 1},
		},
		"a megabyte of characters that XML forbids": {
			entries: entry("romeo@example.org", `"name":"R`+strings.Repeat(`\u0000`, megabyte/6)+`"`),
			items:   1,
			check: func(t *testing.T, r *roster.Roster) {
				if i, _ := r.Item(mustParse("romeo@example.org")); i.Name != "R" {
					t.Errorf("the name has %d bytes", len(i.Name))
				}
			},
		},
		"a megabyte of group": {
			entries: entry("romeo@example.org", `"groups":["`+strings.Repeat("x", megabyte)+`"]`),
			items:   1,
			ignored: counts{fieldGroups: 1},
		},
		"a megabyte of JID": {
			entries: entry("romeo@"+strings.Repeat("x.", megabyte/2)+"org", ""),
			skipped: counts{reasonJID: 1},
		},
		"a megabyte of other fields": {
			entries: entry("romeo@example.org", series(50_000, func(i int) string { return fmt.Sprintf(`"field%d":[{}]`, i) })),
			items:   1,
		},
		"a megabyte of odd fields": {
			entries: entry("romeo@example.org", series(100_000, func(int) string { return `"ask":[]` })+`,"name":[]`),
			items:   1,
			ignored: counts{fieldAsk: 1, fieldName: 1},
		},
		"bidirectional and control characters": {
			entries: `"romeo@example.org":{"name":"` + bidi + `\u0007\u001b[31m\u007f\u0085\ufffeR","groups":["` + bidi + `\u0000"]}`,
			items:   1,
			check: func(t *testing.T, r *roster.Roster) {
				i, _ := r.Item(mustParse("romeo@example.org"))
				if i.Name != roster.CleanText(i.Name) || strings.ContainsAny(i.Name, "\x00\x07\x1b\ufffe") || !strings.HasSuffix(i.Name, "R") {
					t.Errorf("the name is %q", i.Name)
				}
			},
		},
		"such characters in JIDs": {
			entries: `"ro` + bidi + `meo@example.org":{},"romeo@exa` + bidi + `mple.org":{},"ro\u0000meo@example.org":{},"ro\tmeo@example.org":{},"romeo@example.org\n":{}`,
			skipped: counts{reasonJID: 5},
		},
		"JIDs that only differ before preparation": {
			entries: series(8192, func(i int) string { // 2 to the number of letters
				letters := []byte("romeo@example")
				for bit := range letters {
					if i>>bit&1 == 1 && letters[bit] != '@' {
						letters[bit] -= 'a' - 'A'
					}
				}
				return entry(string(letters)+".org", fmt.Sprintf(`"name":"%d"`, i))
			}),
			items:   1,
			skipped: counts{reasonDouble: 8191},
			check: func(t *testing.T, r *roster.Roster) {
				if i, _ := r.Item(mustParse("romeo@example.org")); i.Name != "0" {
					t.Errorf("the name is that of %s", i.Name)
				}
			},
		},
		"markup": {
			entries: entry("romeo@example.org", `"name":"]]></item><!--&#0;&amp;","groups":["</group><group>"]`),
			items:   1,
			check: func(t *testing.T, r *roster.Roster) {
				if i, _ := r.Item(mustParse("romeo@example.org")); i.Name != "]]></item><!--&#0;&amp;" || i.Groups[0] != "</group><group>" {
					t.Errorf("the item is %+v", i)
				}
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			leak.Check(t)
			alone := "{" + test.entries + "}"
			body := `{"nurse@example.org":{},` + test.entries + "}"
			large := func(o *Options) { o.MaxBytes = 8 << 20 }

			b := newBench(t, serve(t, answer(200, body)).URL, large)
			began := time.Now()
			r, err := b.Fetch(t.Context(), juliet)
			if err != nil {
				t.Fatal(err)
			}
			if took := time.Since(began); took > patience {
				t.Errorf("took %v", took)
			}
			if _, ok := r.Item(mustParse("nurse@example.org")); !ok || r.Len() != 1+test.items {
				t.Errorf("%d items", r.Len())
			}
			for _, reason := range SkipReasons {
				if got := b.skipped(reason); got != test.skipped[reason] {
					t.Errorf("%d entries were skipped by %s, want %d", got, reason, test.skipped[reason])
				}
			}
			for _, field := range Fields {
				if got := b.ignored(field); got != test.ignored[field] {
					t.Errorf("the field %s was ignored %d times, want %d", field, got, test.ignored[field])
				}
			}
			for _, i := range r.Items() {
				checkItem(t, i)
			}
			if test.check != nil {
				test.check(t, r)
			}
			if log := b.log.String(); len(log) > 1000 || strings.ContainsAny(log, bidi+"\x00\x1b") {
				t.Errorf("logged %q", log)
			}

			b = newBench(t, serve(t, answer(200, alone)).URL, large)
			r, err = b.Fetch(t.Context(), juliet)
			if test.items == 0 {
				if e := (*Error)(nil); r != nil || !errors.As(err, &e) || e.Result != resultInvalid {
					t.Errorf("alone: %v, %v", r, err)
				}
			} else if err != nil || r.Len() != test.items {
				t.Errorf("alone: %d items, %v", r.Len(), err)
			}
		})
	}
}
