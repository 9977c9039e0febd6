package fetcher

import (
	"bytes"
	"fmt"
	"testing"
)

// rosterOf is what a backend sends for a user with n contacts.
func rosterOf(n int) []byte {
	var b bytes.Buffer
	for i := range n {
		b.WriteString(map[bool]string{true: "{", false: ","}[i == 0])
		fmt.Fprintf(&b, `"contact%d@example.org":{"name":"Contact Número %d","groups":{"Friends":true,"Group %d":true},"subscription":"both"}`, i, i, i%7)
	}
	b.WriteString("}")
	return b.Bytes()
}

func BenchmarkDecode(b *testing.B) {
	for _, n := range []int{200, 1000, 100_000} {
		body := string(rosterOf(n))
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			d := newDecoder()
			for b.Loop() {
				if r, _, failure := d.decode(body, juliet); failure != nil || r.Len() != n {
					b.Fatal(r.Len(), failure)
				}
			}
		})
	}
}
