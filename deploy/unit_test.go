package deploy

import (
	"regexp"
	"strings"
	"testing"
)

// The unit offers to hand over each file with a secret: rosterd itself may not be able to read
// it. The database of a pair is in docs/high-availability.md.
func TestUnitOffersEachSecret(t *testing.T) {
	example, unit := read(t, "../config.example.yaml"), read(t, "rosterd.service")
	files := regexp.MustCompile(`(?m)^ *(?:# )?([a-z_]+_file): (/etc/rosterd/(\S+))`).FindAllStringSubmatch(example, -1)
	if len(files) < 5 {
		t.Fatalf("only %q", files)
	}
	for _, f := range files {
		key, path, name := f[1], f[2], f[3]
		if key == "url_file" {
			continue
		}
		if !strings.Contains(unit, "LoadCredential="+name+":"+path+"\n") ||
			!regexp.MustCompile(`Environment=ROSTERD_[A-Z_]+_`+strings.ToUpper(key)+`=%d/`+name+`\n`).MatchString(unit) {
			t.Errorf("no lines for %s: %s", key, path)
		}
	}
}
