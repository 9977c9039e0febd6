package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func FuzzLoadBytes(f *testing.F) {
	clearEnv(f)
	for _, pattern := range []string{"testdata/bad/*.yaml", "../config.example.yaml"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			f.Fatal(err)
		}
		for _, name := range files {
			b, err := os.ReadFile(name)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(b)
		}
	}
	f.Add([]byte(fullYAML))
	f.Add([]byte("a: &a [*a, *a]\nb: {<<: *a}"))
	f.Add([]byte("\"xmpp\\0secret\": x"))
	f.Add([]byte(minimal + `  hosts: {"example.org\0url": {url: "http://x/%s"}}`))
	f.Add([]byte(strings.Replace(minimal, "url:", `hosts: '{"Example.org": {"url": "http://%d/%s"}}', url:`, 1)))
	f.Add([]byte(strings.Replace(minimal, "url:", `hosts: {"*": {url: x}, "[::1]": {"*": {url: x}}}, url:`, 1)))
	f.Add([]byte("xmpp: {unrestricted: [yes], presence: off}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if strings.Contains(string(b), "_file") {
			return // would read files
		}
		c, warnings, err := loadBytes(b, "")
		if err != nil {
			if strings.ContainsAny(err.Error(), "\n\r") || len(err.Error()) > 1000 {
				t.Errorf("not one line: %q", err)
			}
			return
		}
		for _, warning := range warnings {
			if strings.ContainsAny(warning, "\n\r") || len(warning) > 1000 {
				t.Errorf("a warning of more than one line: %q", warning)
			}
		}
		if err := c.Validate(); err != nil {
			t.Errorf("valid, and then not: %v", err)
		}
		for _, h := range c.XMPP.Hosts {
			template, err := c.Contacts.TemplateFor(h)
			if err != nil {
				t.Fatalf("no URL for %q: %v", h, err)
			}
			if _, err := template.Expand("user", h); err != nil {
				t.Errorf("no URL for a user of %q: %v", h, err)
			}
			if _, err := c.Contacts.BulkURLFor(h); err != nil {
				t.Errorf("no bulk URL for %q: %v", h, err)
			}
		}
	})
}
