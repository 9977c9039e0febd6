package component

import (
	"bytes"
	"encoding/xml"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"rosterd/internal/xmltext"
)

const header = "<?xml version='1.0'?><stream:stream xmlns='jabber:component:accept' xmlns:stream='http://etherx.jabber.org/streams' id='1>2'>"

func TestFramer(t *testing.T) {
	stanzas := []string{
		"<a/>", "<a b='/>'/>", `<a b="'>"></a>`, "<a><b/>text > text<c></c></a>", "<a / >x</a>", "<a\n/>",
		"<a><![CDATA[</a>]]]]></a>", "<a><!-- -- > </a> --></a>", "<a><?x </a> ?></a>",
	}
	for name, wrap := range map[string]func(io.Reader) io.Reader{
		"at once":     func(r io.Reader) io.Reader { return r },
		"by the byte": iotest.OneByteReader,
	} {
		t.Run(name, func(t *testing.T) {
			f := newFramer(wrap(strings.NewReader(header+" 275\n"+strings.Join(stanzas, "\n 1 <!-- x --> <?y?>")+" </stream:stream>")), 1000)
			if got, err := f.header(); err != nil || string(got) != header {
				t.Errorf("header %s, %v", got, err)
			}
			for _, want := range stanzas {
				if got, whole, err := f.next(); err != nil || !whole || string(got) != want {
					t.Errorf("got %s, %v, %v, want %s", got, whole, err, want)
				}
			}
			if _, _, err := f.next(); err != io.EOF {
				t.Errorf("after the closing tag: %v", err)
			}
		})
	}
}

func TestFramerKeepsTheBeginningOfALongStanza(t *testing.T) {
	f := newFramer(strings.NewReader("<iq id='1'>"+strings.Repeat("<x>y</x>", 100_000)+"</iq><b/>"), 100)
	got, whole, err := f.next()
	if err != nil || whole || len(got) != 100 || !strings.HasPrefix(string(got), "<iq id='1'><x>") {
		t.Errorf("got %s, %v, %v", got, whole, err)
	}
	if got, whole, err := f.next(); err != nil || !whole || string(got) != "<b/>" {
		t.Errorf("got %s, %v, %v", got, whole, err)
	}
}

func TestFramerCutOff(t *testing.T) {
	whole := "<a b='c'>d<!-- e --><![CDATA[f]]><g/></a>"
	for i := range len(whole) {
		f := newFramer(strings.NewReader(whole[:i]), 1000)
		if got, _, err := f.next(); err != io.ErrUnexpectedEOF {
			t.Errorf("%s: got %s, %v", whole[:i], got, err)
		}
	}
	f := newFramer(iotest.ErrReader(io.ErrClosedPipe), 1000)
	if _, _, err := f.next(); err != io.ErrClosedPipe {
		t.Error(err)
	}
}

func BenchmarkFramer(b *testing.B) {
	const n = 100
	data := strings.Repeat(plainStanzas[0], n)
	b.ReportAllocs()
	for b.Loop() {
		f := newFramer(strings.NewReader(data), 1<<16)
		for range n {
			if _, _, err := f.next(); err != nil {
				b.Fatal(err)
			}
		}
	}
}

// What encoding/xml takes for one element is one stanza, whatever comes before
// and after.
func FuzzFramer(f *testing.F) {
	for _, odd := range oddStanzas {
		if len(odd) < 1000 {
			f.Add([]byte(odd))
		}
	}
	f.Add([]byte("<a b='>'><![CDATA[]]></a>"))
	f.Fuzz(func(t *testing.T, data []byte) {
		frames := newFramer(bytes.NewReader(data), 1<<16)
		for { // it ends, and nothing panics
			stanza, whole, err := frames.next()
			if err != nil {
				break
			}
			if whole {
				_, _ = decodeElement(stanza)
			}
			_, _ = decodeStart(stanza)
		}
		if !oneElement(data) {
			return
		}
		frames = newFramer(strings.NewReader("<first/>"+string(data)+"<last/>"), 1<<20)
		for _, want := range []string{"<first/>", string(data), "<last/>"} {
			if got, whole, err := frames.next(); err != nil || !whole || string(got) != want {
				t.Fatalf("got %q, %v, %v, want %q", got, whole, err, want)
			}
		}
	})
}

// oneElement reports whether data is one XML element and nothing else.
func oneElement(data []byte) bool {
	if len(data) == 0 || data[0] != '<' || len(data) > 1 && strings.IndexByte("!?/", data[1]) >= 0 || bytes.Contains(data, []byte("<!")) {
		return false // a declaration is refused, and encoding/xml takes more for one than XML does
	}
	d := xml.NewDecoder(bytes.NewReader(data))
	t, err := d.Token()
	if _, ok := t.(xml.StartElement); err != nil || !ok {
		return false
	}
	return d.Skip() == nil && d.InputOffset() == int64(len(data))
}

// Whatever the text is, what is written is read again as it was, but for what
// XML forbids.
func FuzzAppendEscaped(f *testing.F) {
	f.Add("<a href='x'>&\t\n\r\x00\uFFFE\xff")
	f.Fuzz(func(t *testing.T, s string) {
		data := string(xmltext.AppendAttr([]byte("<a"), "b", s)) + "/>"
		e, err := decodeElement([]byte(data))
		if err != nil {
			t.Fatalf("%s: %v", data, err)
		}
		again := string(xmltext.AppendEscaped(nil, e.get("b")))
		if first := string(xmltext.AppendEscaped(nil, s)); again != first {
			t.Errorf("%q became %q", first, again)
		}
	})
}
