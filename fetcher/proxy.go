package fetcher

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// A proxy comes from the environment, where an administrator may have forgotten it:
// whatever fails on the way through it names it.

// through notes that the request that failed went through a proxy, if it did.
func (f *Fetcher) through(req *http.Request, failure *Error) {
	proxy, err := f.transport.Load().Proxy(req)
	if failure == nil || err != nil || proxy == nil {
		return
	}
	failure.Proxy = fmt.Sprintf("%s (%s_PROXY)", proxy.Host, strings.ToUpper(req.URL.Scheme))
	if failure.Status != 0 && req.URL.Scheme == "http" { // of https it sees nothing
		failure.text = fmt.Sprintf("the backend, or in its place the proxy %s, answered %d", failure.Proxy, failure.Status)
		return
	}
	failure.text += ", through the proxy " + failure.Proxy
}

// connectError is the status with which a proxy refuses to connect to the backend.
type connectError int

func (e connectError) Error() string { return fmt.Sprintf("no tunnel but the status %d", int(e)) }

func checkConnect(_ context.Context, _ *url.URL, _ *http.Request, resp *http.Response) error {
	if resp.StatusCode != http.StatusOK {
		return connectError(resp.StatusCode)
	}
	return nil
}
