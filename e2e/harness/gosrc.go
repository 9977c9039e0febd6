package harness

import (
	"context"
	"encoding/xml"
	"errors"
	"strings"
	"sync"

	"gosrc.io/xmpp"
	"gosrc.io/xmpp/stanza"

	"rosterd/internal/freeport"
)

// gosrcClient is a [Client] with the client of gosrc.io/xmpp.
type gosrcClient struct {
	*session
	router *xmpp.Router
	client *xmpp.Client
	ended  chan struct{} // closed when the connection is broken
	end    func()        // closes ended; may be called again
}

// NewGosrcClient makes a client that uses gosrc.io/xmpp. The caller has to
// Close it.
func NewGosrcClient(opts ClientOptions) (Client, error) {
	if opts.Invisible {
		return nil, errors.New("gosrc.io/xmpp sends presence by itself")
	}
	session, err := newSession(opts)
	if err != nil {
		return nil, err
	}
	c := &gosrcClient{session: session, router: xmpp.NewRouter(), ended: make(chan struct{})}
	c.end = sync.OnceFunc(func() { close(c.ended) })
	c.router.NewRoute().IQNamespaces(nsRoster).StanzaType("set").HandlerFunc(c.handlePush)
	if opts.Notify != nil {
		c.router.NewRoute().IQNamespaces(nsDiscoInfo).StanzaType("get").HandlerFunc(c.handleDisco)
	}
	return c, nil
}

// Login implements [Client]. The library sends initial presence by itself.
func (c *gosrcClient) Login(ctx context.Context) error {
	client, err := xmpp.NewClient(&xmpp.Config{
		TransportConfiguration: xmpp.TransportConfiguration{Address: freeport.Address(c.wire.port())},
		Jid:                    c.opts.JID,
		Credential:             xmpp.Password(c.opts.Password),
		Insecure:               true,
		ConnectTimeout:         5, // seconds; also for the server's </stream:stream>
	}, c.router, func(error) { c.end() })
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, c.Cut) // Connect knows no context
	defer stop()
	if err := client.Connect(); err != nil {
		return errors.Join(err, context.Cause(ctx))
	}
	c.client = client
	if c.opts.Notify != nil {
		return c.Presence("") // that of the library announces nothing
	}
	return nil
}

// Roster implements [Client].
func (c *gosrcClient) Roster(ctx context.Context) ([]Item, error) {
	if c.client == nil {
		return nil, errNotLoggedIn
	}
	iq, err := stanza.NewIQ(stanza.Attrs{Type: stanza.IQTypeGet, Id: c.nextID("roster")})
	if err != nil {
		return nil, err
	}
	iq.RosterIQ()
	// Not SendIQ, which begins to listen for the answer after it has asked.
	answer := c.router.NewIQResultRoute(ctx, iq.Id)
	if err := c.client.Send(iq); err != nil {
		return nil, err
	}
	select {
	case result := <-answer:
		return rosterOf(&result)
	case <-c.ended:
		return nil, errors.New("the connection ended before the roster came")
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// rosterOf reads the answer to a roster get.
func rosterOf(iq *stanza.IQ) ([]Item, error) {
	if iq.Type == stanza.IQTypeError {
		if iq.Error == nil {
			return nil, &StanzaError{}
		}
		return nil, &StanzaError{Type: string(iq.Error.Type), Condition: iq.Error.Reason, Text: iq.Error.Text}
	}
	query, ok := iq.Payload.(*stanza.RosterItems)
	if !ok {
		return nil, errors.New("the result has no roster")
	}
	return itemsOf(query), nil
}

func itemsOf(query *stanza.RosterItems) []Item {
	items := make([]Item, 0, len(query.Items))
	for _, item := range query.Items {
		items = append(items, Item{
			JID: item.Jid, Name: item.Name, Subscription: item.Subscription, Ask: item.Ask, Groups: item.Groups,
		})
	}
	return items
}

// handlePush takes roster pushes and answers them (RFC 6121, section 2.1.6): the
// library leaves that to its user.
func (c *gosrcClient) handlePush(s xmpp.Sender, p stanza.Packet) {
	iq, ok := p.(*stanza.IQ)
	if !ok {
		return
	}
	query, ok := iq.Payload.(*stanza.RosterItems)
	trusted := ok && c.trusted(iq.From)
	switch {
	case trusted && c.opts.IgnorePushes:
	case trusted && !c.opts.RefusePushes:
		_ = s.Send(&stanza.IQ{
			XMLName: xml.Name{Local: "iq"},
			Attrs:   stanza.Attrs{Type: stanza.IQTypeResult, Id: iq.Id, To: iq.From},
		})
	default:
		_ = s.Send(iq.MakeError(stanza.Err{Code: 503, Type: stanza.ErrorTypeCancel, Reason: "service-unavailable"}))
	}
	if trusted {
		c.pushes.add(push{id: iq.Id, items: itemsOf(query)})
	}
}

// handleDisco says what the client can (XEP-0030), which the library does not know.
func (c *gosrcClient) handleDisco(s xmpp.Sender, p stanza.Packet) {
	if iq, ok := p.(*stanza.IQ); ok {
		if query, ok := iq.Payload.(*stanza.DiscoInfo); ok {
			_ = s.SendRaw("<iq type='result' id='" + escape(iq.Id) + "' to='" + escape(iq.From) + "'>" + c.discoXML(query.Node) + "</iq>")
		}
	}
}

// Presence implements [Client].
func (c *gosrcClient) Presence(show string) error { return c.SendRaw(c.presenceXML(show)) }

// SendRaw implements [Client].
func (c *gosrcClient) SendRaw(xml string) error {
	if c.client == nil {
		return errNotLoggedIn
	}
	return c.client.SendRaw(xml)
}

// Ping implements [Client].
func (c *gosrcClient) Ping(ctx context.Context, to string) error { return c.ping(ctx, to, c.SendRaw) }

// Cut implements [Client].
func (c *gosrcClient) Cut() {
	c.session.Cut()
	c.end()
}

// Close implements [Client].
func (c *gosrcClient) Close() {
	select {
	case <-c.ended:
		// Disconnect may wait for a </stream:stream> in vain, for ConnectTimeout at
		// most. Without it, one that came before the cut keeps the connection open,
		// until the library's keep-alive fails half a minute later.
		if c.client != nil {
			go func() { _ = c.client.Disconnect() }()
		}
	default:
		if c.client != nil {
			_ = c.client.Disconnect()
			c.end()
		}
	}
	c.wire.close()
	c.pushes.end()
}

// escape makes s fit for character data and attributes.
func escape(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s))
	return b.String()
}
