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
	f.Fuzz(func(t *testing.T, b []byte) {
		if strings.Contains(string(b), "_file") {
			return // would read files
		}
		c, err := loadBytes(b)
		if err != nil {
			if strings.ContainsAny(err.Error(), "\n\r") || len(err.Error()) > 1000 {
				t.Errorf("not one line: %q", err)
			}
			return
		}
		if err := c.Validate(); err != nil {
			t.Errorf("valid, and then not: %v", err)
		}
	})
}
