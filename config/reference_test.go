package config

import (
	"flag"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write docs/configuration.md anew")

// docs/configuration.md is made of config.example.yaml, which says what each key
// means, and of the defaults and tags of [Config].
func TestReference(t *testing.T) {
	t.Setenv("STATE_DIRECTORY", "")
	example, err := os.ReadFile("../config.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	const name = "../docs/configuration.md"
	want := reference(t, string(example))
	if *update {
		if err := os.WriteFile(name, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(name); err != nil || string(got) != want {
		t.Errorf("%s is not made of config.example.yaml as it is (%v): go test ./config -run TestReference -update", name, err)
	}
}

// required says when a key without a default must be set.
var required = map[string]string{
	"xmpp.domain": "required", "xmpp.hosts": "required",
	"xmpp.secret": "required, or the file", "contacts.url": "required, unless each domain has its own",
}

// line is a key or a section in the example, maybe in a comment.
var line = regexp.MustCompile(`^( *)(?:# )?([a-z_]+):( |$)`)

// reference is docs/configuration.md.
func reference(t *testing.T, example string) string {
	c := Default()
	keys := map[string]key{}
	sections := map[string]bool{}
	for _, k := range c.keys() {
		keys[k.name] = k
		for section, _, more := cutLast(k.name); more; section, _, more = cutLast(section) {
			sections[section] = true
		}
	}
	var out strings.Builder
	out.WriteString("# Configuration\n\nThis page is made of [config.example.yaml](../config.example.yaml). A running rosterd reads some keys again when it gets\n" +
		"SIGHUP, see [operations](operations.md#running).\n")
	var path []string    // the sections that the line is in
	var comment []string // the lines of comment since the last key
	var documented []string
	for text := range strings.Lines(example) {
		text = strings.TrimRight(text, "\n")
		m := line.FindStringSubmatch(text)
		name := ""
		if m != nil && len(m[1])/2 <= len(path) {
			name = strings.Join(append(slices.Clone(path[:len(m[1])/2]), m[2]), ".")
		}
		k, isKey := keys[name]
		switch {
		case isKey:
			documented = append(documented, name)
			fmt.Fprintf(&out, "| `%s` | %s | %s | %s |\n", name, value(k), reloaded(k), meaning(t, name, comment))
			path, comment = strings.Split(name, ".")[:strings.Count(name, ".")], nil
		case sections[name]:
			path = strings.Split(name, ".")
			if len(path) == 1 {
				fmt.Fprintf(&out, "\n## %s\n\n%s\n\n| Key | Default | SIGHUP | Meaning |\n|---|---|---|---|\n", name, paragraph(comment))
			} else {
				fmt.Fprintf(&out, "| `%s` | | | %s |\n", name, cell(comment))
			}
			comment = nil
		case strings.HasPrefix(strings.TrimSpace(text), "# ") && !strings.HasPrefix(strings.TrimSpace(text), "#  "):
			comment = append(comment, strings.TrimPrefix(strings.TrimSpace(text), "# "))
		case path == nil && len(comment) > 0: // the end of a paragraph of the head
			fmt.Fprintf(&out, "\n%s\n", paragraph(comment))
			comment = nil
		}
	}
	for _, k := range c.keys() {
		if !slices.Contains(documented, k.name) {
			t.Errorf("%s does not stand in the example", k.name)
		}
	}
	return out.String()
}

func cutLast(name string) (section, last string, found bool) {
	i := strings.LastIndex(name, ".")
	if i < 0 {
		return "", name, false
	}
	return name[:i], name[i+1:], true
}

// noughts are what a duration ends in that is so many hours or minutes.
var noughts = regexp.MustCompile(`([hm])0[ms].*`)

// value is the default of a key.
func value(k key) string {
	if text := required[k.name]; text != "" {
		return text
	}
	switch v := k.value.Interface().(type) {
	case time.Duration:
		return "`" + noughts.ReplaceAllString(v.String(), "$1") + "`"
	default:
		if k.value.IsZero() && k.value.Kind() != reflect.Bool || k.value.Kind() == reflect.Map {
			return "none"
		}
		return fmt.Sprintf("`%v`", v)
	}
}

func reloaded(k key) string {
	if k.reload == "" {
		return ""
	}
	return "yes"
}

// meaning is what the example says of a key. That of a file follows from its name.
func meaning(t *testing.T, name string, comment []string) string {
	if of, is := strings.CutSuffix(name, "_file"); is && len(comment) == 0 {
		_, of, _ = cutLast(of)
		return "A file with it, in place of " + of + "."
	}
	if len(comment) == 0 {
		t.Errorf("the example does not say what %s is", name)
	}
	return cell(comment)
}

func paragraph(comment []string) string { return strings.Join(comment, "\n") }

func cell(comment []string) string {
	return strings.ReplaceAll(strings.Join(comment, " "), "|", `\|`)
}
