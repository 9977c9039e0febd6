package fetcher

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"testing"
)

// What curl shows as good is good, and what is not says why.
func TestContentEncoding(t *testing.T) {
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	io.WriteString(z, good)
	z.Close()
	const no = "not JSON, and the answer has a content coding other than gzip"
	for _, test := range []struct {
		name     string
		encoding []string
		body     string
		failure  string
	}{
		{"none", nil, good, ""},
		{"empty", []string{""}, good, ""},
		{"identity", []string{"identity"}, good, ""},
		{"identity in any case", []string{"IDENTITY"}, good, ""},
		{"identity twice", []string{"identity, Identity"}, good, ""},
		{"identity, and no JSON", []string{"identity"}, "<html>", "not JSON"},
		{"a charset", []string{"iso-8859-1"}, good, ""},
		{"nonsense", []string{"application/json", "none"}, good, ""},
		{"nonsense, and no JSON", []string{"lzma"}, "\x5d\x00" + bodySecret, no},
		{"a byte order mark", nil, "\ufeff" + good, ""},
		{"a byte order mark and nonsense", []string{"utf8"}, "\ufeff" + good, ""},
		{"a byte order mark alone", nil, "\ufeff", "an empty body"},
		{"gzip", []string{"GZip"}, packed.String(), ""},
		{"gzip behind identity", []string{"identity", "gzip"}, packed.String(), ""},
		{"x-gzip", []string{"x-gzip"}, packed.String(), ""},
		{"gzip that is none", []string{"x-gzip"}, good, "not valid gzip"},
		{"gzip twice", []string{"gzip, gzip"}, packed.String(), no},
		{"another", []string{"Deflate"}, "\x78\x9c" + bodySecret, no},
		{"another by name alone", []string{"br"}, good, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header()["Content-Encoding"] = test.encoding
				io.WriteString(w, test.body)
			})
			b := newBench(t, s.URL)
			r, err := b.Fetch(t.Context(), juliet)
			if test.failure != "" {
				b.check(t, r, err, resultInvalid, test.failure)
			} else if err != nil || r.Len() != 1 {
				t.Errorf("%v, %v", r, err)
			}
		})
	}
}

// The same goes for many users at once.
func TestBulkWithByteOrderMark(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "UTF-8")
		io.WriteString(w, "\ufeff"+`{"juliet": `+good+`}`)
	})
	b := newBench(t, s.URL, func(o *Options) {
		o.BulkSize, o.BulkURL = 10, func(string) (string, bool) { return s.URL + "/bulk", true }
	})
	if i, ok := b.InspectBulk(t.Context(), juliet); !ok || i.Err != nil || i.Missing || i.Items != 1 {
		t.Errorf("%+v", i)
	}
}
