package config

import (
	"golang.org/x/net/idna"

	"rosterd/jid"
)

// XMPPTLS is TLS to the server's component port. It is used if one of its
// fields is set.
type XMPPTLS struct {
	ServerName string // that the server's certificate must have, as it stands there: an IDN in its A-labels; "": the host of the address
	CA         string // a file of the certificates to trust, PEM; "": the system's
}

// Enabled reports whether TLS is used.
func (t XMPPTLS) Enabled() bool { return t != XMPPTLS{} }

func (t XMPPTLS) validate() error {
	if t.ServerName != "" {
		name, err := asciiName(t.ServerName)
		if err != nil {
			return problem("xmpp.tls.server_name", wantsDomain, show(t.ServerName))
		}
		if name != t.ServerName {
			return problem("xmpp.tls.server_name", "a domain name as certificates have it, "+show(name), show(t.ServerName))
		}
	}
	return checkPath("xmpp.tls.ca", t.CA)
}

// serverName accepts a domain in every form, and makes the one of it that
// certificates have.
func serverName(field *string) func(string, any) error {
	return func(name string, v any) error {
		if err := text(field)(name, v); err != nil || *field == "" {
			return err
		}
		ascii, err := asciiName(*field)
		if err != nil {
			return problem(name, wantsDomain, show(*field))
		}
		*field = ascii
		return nil
	}
}

// asciiName is a domain with A-labels (RFC 5890) in place of U-labels.
func asciiName(domain string) (string, error) {
	prepared, err := jid.PrepareDomain(domain)
	if err != nil {
		return "", err
	}
	return idna.Punycode.ToASCII(prepared)
}

// ContactsTLS is TLS to the backends whose URLs are https.
type ContactsTLS struct {
	CA string // a file of the certificates to trust, PEM; "": the system's
}

// RefreshTLS is TLS at the refresh endpoint. It is used if Cert and Key are set.
// The files are read again when they change.
type RefreshTLS struct {
	Cert     string // a file, PEM, with the chain
	Key      string // a file, PEM
	ClientCA string // a file, PEM: callers must have a certificate of one of these; "": they need none
}

// Enabled reports whether TLS is used.
func (t RefreshTLS) Enabled() bool { return t.Cert != "" }

func (t RefreshTLS) validate() error {
	for _, file := range []struct{ key, path string }{
		{"refresh.tls.cert", t.Cert}, {"refresh.tls.key", t.Key}, {"refresh.tls.client_ca", t.ClientCA},
	} {
		if err := checkPath(file.key, file.path); err != nil {
			return err
		}
	}
	switch {
	case t.Cert == "" && t.Key != "":
		return problem("refresh.tls.cert", "the file of the certificate that refresh.tls.key belongs to", nothing)
	case t.Cert != "" && t.Key == "":
		return problem("refresh.tls.key", "the file of the key that refresh.tls.cert belongs to", nothing)
	case t.Cert == "" && t.ClientCA != "":
		return problem("refresh.tls.client_ca", "refresh.tls.cert and refresh.tls.key beside it", nothing)
	}
	return nil
}
