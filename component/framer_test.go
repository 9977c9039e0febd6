package component

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"regexp"
	"strings"
	"testing"
	"testing/iotest"
	"unicode/utf8"

	"rosterd/internal/xmltext"
)

const header = "<?xml version='1.0'?><stream:stream xmlns='jabber:component:accept' xmlns:stream='http://etherx.jabber.org/streams' id='1>2'>"

func TestFramer(t *testing.T) {
	stanzas := []string{
		"<a/>", "<a b='/>'/>", `<a b="'>"></a>`, "<a><b/>text > text<c></c></a>", "<a >x</a\t>", "<a\n/>", "<a\r\n\tb =\n'c' d= \"e\" />",
		"<a><![CDATA[</a>]]]]></a>", "<a><!-- -- > </a> --></a>", "<a><!----></a>", "<a><?x </a> ?></a>",
		"<a:b xml:lang='c' _=''><ab.-1/></a:b>", "<a>\u00E4\u20AC\U0001F600\x7F\r]]</a>", "<\u00E4 \u4E00='\U0010FFFF'></\u00E4>", "<a b='\r\n\t&lt;]]>'>&#10;</a>",
		strings.Repeat("<"+strings.Repeat("n", 1000)+">", 100) + strings.Repeat("</"+strings.Repeat("n", 1000)+">", 100),
		"<" + strings.Repeat("\u00E4", maxOpen) + "><b></b></" + strings.Repeat("\u00E4", maxOpen) + ">",
	}
	for name, wrap := range map[string]func(io.Reader) io.Reader{
		"at once":     func(r io.Reader) io.Reader { return r },
		"by the byte": iotest.OneByteReader,
		"end at once": iotest.DataErrReader,
	} {
		for _, begin := range []string{"", "\uFEFF"} {
			t.Run(name+begin, func(t *testing.T) {
				f := newFramer(wrap(strings.NewReader(begin+header+" \n"+strings.Join(stanzas, "\r\n \t")+" </stream:stream>")), 1<<20)
				if got, err := f.header(); err != nil || string(got) != begin+header {
					t.Errorf("header %s, %v", got, err)
				}
				for _, want := range stanzas {
					if got, whole, err := f.next(); err != nil || !whole || string(got) != want {
						t.Errorf("got %.200s, %v, %v, want %.200s", got, whole, err, want)
					}
				}
				if _, _, err := f.next(); err != io.EOF {
					t.Errorf("after the closing tag: %v", err)
				}
			})
		}
	}
}

// What cannot become XML is noticed with the byte that makes it so: nothing has to
// come behind it.
func TestFramerNoticesAtOnce(t *testing.T) {
	for _, c := range []struct {
		sent string
		want error
	}{
		{"<<", errNotWellFormed}, {"<>", errNotWellFormed}, {"< ", errNotWellFormed}, {"<1", errNotWellFormed}, {"<-", errNotWellFormed}, {"<=", errNotWellFormed},
		{"<\x00", errNotWellFormed}, {"<'", errNotWellFormed}, {"x", errNotWellFormed}, {"\x00", errNotWellFormed}, {"\u00A0", errNotWellFormed}, {">", errNotWellFormed}, {"&", errNotWellFormed},
		{"<a<", errNotWellFormed}, {"<a&", errNotWellFormed}, {"<a'", errNotWellFormed}, {"<a=", errNotWellFormed}, {"<a/ ", errNotWellFormed}, {"<a/b", errNotWellFormed}, {"<a\x01", errNotWellFormed},
		{"<a <", errNotWellFormed}, {"<a b<", errNotWellFormed}, {"<a b>", errNotWellFormed}, {"<a b/", errNotWellFormed}, {"<a b c", errNotWellFormed}, {"<a b=c", errNotWellFormed}, {"<a b=>", errNotWellFormed}, {"<a =", errNotWellFormed},
		{"<a b='<", errNotWellFormed}, {"<a b=\"'<", errNotWellFormed}, {"<a b='c'd", errNotWellFormed}, {"<a b='c'\"", errNotWellFormed}, {"<a b='\x1F", errNotWellFormed}, {"<a b='\xFF", errNotWellFormed},
		{"<a>\x00", errNotWellFormed}, {"<a>b\x08", errNotWellFormed}, {"<a>\x1B", errNotWellFormed}, {"<a>\x80", errNotWellFormed}, {"<a>\xC0", errNotWellFormed}, {"<a>\xC3(", errNotWellFormed},
		{"<a>\xE2\x82<", errNotWellFormed}, {"<a>\xED\xA0", errNotWellFormed}, {"<a>\xF4\x90", errNotWellFormed}, {"<a>\xF8", errNotWellFormed}, {"<a\xC3\xC3", errNotWellFormed},
		{"<a></b", errNotWellFormed}, {"<a><b></a", errNotWellFormed}, {"<ab></a>", errNotWellFormed}, {"<a></ab", errNotWellFormed}, {"<a></ ", errNotWellFormed}, {"<a></a b", errNotWellFormed}, {"<a></a/", errNotWellFormed}, {"<a:b></b", errNotWellFormed},
		{"<a/></a", errNotWellFormed}, {"<a></a></a", errNotWellFormed}, {"<a/>b", errNotWellFormed}, {"<a><![CDATA]", errNotWellFormed}, {"<a><![X", errNotWellFormed}, {"<a><!-a", errNotWellFormed}, {"<a><![CDATA[\x02", errNotWellFormed},
		{"<a><!--\xFF", errNotWellFormed}, {"<a><?b \x03", errNotWellFormed}, {"<stream:stream></stream:b", errNotWellFormed}, {"</a", errNotWellFormed}, {"</stream:streams", errNotWellFormed},
		{"<!", errRestrictedXML}, {"<?", errRestrictedXML}, {"<a/><!", errRestrictedXML}, {"<a><!D", errRestrictedXML}, {"<a><!E", errRestrictedXML}, {"<a><b/><!d", errRestrictedXML},
		{"<a " + strings.Repeat("b='"+strings.Repeat("c", window)+"' ", 3) + "=", errNotWellFormed},
		{strings.Repeat("<a>", maxOpen) + "\x04", errNotWellFormed},
	} {
		for name, wrap := range map[string]func(io.Reader) io.Reader{"at once": func(r io.Reader) io.Reader { return r }, "by the byte": iotest.OneByteReader} {
			f := newFramer(wrap(io.MultiReader(strings.NewReader(header+c.sent), iotest.ErrReader(errLate))), 1000)
			if _, err := f.header(); err != nil {
				t.Fatal(err)
			}
			var err error
			for range 3 {
				_, _, err = f.next()
			}
			if !errors.Is(err, c.want) {
				t.Errorf("%.100q, %s: %v", c.sent, name, err)
			}
		}
	}
	for _, sent := range []string{"H", "\x16", "\xFF\xFE", "\uFFFE", "x<", " <?", "<!", "<?x ", "<?xml?><?", "<?xml\x00", "<1", "<?xml?>\xFF", "</"} {
		f := newFramer(io.MultiReader(strings.NewReader(sent), iotest.ErrReader(errLate)), 1000)
		if got, err := f.header(); !errors.Is(err, errNotWellFormed) {
			t.Errorf("header %q: %q, %v", sent, got, err)
		}
	}
	f := newFramer(io.MultiReader(strings.NewReader("<a/>"), iotest.ErrReader(errLate)), 1000)
	if got, err := f.header(); err != io.ErrUnexpectedEOF {
		t.Errorf("a stream without content: %q, %v", got, err)
	}
}

var errLate = errors.New("not noticed before more was read")

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

// What encoding/xml takes for one element is one stanza, whatever comes before and
// after, and what the framer takes for a stanza is one element to encoding/xml, or
// has a fault that hides no end of it.
func FuzzFramer(f *testing.F) {
	for _, odd := range oddStanzas {
		if len(odd) < 1000 {
			f.Add([]byte(odd))
		}
	}
	for _, s := range append(plainStanzas, lessPlain...) {
		f.Add([]byte(s))
	}
	f.Add([]byte("<a b='>'><![CDATA[]]></a>"))
	f.Add([]byte("<a\tb=\"'\" \u00e4='&#65;&lt;'>\r\u20ac\U0001f600<!-- > --><?b c?></a >"))
	f.Fuzz(func(t *testing.T, data []byte) {
		frames := newFramer(bytes.NewReader(data), 1<<16)
		for { // it ends, and nothing panics
			stanza, whole, err := frames.next()
			if err != nil {
				break
			}
			if whole {
				if err := oneElement(stanza); err != nil && !hidesNoEnd.MatchString(err.Error()) {
					t.Fatalf("%q is a stanza: %v", stanza, err)
				}
				_, _ = decodeElement(stanza)
			}
			_, _ = decodeStart(stanza)
		}
		if oneElement(data) != nil || lax(data) {
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

// oneElement says why data is not one XML element and nothing else.
func oneElement(data []byte) error {
	d := xml.NewDecoder(bytes.NewReader(data))
	t, err := d.Token()
	if _, ok := t.(xml.StartElement); err == nil && !ok {
		err = errors.New("no element")
	}
	if err == nil {
		err = d.Skip()
	}
	if err == nil && d.InputOffset() != int64(len(data)) {
		err = errors.New("it ends before")
	}
	return err
}

// hidesNoEnd are the errors of encoding/xml for what the framer leaves to the
// decoder.
var hidesNoEnd = regexp.MustCompile(`invalid character entity|unescaped \]\]>|illegal character code U\+FFF[EF]|invalid sequence "--"` +
	`|expected target name|unsupported version|invalid XML name|xml: encoding ` +
	`|expected element name after </?$|expected attribute name in element$`) // several colons

// lax reports whether data may be one of those that encoding/xml takes, and that are
// no well-formed XML.
func lax(data []byte) bool {
	if bytes.Count(data, []byte("<!")) != bytes.Count(data, []byte("<!--"))+bytes.Count(data, []byte("<![CDATA[")) {
		return true // a declaration anywhere, and of any content
	}
	for _, r := range string(data) { // in comments and instructions, any byte
		if r == utf8.RuneError || r < ' ' && r != '\t' && r != '\n' && r != '\r' {
			return true
		}
	}
	return unparted.Match(data)
}

// unparted are attributes without white space between them.
var unparted = regexp.MustCompile(`=\s*('[^'<]*'|"[^"<]*")[^\s/>]`)

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
