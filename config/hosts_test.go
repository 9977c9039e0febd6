package config

import (
	"strings"
	"testing"
)

// A domain's own URL goes before that of all, which may then be wrong for it.
func TestTemplateFor(t *testing.T) {
	c := Default()
	c.XMPP.Domain, c.XMPP.Secret, c.XMPP.Hosts = "contacts.example.org", "s", []string{"example.org", "example.net", "[::1]"}
	c.Contacts.URL = "http://api.%d/%s" // which cannot be for [::1]
	c.Contacts.Hosts = map[string]ContactsHost{"example.net": {}, "[::1]": {URL: "http://y/%d/%s"}}
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	for domain, want := range map[string]string{
		"example.org": "http://api.example.org/juliet",
		"example.net": "http://api.example.net/juliet",
		"[::1]":       "http://y/%5B%3A%3A1%5D/juliet",
	} {
		template, err := c.Contacts.TemplateFor(domain)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := template.Expand("juliet", domain); err != nil || got != want {
			t.Errorf("the URL for %s is %q, %v, want %q", domain, got, err, want)
		}
	}
	c.Contacts.URL = ""
	if _, err := c.Contacts.TemplateFor("example.org"); err == nil {
		t.Error("no URL, and no error")
	}
}

// A domain that has its own URL has its own backend, which may know nothing of
// the others' bulk fetch.
func TestBulkFor(t *testing.T) {
	c := Default()
	c.XMPP.Domain, c.XMPP.Secret, c.XMPP.Hosts = "contacts.example.org", "s", []string{"example.org", "example.net", "example.com", "[::1]"}
	c.Contacts.URL, c.Contacts.BulkURL = "http://x/%s", "http://bulk.%d/" // which cannot be for [::1]
	c.Contacts.Hosts = map[string]ContactsHost{
		"example.net": {URL: "http://y/%s"},
		"example.com": {URL: "http://y/%s", BulkURL: "http://y/%d"},
		"[::1]":       {BulkURL: "http://z/"},
	}
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	for domain, want := range map[string]string{
		"example.org": "http://bulk.example.org/", "example.net": "", "example.com": "http://y/example.com", "[::1]": "http://z/",
	} {
		if got, err := c.Contacts.BulkURLFor(domain); err != nil || got != want {
			t.Errorf("the URL for %s is %q, %v, want %q", domain, got, err, want)
		}
	}
	// The same goes for the URL of their edits.
	c.Contacts.EditURL = "http://edit.example/"
	for domain, want := range map[string]string{"example.org": "http://edit.example/", "example.net": "", "[::1]": "http://edit.example/"} {
		if got, err := c.Contacts.EditURLFor(domain); err != nil || got != want {
			t.Errorf("the URL of edits for %s is %q, %v, want %q", domain, got, err, want)
		}
		if got := c.Contacts.TakesEdits(domain); got != (want != "") {
			t.Errorf("edits of %s: %v", domain, got)
		}
	}
	c.Contacts.BulkURL = "http://x/%s"
	if got, err := c.Contacts.BulkURLFor("example.org"); got != "" || err == nil {
		t.Errorf("a URL with a user: %q, %v", got, err)
	}
	c.Contacts.BulkURL, c.Contacts.Hosts = "", nil
	if got, err := c.Contacts.BulkURLFor("example.org"); got != "" || err != nil {
		t.Errorf("no URL: %q, %v", got, err)
	}
}

func TestShowName(t *testing.T) {
	long := strings.Repeat("a.", 300) + "a"
	for s, want := range map[string]string{
		"Example.org.":                 "example.org",
		"[::0:1]":                      "[::1]",
		"a b":                          "a…",
		"a\nb.example":                 "a…",
		long:                           long[:maxShown] + "…",
		"a" + strings.Repeat("ü", 100): "a" + strings.Repeat("ü", 39) + "…",
		strings.Repeat("a", 1024):      strings.Repeat("a", maxShown) + "…",
	} {
		if got := showName(s); got != want {
			t.Errorf("showName(%q) = %q, want %q", s, got, want)
		}
	}
}
