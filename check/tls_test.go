package check

import (
	"crypto/tls"
	"encoding/pem"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A component port with TLS, as xmpp.tls says, and all that can be wrong there.
func TestServerWithTLS(t *testing.T) {
	example := httptest.NewTLSServer(nil) // has a certificate for example.com and 127.0.0.1
	t.Cleanup(example.Close)
	config := &tls.Config{Certificates: example.TLS.Certificates}
	file := func(name, text string) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	ca := file("ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: example.Certificate().Raw})))
	none := file("none.pem", "no certificate")
	all := speaks(announced("example.org", nsRoster, permIQ+permPresence))
	secured := func(c net.Conn) { all(tls.Server(c, config)) }
	for name, tt := range map[string]struct {
		serve func(net.Conn)
		tls   map[string]any
		want  string // how the only complaint begins; "": there is none
		line  string
	}{
		"by the address":       {secured, map[string]any{"ca": ca}, "", "with TLS"},
		"by a name":            {secured, map[string]any{"ca": ca, "server_name": "example.com"}, "", "with TLS"},
		"another name":         {secured, map[string]any{"ca": ca, "server_name": "xmpp.example.org"}, "FAIL server: ", `is not for "xmpp.example.org", it is for "example.com"`},
		"an unknown authority": {secured, map[string]any{"server_name": "example.com"}, "FAIL server: ", "xmpp.tls.ca has to be a file"},
		"a plain port":         {says(header), map[string]any{"ca": ca}, "FAIL server: ", "does not speak TLS"},
		"no such file":         {secured, map[string]any{"ca": ca + "x"}, "FAIL configuration: xmpp.tls.ca: ", ca + "x"},
		"no certificates":      {secured, map[string]any{"ca": none}, "FAIL configuration: xmpp.tls.ca: ", none},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := settings(t, listen(t, tt.serve).address())
			s["xmpp"]["tls"] = tt.tls
			output, ok := run(t, s, "juliet")
			got := complaints(output)
			if ok != (tt.want == "") || ok != (len(got) == 0) || !ok && !strings.HasPrefix(got[0], tt.want) || !strings.Contains(output, tt.line) {
				t.Errorf("%v:\n%s", ok, output)
			}
		})
	}
}
