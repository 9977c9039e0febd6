package fetcher

import (
	"net/http"
	"testing"
)

// What is sent with every request is replaced as a whole.
func TestSetHeader(t *testing.T) {
	var got http.Header
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		got = r.Header
		answer(200, `{}`)(w, r)
	})
	b := newBench(t, s.URL)
	for _, header := range []http.Header{{"Authorization": {"Bearer one"}, "x-key": {"two"}}, {"Authorization": {"Bearer three"}}, nil} {
		b.SetHeader(header)
		if _, err := b.Fetch(t.Context(), juliet); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"Authorization", "X-Key"} {
			want := header.Get(name)
			if name == "X-Key" && header["x-key"] != nil {
				want = "two"
			}
			if got.Get(name) != want {
				t.Errorf("%s: %q, want %q", name, got.Get(name), want)
			}
		}
		if got.Get("Accept") != "application/json" {
			t.Errorf("Accept: %q", got.Get("Accept"))
		}
	}
}
