package config

import "fmt"

// BulkTemplate makes the URL at which the contacts of many users of one domain
// are asked for at once. Its text is that of a [URLTemplate] without %s.
//
// A BulkTemplate is immutable and safe for concurrent use. The zero value makes
// no URL.
type BulkTemplate struct{ t URLTemplate }

// ParseBulkTemplate parses the text of a template. The errors do not repeat it.
func ParseBulkTemplate(s string) (BulkTemplate, error) {
	t, wants := parseURLTemplate(s, wantsBulkURL)
	if wants != "" {
		return BulkTemplate{}, fmt.Errorf("URL template: wants %s", wants)
	}
	return BulkTemplate{t}, nil
}

// Expand is the URL for the users of a prepared domain. The error does not
// contain the URL.
func (b BulkTemplate) Expand(domain string) (string, error) {
	return b.t.Expand("user", domain) // who is nowhere in it
}
