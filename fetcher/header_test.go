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
	for _, sent := range []map[string]string{{"Authorization": "Bearer one", "x-key": "two"}, {"Authorization": "Bearer three"}, nil} {
		header := make(http.Header)
		for name, value := range sent {
			header[name] = []string{value} // in any case
		}
		b.SetHeader(header)
		if _, err := b.Fetch(t.Context(), juliet); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"Authorization", "x-key"} {
			if got.Get(name) != sent[name] {
				t.Errorf("%s: %q, want %q", name, got.Get(name), sent[name])
			}
		}
		if got.Get("Accept") != "application/json" {
			t.Errorf("Accept: %q", got.Get("Accept"))
		}
	}
}
