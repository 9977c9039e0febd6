package harness

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"rosterd/internal/freeport"
)

// OwnRoster is the server's own roster of a user (a bare JID), sorted by JID.
func (s *Server) OwnRoster(ctx context.Context, user string) ([]Item, error) {
	own, err := s.own()
	if err != nil {
		return nil, err
	}
	items, err := own.ownRoster(ctx, s, user)
	for i := range items {
		slices.Sort(items[i].Groups)
	}
	slices.SortFunc(items, func(a, b Item) int { return cmp.Compare(a.JID, b.JID) })
	return items, err
}

// SetOwnItems sets items of the server's own roster of a user, or removes them.
func (s *Server) SetOwnItems(ctx context.Context, user string, items ...Item) error {
	own, err := s.own()
	if err != nil {
		return err
	}
	return own.setOwnItems(ctx, s, user, items)
}

// LogSoFar is the server's log with all that it had logged when this was called: what it has
// done may be seen before the line that says so.
func (s *Server) LogSoFar(ctx context.Context) (string, error) {
	own, err := s.own()
	if err != nil {
		return "", err
	}
	mark := fmt.Sprintf("mark-%06d", marks.Add(1))
	if _, err := own.ownRoster(ctx, s, mark+"@"+s.opts.Host); err != nil {
		return "", err
	}
	err = s.WaitLog(ctx, mark) // that the mark's roster was asked for
	return s.Log(), err
}

var marks atomic.Int64

// ownRosters is a software whose rosters can be read and written.
type ownRosters interface {
	ownRoster(ctx context.Context, s *Server, user string) ([]Item, error)
	setOwnItems(ctx context.Context, s *Server, user string, items []Item) error
}

func (s *Server) own() (ownRosters, error) {
	own, can := s.software.(ownRosters)
	if !can || !s.opts.OwnRosters {
		return nil, errors.New(s.software.name() + " was not started with OwnRosters")
	}
	return own, nil
}

// ownItem is an item in JSON, as Prosody's module and ejabberd have it.
type ownItem struct {
	JID          string   `json:"jid"`
	Name         string   `json:"name,omitempty"`
	Nick         string   `json:"nick,omitempty"` // ejabberd's Name
	Subscription string   `json:"subscription"`
	Ask          string   `json:"ask,omitempty"`
	Groups       []string `json:"groups"`
	Group        string   `json:"group,omitempty"` // ejabberd before 24: Groups, with ";" between
}

func (o ProsodyOptions) ownRoster(ctx context.Context, s *Server, user string) ([]Item, error) {
	return ask(ctx, http.MethodGet, o.rosterURL(s, user), nil)
}

func (o ProsodyOptions) setOwnItems(ctx context.Context, s *Server, user string, items []Item) error {
	var body []ownItem
	for _, it := range items {
		body = append(body, ownItem{JID: it.JID, Name: it.Name, Subscription: it.Subscription, Groups: append([]string{}, it.Groups...)})
	}
	_, err := ask(ctx, http.MethodPost, o.rosterURL(s, user), body)
	return err
}

func (o ProsodyOptions) rosterURL(s *Server, user string) string {
	return "http://" + freeport.Address(s.api) + "/harness_rosters/" + user
}

func (o EjabberdOptions) ownRoster(ctx context.Context, s *Server, user string) ([]Item, error) {
	local, host, _ := strings.Cut(user, "@")
	return ask(ctx, http.MethodPost, s.APIURL()+"/get_roster", map[string]string{"user": local, "server": host})
}

func (o EjabberdOptions) setOwnItems(ctx context.Context, s *Server, user string, items []Item) error {
	// Some at a time: each call takes a while, and there is no order among them.
	var calls sync.WaitGroup
	errs := make([]error, 8)
	for n := range errs {
		calls.Go(func() {
			for i := n; i < len(items) && errs[n] == nil; i += len(errs) {
				errs[n] = o.setOwnItem(ctx, s, user, items[i])
			}
		})
	}
	calls.Wait()
	return errors.Join(errs...)
}

func (o EjabberdOptions) setOwnItem(ctx context.Context, s *Server, user string, item Item) error {
	local, host, _ := strings.Cut(user, "@")
	contact, contactHost, _ := strings.Cut(item.JID, "@")
	if item.Subscription == "remove" {
		_, err := ask(ctx, http.MethodPost, s.APIURL()+"/delete_rosteritem",
			map[string]string{"localuser": local, "localhost": host, "user": contact, "host": contactHost})
		return err
	}
	args := map[string]any{"localuser": local, "localhost": host, "user": contact, "host": contactHost,
		"nick": item.Name, "subs": item.Subscription}
	if s.root.ejabberdVersion() < "24.02" {
		args["group"] = strings.Join(item.Groups, ";")
	} else {
		args["groups"] = append([]string{}, item.Groups...)
	}
	_, err := ask(ctx, http.MethodPost, s.APIURL()+"/add_rosteritem", args)
	return err
}

// ask makes a request with a body of JSON, and reads the items of the answer, if
// there are any.
func ask(ctx context.Context, method, url string, body any) ([]Item, error) {
	data, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	request.Close = true
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	data, err = io.ReadAll(response.Body)
	if err != nil || response.StatusCode/100 != 2 {
		return nil, errors.Join(err, fmt.Errorf("%s: %s %.300s", url, response.Status, data))
	}
	if !bytes.HasPrefix(data, []byte("[")) {
		return nil, nil
	}
	var answer []ownItem
	if err := json.Unmarshal(data, &answer); err != nil {
		return nil, fmt.Errorf("%w: %.300s", err, data)
	}
	return itemsOfServer(answer), nil
}

// itemsOfServer has one item for a contact: ejabberd 23.01 has one for each group.
func itemsOfServer(answer []ownItem) []Item {
	items := []Item{}
	for _, own := range answer {
		item := Item{JID: own.JID, Name: cmp.Or(own.Name, own.Nick), Subscription: own.Subscription, Groups: own.Groups}
		if own.Ask != "none" {
			item.Ask = own.Ask
		}
		if own.Group != "" {
			item.Groups = append(item.Groups, own.Group)
		}
		i := slices.IndexFunc(items, func(it Item) bool { return it.JID == item.JID })
		if i < 0 {
			items = append(items, item)
			continue
		}
		items[i].Groups = append(items[i].Groups, item.Groups...)
	}
	return items
}
