package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"syscall"
	"time"

	"rosterd/jid"
	"rosterd/users"
)

// ErrNotRunning says that no rosterd listens on the socket.
var ErrNotRunning = errors.New("no rosterd runs with this state file")

// Client asks the rosterd that runs. It is safe for concurrent use.
type Client struct{ http http.Client }

// patience is how long an answer may take: to approve is to ask the backend.
const patience = 5 * time.Minute

// NewClient makes a client of the socket at path.
func NewClient(path string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}
	return &Client{http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}, Timeout: patience}}
}

// User is what is known of a user (a bare JID).
func (c *Client) User(ctx context.Context, user jid.JID) (u User, err error) {
	err = c.do(ctx, http.MethodGet, "/user", user, &u)
	return u, err
}

// Held is what the removal guard holds.
func (c *Client) Held(ctx context.Context) (held []users.Held, err error) {
	err = c.do(ctx, http.MethodGet, "/held", jid.JID{}, &held)
	return held, err
}

// Approve has what is held of a user (a bare JID) be believed, see users.Manager.Approve.
func (c *Client) Approve(ctx context.Context, user jid.JID) error {
	return c.do(ctx, http.MethodPost, "/approve", user, &struct{}{})
}

// Reject has it not be believed, see users.Manager.Reject.
func (c *Client) Reject(ctx context.Context, user jid.JID) error {
	return c.do(ctx, http.MethodPost, "/reject", user, &struct{}{})
}

// maxAnswer is the largest answer that is read, in bytes.
const maxAnswer = 256 << 20

func (c *Client) do(ctx context.Context, method, path string, user jid.JID, answer any) error {
	address := url.URL{Scheme: "http", Host: "rosterd", Path: path}
	if user != (jid.JID{}) {
		address.RawQuery = url.Values{"user": {user.String()}}.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, address.String(), nil)
	if err != nil {
		return err
	}
	resp, err := c.http.Do(req)
	switch {
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, fs.ErrNotExist):
		return ErrNotRunning
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("the rosterd that runs may be asked by root and by the user that it runs as: %w", errors.Unwrap(err))
	case err != nil:
		return err
	}
	defer resp.Body.Close()
	body := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer))
	if resp.StatusCode != http.StatusOK {
		var failed failure
		if err := body.Decode(&failed); err != nil || failed.Error == "" {
			return fmt.Errorf("the rosterd that runs answered %d", resp.StatusCode)
		}
		return errors.New(failed.Error)
	}
	return body.Decode(answer)
}
