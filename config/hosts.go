package config

import (
	"encoding/json"
	"slices"
	"strings"
	"unicode/utf8"

	"rosterd/jid"
)

// hostsKey is the key whose value is a mapping of domains to mappings. In the
// decoder's paths, anyHost stands for the domain; hostKeys are what may stand
// below it.
const (
	hostsKey = "contacts.hosts"
	anyHost  = "*"
)

var hostKeys = []string{"url", "bulk_url"}

// isHostKey reports whether a path is that of one of hostKeys.
func isHostKey(path string) bool {
	name, ok := strings.CutPrefix(path, hostsKey+"."+anyHost+".")
	return ok && slices.Contains(hostKeys, name)
}

// hosts accepts a mapping, or the same as a JSON object in one text. Here, too,
// something without a value counts as not set.
func hosts(field *map[string]ContactsHost) func(string, any) error {
	const wants = "a mapping (in the environment: a JSON object) of domains to mappings with url and bulk_url"
	return func(name string, v any) error {
		var object map[string]any
		switch v := v.(type) {
		case map[string]any:
			object = v
		case string:
			if json.Unmarshal([]byte(v), &object) != nil || object == nil {
				return problem(name, wants, "")
			}
		default:
			return problem(name, wants, "")
		}
		got := make(map[string]ContactsHost, len(object))
		for _, n := range sortedKeys(object) {
			d, err := jid.PrepareDomain(n)
			if err != nil {
				return problem(name+"."+showName(n), wantsDomain, "")
			}
			if _, double := got[d]; double {
				return problem(name, "each domain once", show(d)+" twice")
			}
			if got[d], err = host(name+"."+showDomain(d), object[n]); err != nil {
				return err
			}
		}
		*field = got
		return nil
	}
}

// host is the mapping of one domain. A file's names have been looked at by the
// decoder, which knows their lines; those of a JSON object have not.
func host(name string, v any) (h ContactsHost, err error) {
	object, ok := v.(map[string]any)
	if !ok && v != nil {
		return h, problem(name, "a mapping with url and bulk_url", "")
	}
	fields := map[string]*string{"url": &h.URL, "bulk_url": &h.BulkURL}
	seen := make(map[string]bool)
	for _, n := range sortedKeys(object) {
		lower := strings.ToLower(n)
		switch {
		case fields[lower] == nil:
			return h, problem(name+"."+showName(n), "to be left out: unknown key, there are "+strings.Join(hostKeys, ", "), "")
		case seen[lower]:
			return h, problem(name+"."+lower, "to stand once", "")
		}
		seen[lower] = true
		if object[n] == nil {
			continue
		}
		if err := address(fields[lower])(name+"."+lower, object[n]); err != nil {
			return h, err
		}
	}
	return h, nil
}

// showDomain shows the name of an entry of hostsKey. Something that is no
// domain is shown as showName does it.
func showDomain(s string) string {
	d, err := jid.PrepareDomain(s)
	switch {
	case err != nil:
		return showName(s)
	case len(d) <= maxShown:
		return d
	}
	end := maxShown
	for !utf8.RuneStart(d[end]) {
		end--
	}
	return d[:end] + "…"
}

// validateURLs looks at contacts.url and those of contacts.hosts, and tries
// each with the domain that %d becomes. One of contacts.hosts that nobody is
// served under would never be asked, which is a slip of the pen.
func (c Config) validateURLs() error {
	for _, d := range sortedKeys(c.Contacts.Hosts) {
		key := hostsKey + "." + showDomain(d)
		if err := checkDomain(key, d); err != nil {
			return err
		}
		if !slices.Contains(c.XMPP.Hosts, d) {
			return problem(key, "a domain of xmpp.hosts", "")
		}
	}
	if c.Contacts.URL == "" && len(c.Contacts.Hosts) == 0 {
		return problem("contacts.url", wantsURL, nothing)
	}
	if c.Contacts.URL != "" { // which it may be if each host has its own
		if _, wants := parseURLTemplate(c.Contacts.URL, wantsURL); wants != "" {
			return problem("contacts.url", wants, showURL(c.Contacts.URL))
		}
	}
	if c.Contacts.BulkURL != "" {
		if _, wants := parseURLTemplate(c.Contacts.BulkURL, wantsBulkURL); wants != "" {
			return problem("contacts.bulk_url", wants, showURL(c.Contacts.BulkURL))
		}
	}
	for _, h := range c.XMPP.Hosts {
		if err := c.Contacts.validateURL(h); err != nil {
			return err
		}
		if err := c.Contacts.validateBulkURL(h); err != nil {
			return err
		}
	}
	return nil
}

// validateURL looks at the URL that is asked for the users of a domain.
func (c Contacts) validateURL(domain string) error {
	key := "contacts.url"
	if c.Hosts[domain].URL != "" {
		key = hostsKey + "." + showDomain(domain) + ".url"
	}
	text := c.urlFor(domain)
	of := " for " + show(domain) + " of xmpp.hosts"
	if text == "" {
		return problem(key, wantsURL+of, nothing)
	}
	t, wants := parseURLTemplate(text, wantsURL)
	if wants != "" {
		return problem(key, wants, showURL(text))
	}
	if wants := t.try(domain); wants != "" {
		return problem(key, wants+of, showURL(text))
	}
	return nil
}

// validateBulkURL looks at the URL that is asked for many users of a domain, if
// there is one.
func (c Contacts) validateBulkURL(domain string) error {
	text := c.bulkFor(domain)
	if text == "" {
		return nil
	}
	key := "contacts.bulk_url"
	if c.Hosts[domain].BulkURL != "" {
		key = hostsKey + "." + showDomain(domain) + ".bulk_url"
	}
	t, wants := parseURLTemplate(text, wantsBulkURL)
	if wants != "" {
		return problem(key, wants, showURL(text))
	}
	if wants := t.try(domain); wants != "" {
		return problem(key, wants+" for "+show(domain)+" of xmpp.hosts", showURL(text))
	}
	return nil
}
