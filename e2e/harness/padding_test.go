package harness

import (
	"strings"
	"testing"
)

// What a padder passes on does not depend on the pieces in which it gets it.
func TestPadder(t *testing.T) {
	const header = `<?xml version='1.0'?><stream:stream to='a>b' xmlns:stream="urn:x/">`
	long := strings.Repeat("y", longTag)
	short := `<presence><show>away</show></presence><iq type='get' id='1'/>`
	empty := `<iq id='/>` + long + `"'/>`
	child := `<message><x a="` + long + `>"><y/></x><z b='` + long + `z'></z></message>`
	pad := func(stanza string, tag int) string { return stanza + strings.Repeat(" ", tag) }
	for _, step := range []struct{ name, in, want string }{
		{"short", short, short},
		{"long text", "<message><body>" + long + "</body></message>", "<message><body>" + long + "</body></message>"},
		{"a long tag", empty + short, pad(empty, len(empty)) + short},
		{"two long tags within", short + child + short, short + pad(child, longTag+len("<z b='z'>")) + short},
		{"a stream within a stream", header + short + header + empty, header + short + header + pad(empty, len(empty))},
		{"the end", empty + "</stream:stream>", pad(empty, len(empty)) + "</stream:stream>"},
		{"a long tag that is all", "<x a='" + long, "<x a='" + long},
	} {
		for _, piece := range []int{1, 7, 4096} {
			var got strings.Builder
			p := &padder{w: &got}
			in := header + step.in
			for from := 0; from < len(in); from += piece {
				part := in[from:min(from+piece, len(in))]
				if n, err := p.Write([]byte(part)); n != len(part) || err != nil {
					t.Fatal(n, err)
				}
			}
			if got.String() != header+step.want {
				t.Errorf("%s, in pieces of %d: %d bytes: %.200s", step.name, piece, got.Len(), got.String())
			}
		}
	}
}
