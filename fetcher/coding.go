package fetcher

import (
	"compress/gzip"
	"io"
	"net/http"
	"slices"
	"strings"
)

// codings are the content codings that there are (RFC 9110, section 18.6), but for
// identity, which is none.
var codings = []string{"aes128gcm", "br", "compress", "dcb", "dcz", "deflate", "exi", "gzip", "pack200-gzip", "x-compress", "x-gzip", "zstd"}

// decoded is the body of an answer without its content coding. What the Transport
// asked for, gzip, it has decoded and taken off the header, as a rule. odd says
// that the header has something that is no coding.
//
// COMPAT backends that write "identity" there, or a charset: it changes nothing.
func decoded(resp *http.Response) (body io.Reader, odd bool, err error) {
	var found []string
	for part := range strings.SplitSeq(strings.Join(resp.Header.Values("Content-Encoding"), ","), ",") {
		switch name := strings.ToLower(strings.TrimSpace(part)); {
		case slices.Contains(codings, name):
			found = append(found, name)
		case name != "" && name != "identity":
			odd = true
		}
	}
	switch {
	case len(found) == 0:
		return resp.Body, odd, nil
	case len(found) > 1:
		return nil, odd, &Error{Result: resultInvalid, text: "the answer has several content codings, rosterd reads gzip alone"}
	case found[0] == "gzip" || found[0] == "x-gzip":
		body, err = gzip.NewReader(resp.Body)
		return body, odd, err
	}
	return nil, odd, &Error{Result: resultInvalid, text: "the answer has the content coding " + found[0] + ", rosterd reads gzip alone"}
}
