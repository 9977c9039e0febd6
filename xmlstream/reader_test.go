package xmlstream

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"unicode/utf8"
)

const header = "<?xml version='1.0'?><stream:stream xmlns='jabber:component:accept' xmlns:stream='http://etherx.jabber.org/streams' id='1>2'>"

func TestReader(t *testing.T) {
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
				f := NewReader(wrap(strings.NewReader(begin+header+" \n"+strings.Join(stanzas, "\r\n \t")+" </stream:stream>")), 1<<20)
				if got, err := f.Header(); err != nil || string(got) != begin+header {
					t.Errorf("header %s, %v", got, err)
				}
				for _, want := range stanzas {
					if got, whole, err := f.Next(); err != nil || !whole || string(got) != want {
						t.Errorf("got %.200s, %v, %v, want %.200s", got, whole, err, want)
					}
				}
				if _, _, err := f.Next(); err != io.EOF {
					t.Errorf("after the closing tag: %v", err)
				}
			})
		}
	}
}

// What cannot become XML is noticed with the byte that makes it so: nothing has to
// come behind it.
func TestReaderNoticesAtOnce(t *testing.T) {
	for _, c := range []struct {
		sent string
		want error
	}{
		{"<<", ErrNotWellFormed}, {"<>", ErrNotWellFormed}, {"< ", ErrNotWellFormed}, {"<1", ErrNotWellFormed}, {"<-", ErrNotWellFormed}, {"<=", ErrNotWellFormed},
		{"<\x00", ErrNotWellFormed}, {"<'", ErrNotWellFormed}, {"x", ErrNotWellFormed}, {"\x00", ErrNotWellFormed}, {"\u00A0", ErrNotWellFormed}, {">", ErrNotWellFormed}, {"&", ErrNotWellFormed},
		{"<a<", ErrNotWellFormed}, {"<a&", ErrNotWellFormed}, {"<a'", ErrNotWellFormed}, {"<a=", ErrNotWellFormed}, {"<a/ ", ErrNotWellFormed}, {"<a/b", ErrNotWellFormed}, {"<a\x01", ErrNotWellFormed},
		{"<a <", ErrNotWellFormed}, {"<a b<", ErrNotWellFormed}, {"<a b>", ErrNotWellFormed}, {"<a b/", ErrNotWellFormed}, {"<a b c", ErrNotWellFormed}, {"<a b=c", ErrNotWellFormed}, {"<a b=>", ErrNotWellFormed}, {"<a =", ErrNotWellFormed},
		{"<a b='<", ErrNotWellFormed}, {"<a b=\"'<", ErrNotWellFormed}, {"<a b='c'd", ErrNotWellFormed}, {"<a b='c'\"", ErrNotWellFormed}, {"<a b='\x1F", ErrNotWellFormed}, {"<a b='\xFF", ErrNotWellFormed},
		{"<a>\x00", ErrNotWellFormed}, {"<a>b\x08", ErrNotWellFormed}, {"<a>\x1B", ErrNotWellFormed}, {"<a>\x80", ErrNotWellFormed}, {"<a>\xC0", ErrNotWellFormed}, {"<a>\xC3(", ErrNotWellFormed},
		{"<a>\xE2\x82<", ErrNotWellFormed}, {"<a>\xED\xA0", ErrNotWellFormed}, {"<a>\xF4\x90", ErrNotWellFormed}, {"<a>\xF8", ErrNotWellFormed}, {"<a\xC3\xC3", ErrNotWellFormed},
		{"<a></b", ErrNotWellFormed}, {"<a><b></a", ErrNotWellFormed}, {"<ab></a>", ErrNotWellFormed}, {"<a></ab", ErrNotWellFormed}, {"<a></ ", ErrNotWellFormed}, {"<a></a b", ErrNotWellFormed}, {"<a></a/", ErrNotWellFormed}, {"<a:b></b", ErrNotWellFormed},
		{"<a/></a", ErrNotWellFormed}, {"<a></a></a", ErrNotWellFormed}, {"<a/>b", ErrNotWellFormed}, {"<a><![CDATA]", ErrNotWellFormed}, {"<a><![X", ErrNotWellFormed}, {"<a><!-a", ErrNotWellFormed}, {"<a><![CDATA[\x02", ErrNotWellFormed},
		{"<a><!--\xFF", ErrNotWellFormed}, {"<a><?b \x03", ErrNotWellFormed}, {"<stream:stream></stream:b", ErrNotWellFormed}, {"</a", ErrNotWellFormed}, {"</stream:streams", ErrNotWellFormed},
		{"<!", ErrRestrictedXML}, {"<?", ErrRestrictedXML}, {"<a/><!", ErrRestrictedXML}, {"<a><!D", ErrRestrictedXML}, {"<a><!E", ErrRestrictedXML}, {"<a><b/><!d", ErrRestrictedXML},
		{"<a " + strings.Repeat("b='"+strings.Repeat("c", window)+"' ", 3) + "=", ErrNotWellFormed},
		{strings.Repeat("<a>", maxOpen) + "\x04", ErrNotWellFormed},
	} {
		for name, wrap := range map[string]func(io.Reader) io.Reader{"at once": func(r io.Reader) io.Reader { return r }, "by the byte": iotest.OneByteReader} {
			f := NewReader(wrap(io.MultiReader(strings.NewReader(header+c.sent), iotest.ErrReader(errLate))), 1000)
			if _, err := f.Header(); err != nil {
				t.Fatal(err)
			}
			var err error
			for range 3 {
				_, _, err = f.Next()
			}
			if !errors.Is(err, c.want) {
				t.Errorf("%.100q, %s: %v", c.sent, name, err)
			}
		}
	}
	for _, sent := range []string{"H", "\x16", "\xFF\xFE", "\uFFFE", "x<", " <?", "<!", "<?x ", "<?xml?><?", "<?xml\x00", "<1", "<?xml?>\xFF", "</"} {
		f := NewReader(io.MultiReader(strings.NewReader(sent), iotest.ErrReader(errLate)), 1000)
		if got, err := f.Header(); !errors.Is(err, ErrNotWellFormed) {
			t.Errorf("header %q: %q, %v", sent, got, err)
		}
	}
	f := NewReader(io.MultiReader(strings.NewReader("<a/>"), iotest.ErrReader(errLate)), 1000)
	if got, err := f.Header(); err != io.ErrUnexpectedEOF {
		t.Errorf("a stream without content: %q, %v", got, err)
	}
}

var errLate = errors.New("not noticed before more was read")

func TestReaderKeepsTheBeginningOfALongStanza(t *testing.T) {
	f := NewReader(strings.NewReader("<iq id='1'>"+strings.Repeat("<x>y</x>", 100_000)+"</iq><b/>"), 100)
	got, whole, err := f.Next()
	if err != nil || whole || len(got) != 100 || !strings.HasPrefix(string(got), "<iq id='1'><x>") {
		t.Errorf("got %s, %v, %v", got, whole, err)
	}
	if got, whole, err := f.Next(); err != nil || !whole || string(got) != "<b/>" {
		t.Errorf("got %s, %v, %v", got, whole, err)
	}
}

func TestReaderCutOff(t *testing.T) {
	whole := "<a b='c'>d<!-- e --><![CDATA[f]]><g/></a>"
	for i := range len(whole) {
		f := NewReader(strings.NewReader(whole[:i]), 1000)
		if got, _, err := f.Next(); err != io.ErrUnexpectedEOF {
			t.Errorf("%s: got %s, %v", whole[:i], got, err)
		}
	}
	f := NewReader(iotest.ErrReader(io.ErrClosedPipe), 1000)
	if _, _, err := f.Next(); err != io.ErrClosedPipe {
		t.Error(err)
	}
}

func BenchmarkReader(b *testing.B) {
	const n = 100
	data := strings.Repeat(plainStanzas[0], n)
	b.ReportAllocs()
	for b.Loop() {
		f := NewReader(strings.NewReader(data), 1<<16)
		for range n {
			if _, _, err := f.Next(); err != nil {
				b.Fatal(err)
			}
		}
	}
}

// oddStanzas are what a server may be led to send. None ends the stream.
var oddStanzas = []string{
	"<presence from='romeo@example.org/x'><priority>500</priority></presence>",
	"<foo xmlns='urn:foo'><bar/></foo>",
	"<stream:foo/>",
	"<stream:error><conflict xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>",
	"<message from='romeo@example.org/x'><body><![CDATA[</body></message></stream:stream>]]></body></message>",
	"<message><!-- > </stream:stream> --></message>",
	"<message><!-- a -- b ---></message>",
	"<message><?y > </stream:stream> ?></message>",
	"<message>]]></message>",
	"<message a='1' a='2'/>",
	"<message a='\uFFFE'>\uFFFF</message>",
	" \n\t ",
	"<message><x:y/></message>",
	"<message><a:b:c/></message>",
	"<message a:b:c='1'/>",
	"<message a='a>b' to=\"'>\"/>",
	"<message a='&nbsp;'>&foo; & so &#0; on</message>",
}

// What encoding/xml takes for one element is one stanza, whatever comes before and
// after, and what the reader takes for a stanza is one element to encoding/xml, or
// has a fault that hides no end of it.
func FuzzReader(f *testing.F) {
	for _, s := range slices.Concat(oddStanzas, plainStanzas, lessPlain) {
		f.Add([]byte(s))
	}
	f.Add([]byte("<a b='>'><![CDATA[]]></a>"))
	f.Add([]byte("<a\tb=\"'\" \u00e4='&#65;&lt;'>\r\u20ac\U0001f600<!-- > --><?b c?></a >"))
	f.Fuzz(func(t *testing.T, data []byte) {
		frames := NewReader(bytes.NewReader(data), 1<<16)
		for { // it ends, and nothing panics
			stanza, whole, err := frames.Next()
			if err != nil {
				break
			}
			if whole {
				if err := oneElement(stanza); err != nil && !hidesNoEnd.MatchString(err.Error()) {
					t.Fatalf("%q is a stanza: %v", stanza, err)
				}
				e, err := frames.Element(1 << 20)
				want, wrong := Decode(stanza)
				if (err == nil) != (wrong == nil) || err == nil && !sameElement(e, want) {
					t.Fatalf("%q: %+v, %v, want %+v, %v", stanza, e, err, want, wrong)
				}
				if e != nil {
					checkBounds(t, e)
				}
			}
			decodeStart(stanza)
		}
		if oneElement(data) != nil || lax(data) {
			return
		}
		frames = NewReader(strings.NewReader("<first/>"+string(data)+"<last/>"), 1<<20)
		for _, want := range []string{"<first/>", string(data), "<last/>"} {
			if got, whole, err := frames.Next(); err != nil || !whole || string(got) != want {
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

// hidesNoEnd are the errors of encoding/xml for what the reader leaves to the
// decoder.
var hidesNoEnd = regexp.MustCompile(`invalid character entity|unescaped \]\]>|illegal character code U\+|invalid sequence "--"` +
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
		data := string(AppendAttr([]byte("<a"), "b", s)) + "/>"
		e, err := Decode([]byte(data))
		if err != nil {
			t.Fatalf("%s: %v", data, err)
		}
		again := string(AppendEscaped(nil, e.Get("b")))
		if first := string(AppendEscaped(nil, s)); again != first {
			t.Errorf("%q became %q", first, again)
		}
	})
}
