package harness

import (
	"context"
	_ "embed" // the driver
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"sync/atomic"
	"time"
)

// slixmppDriver is the program that runs slixmpp, see its beginning.
//
//go:embed slixmpp_client.py
var slixmppDriver string

// slixmppClient is a [Client] with slixmpp, in a Python process of its own.
type slixmppClient struct {
	*session
	process *process
	stdin   io.WriteCloser
	answers *feed[slixmppLine]
	events  *feed[Event]
	serial  atomic.Uint64
}

// slixmppLine is a line that the driver writes.
type slixmppLine struct {
	ID          uint64        `json:"id"`    // of the command that is answered
	Event       string        `json:"event"` // or what has happened
	IQ          string        `json:"iq"`    // id of a push
	Items       []slixmppItem `json:"items"`
	Error       string        `json:"error"`
	StanzaError *StanzaError  `json:"stanza_error"`
	Unchanged   bool          `json:"unchanged"`
	From        string        `json:"from"` // of an event of PEP
	Node        string        `json:"node"`
	Text        string        `json:"text"`
}

type slixmppItem struct {
	JID          string   `json:"jid"`
	Name         string   `json:"name"`
	Subscription string   `json:"subscription"`
	Ask          string   `json:"ask"`
	Approved     bool     `json:"approved"`
	Groups       []string `json:"groups"`
}

// NewSlixmppClient makes a client that uses Debian's slixmpp. The caller has to
// Close it.
func NewSlixmppClient(opts ClientOptions) (Client, error) {
	if opts.RefusePushes || opts.IgnorePushes {
		return nil, errors.New("slixmpp answers roster pushes by itself")
	}
	session, err := newSession(opts)
	if err != nil {
		return nil, err
	}
	c := &slixmppClient{session: session, answers: newFeed[slixmppLine](), events: newFeed[Event]()}
	cmd := exec.Command(python, "-c", slixmppDriver)
	cmd.Stdout = &lineWriter{emit: c.handleLine}
	if c.stdin, err = cmd.StdinPipe(); err == nil {
		c.process, err = startProcess(cmd)
	}
	if err != nil {
		c.wire.close()
		return nil, fmt.Errorf("starting slixmpp: %w", err)
	}
	return c, nil
}

// handleLine sorts what the driver writes.
func (c *slixmppClient) handleLine(line string) {
	var l slixmppLine
	if err := json.Unmarshal([]byte(line), &l); err != nil {
		return // not the driver's: what is missing will be missed
	}
	switch l.Event {
	case "push":
		c.pushes.add(push{id: l.IQ, items: itemsOfSlixmpp(l.Items)})
		return
	case "pep":
		c.events.add(Event{l.From, l.Node, l.Text})
		return
	}
	c.answers.add(l)
}

func itemsOfSlixmpp(items []slixmppItem) []Item {
	converted := make([]Item, 0, len(items))
	for _, item := range items {
		converted = append(converted, Item(item))
	}
	return converted
}

// command has the driver do something and waits for its answer.
func (c *slixmppClient) command(ctx context.Context, op string, args any) (slixmppLine, error) {
	id := c.serial.Add(1)
	line, err := json.Marshal(map[string]any{"id": id, "op": op, "args": args})
	if err != nil {
		return slixmppLine{}, err
	}
	if _, err := c.stdin.Write(append(line, '\n')); err != nil {
		return slixmppLine{}, fmt.Errorf("slixmpp has ended: %w\n%s", err, c.process.text())
	}
	// The answers cannot end: it is the process that may.
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-c.process.done:
			cancel(errors.New("slixmpp has ended"))
		case <-ctx.Done():
		}
	}()
	answer, _, err := c.answers.wait(ctx, 0, func(l slixmppLine) bool { return l.ID == id })
	if err != nil {
		return answer, fmt.Errorf("slixmpp did not answer %s: %w\n%s", op, err, c.process.text())
	}
	if answer.Error != "" {
		return answer, fmt.Errorf("slixmpp: %s: %s", op, answer.Error)
	}
	return answer, nil
}

// Login implements [Client].
func (c *slixmppClient) Login(ctx context.Context) error {
	_, err := c.command(ctx, "login", map[string]any{
		"jid": c.opts.JID, "password": c.opts.Password, "port": c.wire.port(),
		"notify": append([]string{}, c.opts.Notify...), "invisible": c.opts.Invisible,
	})
	return err
}

// Roster implements [Client].
func (c *slixmppClient) Roster(ctx context.Context) ([]Item, error) {
	answer, err := c.command(ctx, "roster", nil)
	switch {
	case err != nil:
		return nil, err
	case answer.StanzaError != nil:
		return nil, answer.StanzaError
	case answer.Unchanged:
		return nil, ErrUnchanged
	}
	return itemsOfSlixmpp(answer.Items), nil
}

// Presence implements [Client]. The library adds what the client can.
func (c *slixmppClient) Presence(show string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_, err := c.command(ctx, "presence", map[string]any{"show": show})
	return err
}

// PublishNick implements [Publisher].
func (c *slixmppClient) PublishNick(ctx context.Context, nick string) error {
	_, err := c.pep(ctx, "publish_nick", map[string]any{"nick": nick})
	return err
}

// PublishAvatar implements [Publisher].
func (c *slixmppClient) PublishAvatar(ctx context.Context, image []byte) (id string, err error) {
	return c.pep(ctx, "publish_avatar", map[string]any{"image": image})
}

// Avatar implements [Publisher].
func (c *slixmppClient) Avatar(ctx context.Context, of, id string) ([]byte, error) {
	text, err := c.pep(ctx, "avatar", map[string]any{"of": of, "avatar": id})
	if err != nil {
		return nil, err
	}
	return base64.StdEncoding.DecodeString(text)
}

func (c *slixmppClient) pep(ctx context.Context, op string, args any) (text string, err error) {
	answer, err := c.command(ctx, op, args)
	if err == nil && answer.StanzaError != nil {
		err = answer.StanzaError
	}
	return answer.Text, err
}

// WaitEvent implements [Publisher].
func (c *slixmppClient) WaitEvent(ctx context.Context, match func(Event) bool) (Event, error) {
	event, _, err := c.events.wait(ctx, 0, match)
	if err != nil {
		err = fmt.Errorf("no such event for %s: %w", c.opts.JID, err)
	}
	return event, err
}

// SendRaw implements [Client].
func (c *slixmppClient) SendRaw(xml string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_, err := c.command(ctx, "send", map[string]any{"xml": xml})
	return err
}

// Ping implements [Client].
func (c *slixmppClient) Ping(ctx context.Context, to string) error { return c.ping(ctx, to, c.SendRaw) }

// Close implements [Client].
func (c *slixmppClient) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_, _ = c.command(ctx, "close", nil)
	_ = c.stdin.Close() // which ends the driver
	select {
	case <-c.process.done:
	case <-ctx.Done():
		c.process.kill()
	}
	c.wire.close()
	c.pushes.end()
}
