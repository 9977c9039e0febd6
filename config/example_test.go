package config

import (
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"unicode"
)

// The example has every key, and the defaults; also where the state is, as the
// example is what a service of systemd begins with.
func TestExample(t *testing.T) {
	clearEnv(t)
	t.Setenv("STATE_DIRECTORY", "/var/lib/rosterd")
	t.Setenv("ROSTERD_XMPP_SECRET", "change-me") // in place of the file, which may not be there
	const name = "../config.example.yaml"
	got, err := load(name)
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.XMPP.Domain, want.XMPP.Secret, want.XMPP.Hosts = "contacts.example.org", "change-me", []string{"example.org"}
	want.Contacts.URL, want.Contacts.Headers = "http://127.0.0.1:8000/contacts/%s", map[string]Secret{}
	want.Contacts.Hosts, want.Refresh.Tokens = map[string]ContactsHost{}, []Secret{}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("Load = %+v, want %+v", got, want)
	}

	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	// What stands there as an example of a mapping is one, too.
	text := strings.NewReplacer("hosts: [example.org]", "hosts: [example.org, example.net]", "headers: {}\n  #  ", "headers:\n    ",
		"hosts: {}\n  #  ", "hosts:\n    ", "\n  #    url:", "\n      url:", "\n  #    bulk_url:", "\n      bulk_url:", "\n  #    edit_url:", "\n      edit_url:").Replace(string(b))
	const own = "http://127.0.0.1:8001/contacts/%s"
	if c, err := load(write(t, text)); err != nil || c.Contacts.Hosts["example.net"] != (ContactsHost{own, "http://127.0.0.1:8001/bulk", "http://127.0.0.1:8001/edit"}) || len(c.Contacts.Headers) != 1 {
		t.Errorf("the examples of mappings: %+v, %v", c.Contacts, err)
	}

	var c Config
	for _, name := range fieldKeys(reflect.TypeFor[Config]()) {
		if !mentions(name).Match(b) {
			t.Errorf("the example does not mention %s", name)
		}
		// And each field has its key, so that Load can set it.
		found := false
		for _, k := range c.keys() {
			found = found || k.name == name
		}
		if !found {
			t.Errorf("there is no key %s", name)
		}
	}
	if n := len(fieldKeys(reflect.TypeFor[Config]())); n != len(c.keys()) {
		t.Errorf("%d fields, %d keys", n, len(c.keys()))
	}
}

// mentions matches a file in which a key of any depth stands, each part of it
// with two spaces more before it than its section has. It may be a comment.
func mentions(name string) *regexp.Regexp {
	parts := strings.Split(name, ".")
	pattern, indent := "(?m)", ""
	for _, section := range parts[:len(parts)-1] {
		// Up to the next part stand only lines with more space than the section has.
		pattern += `^` + indent + section + `:\n(?:(?:` + indent + ` .*)?\n)*`
		indent += "  "
	}
	return regexp.MustCompile(pattern + indent + `(?:# )?` + parts[len(parts)-1] + `: `)
}

// fieldKeys are the dotted paths of the fields of a struct and its structs.
func fieldKeys(typ reflect.Type) []string {
	var names []string
	for f := range typ.Fields() {
		name := snake(f.Name)
		if f.Type.Kind() != reflect.Struct {
			names = append(names, name)
			continue
		}
		for _, n := range fieldKeys(f.Type) {
			names = append(names, name+"."+n)
		}
	}
	return names
}

func snake(name string) string {
	var b strings.Builder
	lower := false
	for _, r := range strings.ReplaceAll(name, "URLFile", "UrlFile") {
		if unicode.IsUpper(r) && lower {
			b.WriteByte('_')
		}
		lower = unicode.IsLower(r)
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}
