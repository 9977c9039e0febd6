package config

import (
	"net/url"
	"strings"
	"testing"
)

func TestExpand(t *testing.T) {
	tests := []struct{ name, template, local, domain, want string }{
		{"path", "http://x/c/%s", "juliet", "example.org", "http://x/c/juliet"},
		{"nothing behind the host but a query", "http://x?u=%s", "juliet", "example.org", "http://x?u=juliet"},
		{"scheme in upper case", "HTTPS://x/%s", "a", "b", "https://x/a"},
		{"domain in path and query", "http://x/%d/%s?d=%d", "a", "b.example", "http://x/b.example/a?d=b.example"},
		{"domain in host", "http://%d:80/%s", "a", "b.example", "http://b.example:80/a"},
		{"domain in host, in A-labels", "http://api.%d/%s/%d", "a", "b\u00FCcher.example", "http://api.xn--bcher-kva.example/a/b%C3%BCcher.example"},
		{"IPv6 address in host", "http://%d/%s/%d", "a", "[::1]", "http://[::1]/a/%5B%3A%3A1%5D"},
		{"user twice", "http://x/%s/%s", "a", "b", "http://x/a/a"},
		{"reserved characters", "http://x/%s", `a?#[]!$()*+,;=%\20|`, "b", "http://x/a%3F%23%5B%5D%21%24%28%29%2A%2B%2C%3B%3D%25%5C20%7C"},
		{"unreserved characters", "http://x/%s", "aZ09-._~", "b", "http://x/aZ09-._~"},
		{"placeholder in a name", "http://x/%s?%d", "%s%d", "b", "http://x/%25s%25d?b"},
		{"not ASCII", "http://x/%s", "\u03C3", "b", "http://x/%CF%83"},
		{"slash that should not be there", "http://x/%s", "../a", "b", "http://x/..%2Fa"},
		{"encoded bytes stay", "http://x/%41%2f/%D0%B0/%s", "a", "b", "http://x/%41%2f/%D0%B0/a"},
		{"doubled percent before an encoded byte", "http://x/%%41/%s", "a", "b", "http://x/%41/a"},
		{"doubled percent by itself", "http://x/100%%/%s", "a", "b", "http://x/100%25/a"},
		{"doubled percent before the user", "http://x/%%%s", "2f", "b", "http://x/%252f"},
		{"doubled percent before s", "http://x/%%s/%s", "a", "b", "http://x/%25s/a"},
		{"placeholders beside letters", "http://x/%sa%dz", "u", "b", "http://x/uabz"},
		{"not ASCII in the template", "http://x/\u00FC/%s", "a", "b", "http://x/%C3%BC/a"},
		{"characters of no URL in the template", "http://x/^{[|/%s?<\"`]", "a/b", "c", "http://x/%5E%7B%5B%7C/a%2Fb?%3C%22%60%5D"},
		{"dots in a longer segment", "http://x/%s.json", "..", "b", "http://x/...json"},
		{"dots in the query", "http://x/?u=%s", "..", "b", "http://x/?u=.."},
		{"slashes and dots in the query", "http://x/?u=/%s/", "..", "b", "http://x/?u=/../"},
		{"three dots", "http://x/%s", "...", "b", "http://x/..."},

		{"one dot", "http://x/c/%s", ".", "b", ""},
		{"two dots", "http://x/c/%s", "..", "b", ""},
		{"two dots in the middle", "http://x/%s/c", "..", "b", ""},
		{"two dots before the query", "http://x/%s?x", "..", "b", ""},
		{"two dots before a parameter", "http://x/%s;v=1", "..", "b", ""},
		{"dot beside a dot", "http://x/.%s", ".", "b", ""},
		{"dot beside an encoded dot", "http://x/%2e%s", ".", "b", ""},
		{"dot twice", "http://x/%s%s", ".", "b", ""},
		{"no localpart", "http://x/%s", "", "b", ""},
		{"no domain", "http://x/%s", "a", "", ""},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			template, err := parseURL("contacts.url", tc.template, wantsURL, "example.org")
			if err != nil {
				t.Fatal(err)
			}
			got, err := template.Expand(tc.local, tc.domain)
			if got != tc.want || (err != nil) != (tc.want == "") {
				t.Fatalf("Expand = %q, %v, want %q", got, err, tc.want)
			}
			if err == nil {
				checkSent(t, got)
			}
		})
	}
	if got, err := (URLTemplate{}).Expand("a", "b"); err == nil {
		t.Errorf("Expand of the zero value = %q", got)
	}
}

// checkSent wants that net/http sends the URL as it is.
func checkSent(t *testing.T, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	if sent := u.RequestURI(); !strings.HasSuffix(s, sent) && !strings.HasSuffix(s, strings.TrimPrefix(sent, "/")) {
		t.Errorf("%q is sent as %q", s, sent)
	}
	return u
}

func TestParseURLBad(t *testing.T) {
	for _, s := range []string{
		"", "%s", "//x/%s", "http:x/%s", "mailto:%s", "file:///%s", "http://x", "http://x/", "http://x/%d", "http://x/%%s",
		"http://%s", "http://%s/", "http://x%s/%s", "http://x:%s/%s", "http://%s@x/%s", "http://u@x/%s", "http://u:p@x/%s", "http://x/%s#f", "http://x/#%s",
		"http:///%s", "http://:80/%s", "http://x:/%s", "http://x:0/%s", "http://x:65536/%s", "http://x:%d/%s", "http://[::1/%s", "http://x\\%d/%s", "http://%41/%s",
		"http://x/%s%", "http://x/%s%4", "http://x/%s%4g", "http://x/%S", "http://x/%s%u", "http://x/%d0%s", "http://x/%da/%s", "http://x/%dF/%s",
		"http://x/%s ", "http://x/\n%s", "http://x/%s\x7f", "http://\xff/%s", "http://x/./%s", "http://x/a/../%s", "http://x/%2E%2e/%s",
	} {
		if _, err := parseURL("contacts.url", s, wantsURL, "example.org"); err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("parseURL(%q): %v", s, err)
		}
	}
}

func TestBulkURL(t *testing.T) {
	for _, tc := range []struct{ template, domain, want string }{
		{"http://x", "example.org", "http://x"},
		{"HTTPS://x/%d?d=%d&k=%%&s=%%s", "b\u00FCcher.example", "https://x/b%C3%BCcher.example?d=b%C3%BCcher.example&k=%25&s=%25s"},
		{"http://api.%d/", "b\u00FCcher.example", "http://api.xn--bcher-kva.example/"},
		{"http://%d/bulk", "[::1]", "http://[::1]/bulk"},
		{"http://x/bulk", "", ""},
		{"http://x/%s", "example.org", ""},
		{"http://%s", "example.org", ""},
		{"http://%s/%s", "example.org", ""},
		{"http://x/?%s", "example.org", ""},
		{"http://x/.%2E/", "example.org", ""},
		{"http://x/%d0", "example.org", ""},
		{"http://x/#f", "example.org", ""},
		{"x", "example.org", ""},
	} {
		got, err := Contacts{BulkURL: tc.template}.BulkURLFor(tc.domain)
		if got != tc.want || (err == nil) != (tc.want != "") {
			t.Errorf("%q for %q: %q, %v, want %q", tc.template, tc.domain, got, err, tc.want)
		}
	}
}

// The URL of ejabberd's API is written as the others are, and is one that net/http takes.
func TestAPIURL(t *testing.T) {
	for _, tc := range []struct{ url, want string }{
		{"http://127.0.0.1:5281/api", "http://127.0.0.1:5281/api"},
		{"http://h/a%%b", "http://h/a%25b"},
		{"http://h/a%%41%2Fb c", ""},
		{"HTTPS://h/a%%41%2Fb/ü^?k=%%s", "https://h/a%41%2Fb/%C3%BC%5E?k=%25s"},
		{"http://h/%", ""},
		{"http://h/%s", ""},
		{"http://h/%d", ""},
		{"http://h/../api", ""},
		{"http://h:0/", ""},
		{"", ""},
	} {
		got, err := EjabberdAPI{URL: tc.url}.BaseURL()
		if got != tc.want || (err == nil) != (tc.want != "" || tc.url == "") {
			t.Errorf("%q: %q, %v, want %q", tc.url, got, err, tc.want)
		}
		if err == nil && tc.url != "" {
			checkSent(t, got)
		}
		c := full()
		c.Ejabberd.API.URL = tc.url
		if tc.url == "" {
			c.Ejabberd.API = EjabberdAPI{}
		}
		if invalid := c.Validate(); (invalid == nil) != (err == nil) {
			t.Errorf("%q: BaseURL says %v, Validate %v", tc.url, err, invalid)
		}
	}
}

// Whatever the user is called, the host and the path's depth stay the same.
func FuzzExpand(f *testing.F) {
	for _, s := range []string{"juliet", ".", "..", "/", "%2f", "@x", "?", "#", ";", "\\", "\u03C3", "\xff", "a b"} {
		f.Add("http://x:80/c/%s/%d?u=%s", s)
		f.Add("http://%d/%%%s.json", s)
		f.Add("http://x/^{%s}", s)
	}
	f.Fuzz(func(t *testing.T, template, local string) {
		parsed, err := parseURL("contacts.url", template, wantsURL, "example.org")
		if err != nil {
			return
		}
		want, err := parsed.Expand("user", "example.org")
		if err != nil {
			t.Fatal(err)
		}
		got, err := parsed.Expand(local, "example.org")
		if err != nil {
			return
		}
		u, v := checkSent(t, got), checkSent(t, want)
		if u.Scheme != v.Scheme || u.Host != v.Host || u.User != nil || u.Fragment != "" ||
			strings.Count(u.EscapedPath(), "/") != strings.Count(v.EscapedPath(), "/") || strings.Count(u.RawQuery, "&") != strings.Count(v.RawQuery, "&") {
			t.Errorf("%q of %q became %q", local, template, got)
		}
		for segment := range strings.SplitSeq(u.EscapedPath(), "/") {
			if plain, err := url.PathUnescape(segment); err != nil || plain == "." || plain == ".." {
				t.Errorf("%q of %q became %q", local, template, got)
			}
		}
	})
}
