package xmlstream

import (
	"bytes"
	"strings"
	"testing"
)

func TestPadding(t *testing.T) {
	long := func(n int) string { return "<item name='" + strings.Repeat("n", n-len("<item name=''/>")) + "'/>" }
	for _, test := range []struct {
		name, stanza string
		want         int
	}{
		{"short", "<iq><query/></iq>", 0},
		{"many short tags", "<iq>" + strings.Repeat(long(longTag), 9) + "</iq>", 0},
		{"long text", "<iq><group>" + strings.Repeat("g", 5*longTag) + "</group></iq>", 0},
		{"long text and short tags", "<iq>" + strings.Repeat("<group>"+strings.Repeat("g", 3*longTag)+"</group>"+long(longTag), 9) + "</iq>", 0},
		{"the last tag", "<iq>" + long(5000) + "</iq>", 5000 - len("</iq>")},
		{"the only tag", long(5000), 5000},
		{"just too long", "<iq>" + long(longTag+1) + "</iq>", longTag + 1 - len("</iq>")},
		{"behind long text", "<iq>" + strings.Repeat("g", 5000) + long(3000) + "</iq>", 3000 - len("</iq>")},
		{"enough behind it", "<iq>" + long(5000) + strings.Repeat("g", 5000) + "</iq>", 0},
		{"something behind it", "<iq>" + long(5000) + strings.Repeat(long(1000), 3) + "</iq>", 2000 - len("</iq>")},
		{"two", "<iq>" + long(9000) + long(3000) + "</iq>", 6000 - len("</iq>")},
		{"a long tag that opens", "<iq id='" + strings.Repeat("i", 3000) + "'><query/></iq>", 3010 - len("<query/></iq>")},
		{"no XML", strings.Repeat("<", 5000), 0},
	} {
		if got := Padding([]byte(test.stanza)); got != test.want {
			t.Errorf("%s: %d blanks, want %d", test.name, got, test.want)
		}
	}
	for _, n := range []int{0, 1, len(blanks), 3*len(blanks) + 7} {
		if got := bytes.Join(AppendBlanks(nil, n), nil); len(got) != n || len(bytes.Trim(got, " ")) > 0 {
			t.Errorf("%d blanks are %d", n, len(got))
		}
	}
}

// deferring is a server's parser that defers, at its worst: a tag that had not
// ended with what was read before is looked at again when there are twice as
// many bytes.
type deferring struct {
	buf    []byte
	before int // bytes of an unended tag at the last look
}

// read reports how many tags have been seen to end with the bytes of one read.
func (d *deferring) read(p []byte) (ended int) {
	d.buf = append(d.buf, p...)
	for len(d.buf) >= 2*d.before && len(d.buf) > 0 {
		end := bytes.IndexByte(d.buf, '>')
		if open := bytes.IndexByte(d.buf, '<'); open < 0 { // text does not wait
			d.buf, d.before = nil, 0
			break
		} else if open > 0 {
			d.buf, d.before = d.buf[open:], 0
			continue
		}
		if end < 0 {
			d.before = len(d.buf)
			break
		}
		d.buf, d.before = d.buf[end+1:], 0
		ended++
	}
	return ended
}

// However a server reads, with the padding every tag ends with the stanza.
func TestPaddingEndsDeferral(t *testing.T) {
	for _, tag := range []int{longTag + 1, 8191, 8192, 8193, 20_000, 100_001} {
		for _, piece := range []int{longTag / 2, 1460, 8192, 65536} {
			for shift := range 7 {
				stanza := "<iq>" + strings.Repeat("<x/>", 97*shift) + "<item name='" + strings.Repeat("n", tag-15) + "'/></iq>"
				stream := append([]byte(stanza), bytes.Join(AppendBlanks(nil, Padding([]byte(stanza))), nil)...)
				d, ended := deferring{}, 0
				for len(stream) > 0 {
					n := min(piece, len(stream))
					ended += d.read(stream[:n])
					stream = stream[n:]
				}
				if want := strings.Count(stanza, ">"); ended != want {
					t.Errorf("a tag of %d bytes, read by %d: %d tags have ended, not %d", tag, piece, ended, want)
				}
			}
		}
	}
}

func BenchmarkPadding(b *testing.B) {
	item := []byte("<item jid='user123@example.org' name='Somebody' subscription='both'><group>Friends</group></item>")
	stanza := bytes.Repeat(item, 200)
	b.SetBytes(int64(len(stanza)))
	for b.Loop() {
		Padding(stanza)
	}
}
