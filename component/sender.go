package component

import (
	"errors"
	"strings"

	"rosterd/jid"
)

// sender is a resource of a served host, which the server stamped as the sender.
type sender struct {
	full jid.JID
	// bare is its user's address as it was stamped; "": as full says.
	bare string
}

var (
	errNobody = errors.New("no resource of a served host")
	// errAmbiguous is for a name that the server might prepare in another way than
	// rosterd: two of its accounts would be one user here, and somebody would read
	// another's roster.
	errAmbiguous = errors.New("it is not sure whose account this spelling is")
)

// The ways in which a host stamps the names of its users.
const (
	stampsPrepared = "prepared" // as it compares them: two stamps are two accounts (Prosody)
	stampsTyped    = "typed"    // as they were typed at login: two stamps may be one account (ejabberd)
)

// sender is who the server says that sent something: the account is that which the
// server would find under this name. A name that it did not prepare itself, or of
// which that is not known, counts only if it is sure what it would make of it.
func (c *Component) sender(s *stream, from string) (u sender, err error) {
	bare, resource, full := strings.Cut(from, "/")
	local, domain, user := strings.Cut(bare, "@")
	host, served := c.names.hostOf(domain)
	if !full || !user || !served {
		return sender{}, errNobody
	}
	asTyped := domain != host
	if asTyped {
		from = local + "@" + host + "/" + resource
	}
	if u.full, err = jid.ParseStamped(strings.Clone(from)); err != nil { // which is kept, and the stanza is not
		if _, err := jid.New(local, host, ""); err != nil {
			return sender{}, errAmbiguous // the server has such a name, and rosterd knows none
		}
		return sender{}, errNobody
	}
	if !c.isSure(s, host, jid.MatchLocal(local, u.full.Local())) {
		return sender{}, errAmbiguous
	}
	if local != u.full.Local() || asTyped && domain != c.names.write(host) {
		u.bare = strings.Clone(bare)
	}
	return u, nil
}

// isSure reports whether a host surely means the account of the prepared name by
// one that it stamped.
func (c *Component) isSure(s *stream, host string, stamp jid.Stamp) bool {
	if stamp.Match == jid.Exact && stamp.Ordered {
		return true // as nearly always
	}
	switch g := s.grants.of(host); g.stamps {
	case stampsPrepared: // else it prepares in another way than rosterd
		return stamp.Match == jid.Exact
	case stampsTyped:
		// Who delegates prepares by nodeprep; of others it is not known.
		return stamp.Ordered && (stamp.Match == jid.Agreed || g.delegated())
	default:
		return stamp.Ordered && stamp.Match == jid.Agreed
	}
}

// ambiguous logs that somebody is not served, as it is not sure who they are.
func (c *Component) ambiguous(from string) {
	if silent, now := c.unanswered.log("ambiguous"); now {
		c.opts.Logger.Warn("a user is not served: the server may have another account under another spelling of this name, and whose roster it is would not be sure",
			"from", short(from), "not_logged_before", silent)
	}
}

// another notes the end of a session whose place one of another spelling has
// taken, of which ejabberd tells nobody.
func (c *Component) another(u sender) {
	if c.sessions.Spelled(u.full) != u.bare {
		c.gone(u.full)
	}
}

// address is a JID as the server knows it, to be sent to. The user's part is as the
// server stamped it: a client takes a push from no other address (RFC 6121,
// section 2.1.6).
func (c *Component) address(full jid.JID) string {
	if bare := c.sessions.Spelled(full); bare != "" {
		return bare + "/" + full.Resource()
	}
	return c.written(full)
}

// bareOf is the part of a full address before its resource.
func bareOf(address string) string {
	bare, _, _ := strings.Cut(address, "/")
	return bare
}

// written is a JID whose domain is as the server spells it.
func (c *Component) written(j jid.JID) string {
	if c.names.foreign.Load() {
		j = j.Spelled(c.names.write(j.Domain()))
	}
	return j.String()
}
