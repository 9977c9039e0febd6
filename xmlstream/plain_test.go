package xmlstream

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

// plainStanzas are what servers send most, as they write it.
var plainStanzas = []string{
	"<iq type='set' from='example.org' to='contacts.example.org' id='D'><delegation xmlns='urn:xmpp:delegation:2'><forwarded xmlns='urn:xmpp:forward:0'>" +
		"<iq xmlns='jabber:client' type='get' id='r' from='juliet@example.org/balcony'><query xmlns='jabber:iq:roster' ver='abc'/></iq></forwarded></delegation></iq>",
	`<iq xml:lang="en" type="set" from="example.org" to="contacts.example.org" id="D"><delegation xmlns="urn:xmpp:delegation:1"><forwarded xmlns="urn:xmpp:forward:0">` +
		`<iq xmlns="jabber:client" xml:lang="en" to="juliet@example.org" from="juliet@example.org/balcony" type="get" id="r"><query xmlns="jabber:iq:roster"/></iq></forwarded></delegation></iq>`,
	"<iq type='result' id='P' from='juliet@example.org' to='contacts.example.org'><privilege xmlns='urn:xmpp:privilege:2'><forwarded xmlns='urn:xmpp:forward:0'>" +
		"<iq xmlns='jabber:client' type='result' id='P' from='juliet@example.org/balcony'/></forwarded></privilege></iq>",
	"<presence from='juliet@example.org/balcony' to='contacts.example.org'><status>away\n</status><priority>1</priority></presence>",
	"<presence from='juliet@example.org/balcony' type='unavailable' to='contacts.example.org'/>",
	"<a b = 'c'\td=\"'\"></a >",
}

// lessPlain are those that look plain, and are not.
var lessPlain = []string{
	"<a b='&amp;'/>", "<a b='<'/>", "<a b='\t'/>", "<a b='ä'/>", "<a>&lt;</a>", "<a>ä</a>", "<a>]]></a>", "<a>></a>", "<a><![CDATA[]]></a>", "<a><!-- --></a>", "<a><?b?></a>",
	"<a:b/>", "<a xmlns:b='c'/>", "<a xmlns=''><b/></a>", "<a b:c='d'/>", "<a id='1' id='2'/>", "<a b='1'c='2'/>", "<a b/>", "<a b=c/>", "<a></b>", "<a>", "<a", "<", "", "<a/><b/>", "<a/> ",
	"<1/>", "<a / >", "</a>", "<A :", "<a xml:='b'/>", "<a xml:b:c='d'/>", "<a:xml b='c'/>", "<a xmlns='stream'/>", "<a></a", "<a b='", "<a b", "<a b=", "<ä/>", "\xff", "<a>\x00</a>", "<a>\r</a>",
}

// decodePlain decodes data as one stanza, and reports whether it is plain.
func decodePlain(data []byte) (*Element, bool) {
	r := NewReader(bytes.NewReader(data), 1<<20)
	stanza, whole, err := r.Next()
	if err != nil || !whole || !bytes.Equal(stanza, data) {
		return nil, false
	}
	e := r.plain(stanza)
	return e, e != nil
}

// A stanza is plain, or encoding/xml decides.
func TestPlain(t *testing.T) {
	for _, s := range plainStanzas {
		if _, ok := decodePlain([]byte(s)); !ok {
			t.Errorf("not plain: %s", s)
		}
	}
	nested := func(n int) string { return strings.Repeat("<a>", n) + strings.Repeat("</a>", n) }
	if _, ok := decodePlain([]byte(nested(maxDepth))); !ok {
		t.Errorf("%d levels are not plain", maxDepth)
	}
	for _, s := range append(lessPlain, nested(maxDepth+1), "<a>"+strings.Repeat("<b/>", MaxElements)+"</a>") {
		if e, ok := decodePlain([]byte(s)); ok {
			t.Errorf("plain: %.100s: %+v", s, e)
		}
	}
}

// FuzzPlain checks that what is plain is decoded as encoding/xml decodes it.
func FuzzPlain(f *testing.F) {
	for _, s := range append(plainStanzas, lessPlain...) {
		f.Add([]byte(s))
	}
	f.Add([]byte("<a xmlns='stream'><b xmlns='xml'/></a>"))
	f.Add([]byte("<a xmlns='b' c='1' c='2' xmlns='d'><e xml:lang='f' lang='g'>h<i j=\"'\"/></e>\t</a>"))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, ok := decodePlain(data)
		if !ok {
			return
		}
		want, err := Decode(data)
		if err != nil {
			t.Fatalf("plain, and %v", err)
		}
		if !sameElement(got, want) {
			t.Fatalf("got %+v, want %+v", got, want)
		}
		checkBounds(t, got)
	})
}

func sameElement(a, b *Element) bool {
	if a.Name != b.Name || len(a.Attrs) != len(b.Attrs) || len(a.Children) != len(b.Children) {
		return false
	}
	if len(a.Attrs) > 0 && !reflect.DeepEqual(a.Attrs, b.Attrs) {
		return false
	}
	for i := range a.Children {
		if !sameElement(a.Children[i], b.Children[i]) {
			return false
		}
	}
	return true
}

// endless is a stream that repeats itself.
type endless struct{ data []byte }

func (e endless) Read(p []byte) (n int, _ error) {
	for n+len(e.data) <= len(p) {
		n += copy(p[n:], e.data)
	}
	return n, nil
}

func BenchmarkDecode(b *testing.B) {
	data := []byte(plainStanzas[0])
	b.Run("plain", func(b *testing.B) {
		r := NewReader(endless{data}, 1<<16)
		b.ReportAllocs()
		for b.Loop() {
			if _, _, err := r.Next(); err != nil {
				b.Fatal(err)
			}
			if _, err := r.Element(1 << 20); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("xml", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := Decode(data); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func checkBounds(t *testing.T, e *Element) {
	t.Helper()
	elements := 0
	var walk func(e *Element, depth int)
	walk = func(e *Element, depth int) {
		elements++
		if depth > maxDepth || elements > MaxElements {
			t.Fatal(fmt.Errorf("depth %d, %d elements", depth, elements))
		}
		for _, child := range e.Children {
			walk(child, depth+1)
		}
	}
	walk(e, 1)
}

// Texts are found wherever the elements are, in no more time than it takes to read them.
func TestTexts(t *testing.T) {
	for stanza, want := range map[string]string{
		"<a xmlns='x'><b>1&lt;<![CDATA[&]]></b><c>2<b>3<d>4</d>5</b></c><b/><b xmlns='y'>6</b></a>": `["1<&" "35" ""]`,
		"<a xmlns='x'><b>1<b>2</b>3</b></a>":          `["13" "2"]`,
		"<p:a xmlns:p='x'><p:b>1</p:b><b>2</b></p:a>": `["1"]`,
		"<a xmlns='x'/>":             `[]`,
		"<a xmlns='x'><b>&nbsp;</b>": "error",
		"<a xmlns='x'><b>":           "error",
	} {
		texts, err := Texts([]byte(stanza), "x", "b")
		if got := fmt.Sprintf("%q", texts); err == nil && got != want || (err != nil) != (want == "error") {
			t.Errorf("%s: %s, %v", stanza, got, err)
		}
	}
	pieces := "<a xmlns='x'><b>" + strings.Repeat("a<!---->", 100_000) + "</b></a>"
	if texts, err := Texts([]byte(pieces), "x", "b"); err != nil || len(texts) != 1 || len(texts[0]) != 100_000 {
		t.Errorf("%d texts, %v", len(texts), err)
	}
}
