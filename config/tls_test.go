package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAuthorities(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	if c, err := (ContactsTLS{}).Client(); c != nil || err != nil {
		t.Errorf("with the system's: %v, %v", c, err)
	}
	if c, err := (XMPPTLS{}).Client(); c != nil || err != nil {
		t.Errorf("without TLS: %v, %v", c, err)
	}
	for name, want := range map[string]string{"xmpp.example.org": "xmpp.example.org", "BÜCHER.example.": "xn--bcher-kva.example", "xn--BCHER-kva.example": "xn--bcher-kva.example"} {
		c, err := XMPPTLS{ServerName: name}.Client()
		if err != nil || c.ServerName != want || c.RootCAs != nil {
			t.Errorf("%s: got %+v, %v, want %s", name, c, err, want)
		}
	}
	for name, tt := range map[string]struct{ file, want string }{
		"missing":        {filepath.Join(dir, "none.pem"), "no such file"},
		"a folder":       {dir, "is a directory"},
		"not PEM":        {write("key.txt", "-----BEGIN NONSENSE-----"), "wants a file of certificates in PEM"},
		"empty":          {write("empty.pem", ""), "which has none"},
		"far too long":   {write("long.pem", strings.Repeat("x", maxAuthorities+1)), "too long"},
		"a broken block": {write("broken.pem", "-----BEGIN CERTIFICATE-----\nQUJD\n-----END CERTIFICATE-----\n"), "which has none"},
	} {
		_, xmpp := XMPPTLS{CA: tt.file}.Client()
		_, contacts := ContactsTLS{CA: tt.file}.Client()
		for key, err := range map[string]error{"xmpp.tls.ca: ": xmpp, "contacts.tls.ca: ": contacts} {
			if err == nil || !strings.HasPrefix(err.Error(), key) || !strings.Contains(err.Error(), tt.file) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%s: got %v", name, err)
			}
		}
	}
}
