package harness

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"
)

func startBackend(t *testing.T) *Backend {
	t.Helper()
	b, err := StartBackend()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b
}

// get asks the backend as rosterd would.
func get(ctx context.Context, b *Backend, user string) (int, string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.Replace(b.URL(), "%s", user, 1), nil)
	if err != nil {
		return 0, "", err
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body), err
}

const julietsContacts = `{"romeo@example.org":{"name":"Romeo"}}`

func TestBackend(t *testing.T) {
	b := startBackend(t)
	b.Set("juliet", Contacts{"romeo@example.org": {Name: "Romeo"}})
	open := make(chan struct{})
	close(open)
	tests := []struct {
		name   string
		fault  Fault
		user   string
		status int
		body   string // a part
		broken bool
	}{
		{"contacts", Fault{}, "juliet", 200, julietsContacts, false},
		{"unknown user", Fault{}, "nobody", 404, "no such user", false},
		{"status", Fault{Status: 503}, "juliet", 503, "", false},
		{"garbage", Fault{Body: []byte("<html>")}, "juliet", 200, "<html>", false},
		{"cut", Fault{Cut: true}, "juliet", 200, julietsContacts[:len(julietsContacts)/2], true},
		{"late", Fault{Until: open}, "juliet", 200, julietsContacts, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b.SetFault("", tt.fault)
			defer b.ClearFault("")
			status, body, err := get(t.Context(), b, tt.user)
			if status != tt.status || !strings.Contains(body, tt.body) || (err != nil) != tt.broken {
				t.Errorf("%d %q %v", status, body, err)
			}
		})
	}
	if n := len(b.Requests("juliet")); n != 5 {
		t.Errorf("%d requests were counted", n)
	}
}

func TestBackendHang(t *testing.T) {
	b := startBackend(t)
	b.Set("juliet", nil)
	b.SetFault("juliet", Fault{Hang: true})
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error)
	go func() {
		_, _, err := get(ctx, b, "juliet")
		result <- err
	}()
	if err := b.WaitRequests(t.Context(), "juliet", 1); err != nil {
		t.Error(err)
	}
	cancel()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	short, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := b.WaitRequests(short, "juliet", 2); err == nil {
		t.Error("a second request was seen")
	}
}

func TestBackendRefuse(t *testing.T) {
	b := startBackend(t)
	b.Refuse()
	if _, _, err := get(t.Context(), b, "juliet"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("error %v", err)
	}
	if err := b.Accept(); err != nil {
		t.Fatal(err)
	}
	if status, _, err := get(t.Context(), b, "juliet"); status != 404 {
		t.Errorf("after Accept: %d, %v", status, err)
	}
}

func TestBackendSeesRequests(t *testing.T) {
	b := startBackend(t)
	b.RequireHeader("X-Api-Key", "k")
	if status, _, err := get(t.Context(), b, "a%2Fb%C3%A9"); status != 401 {
		t.Errorf("without the header: %d, %v", status, err)
	}
	requests := b.Requests("a/bé")
	if len(requests) != 1 || requests[0].URI != "/contacts/a%2Fb%C3%A9" || requests[0].Header.Get("Accept-Encoding") == "" {
		t.Errorf("requests: %+v", requests)
	}
}

func TestBackendPut(t *testing.T) {
	b := startBackend(t)
	for body, want := range map[string]int{julietsContacts: 204, "{": 400} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, b.BaseURL()+"/contacts/juliet", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("PUT %s: %d", body, resp.StatusCode)
		}
	}
	if _, body, err := get(t.Context(), b, "juliet"); body != julietsContacts {
		t.Errorf("then %q, %v", body, err)
	}
}
