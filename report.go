package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"rosterd/check"
	"rosterd/config"
	"rosterd/refresh"
)

// refresh is `rosterd refresh`.
func (c *command) refresh() *cobra.Command {
	var all, async bool
	var host, cert, key string
	cmd := &cobra.Command{
		Use: "refresh [NAME…]", Short: "report users whose contacts have changed, as the backend does",
		Long: `refresh calls the refresh endpoint of the rosterd that runs with this configuration, as
a backend would, with refresh.token: the contacts of the users, by localpart or bare
JID, are fetched and what has changed is pushed. With --all it is everybody who is
online, or whose roster the server keeps, contacts.resync_rate users a second.

It prints the answer, and fails unless all users were refreshed or accepted.`,
		Example: "  rosterd refresh juliet romeo\n  rosterd refresh --all --host example.org",
		Args: func(_ *cobra.Command, args []string) error {
			switch {
			case all && len(args) > 0:
				return errors.New("name users or --all, not both")
			case !all && len(args) == 0:
				return errors.New("name users, or --all")
			case !all && host != "":
				return errors.New("--host is for --all")
			case (cert == "") != (key == ""):
				return errors.New("--cert and --key belong together")
			}
			return nil
		},
		RunE: runs(func(ctx context.Context, args []string) error {
			cfg, _, err := config.Load(c.file)
			if err != nil {
				return err
			}
			r, err := newReporter(cfg, cert, key)
			if err != nil {
				return err
			}
			if !all {
				body, err := json.Marshal(args)
				if err != nil {
					return err
				}
				return c.printReport(r.post(ctx, "", body, async))
			}
			hosts := cfg.XMPP.Hosts
			if host != "" {
				hosts = []string{host}
			}
			for _, host := range hosts {
				if err := c.printReport(r.post(ctx, "?"+url.Values{"all": {host}}.Encode(), nil, async)); err != nil {
					return err
				}
			}
			return nil
		}),
	}
	cmd.Flags().BoolVar(&all, "all", false, "everybody who is online, or whose roster the server keeps")
	cmd.Flags().StringVar(&host, "host", "", "of this `domain` alone, with --all")
	cmd.Flags().BoolVar(&async, "async", false, "do not wait for the pushes")
	cmd.Flags().StringVar(&cert, "cert", "", "the client certificate, a PEM `file`, if refresh.tls.client_ca wants one")
	cmd.Flags().StringVar(&key, "key", "", "its key, a PEM `file`")
	return cmd
}

func (c *command) printReport(answer refresh.Answer, err error) error {
	if err != nil {
		return err
	}
	if err := writeJSON(c.stdout, answer); err != nil {
		return err
	}
	if answer.Status != "ok" || answer.Errors > 0 {
		return errSaid
	}
	return nil
}

// reporter calls the refresh endpoint of the rosterd that runs with a configuration.
type reporter struct {
	url, token string
	http       http.Client
}

// newReporter makes a reporter, with a client certificate if it is given the files of one.
func newReporter(cfg config.Config, cert, key string) (*reporter, error) {
	address, ok := check.Reachable(cfg.Refresh.Listen)
	if !ok {
		return nil, fmt.Errorf("refresh.listen: %s is a port that nobody knows", cfg.Refresh.Listen)
	}
	r := &reporter{url: "http://" + address + refresh.Path}
	if tokens := slices.DeleteFunc(tokensOf(cfg.Refresh), func(token string) bool { return token == "" }); len(tokens) > 0 {
		r.token = tokens[0]
	}
	transport := &http.Transport{DialContext: (&net.Dialer{}).DialContext} // without a proxy
	r.http.Transport = transport
	t := cfg.Refresh.TLS
	if !t.Enabled() {
		return r, nil
	}
	own, err := refresh.LoadCertificates(t.Cert, t.Key, t.ClientCA, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	r.url = "https://" + address + refresh.Path
	transport.TLSClientConfig = &tls.Config{
		// The certificate is for the callers' name of the endpoint. It must be the one
		// of the configuration: nobody else is shown the token.
		InsecureSkipVerify: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			if !state.PeerCertificates[0].Equal(own.Leaf()) { // a server has one
				return errors.New("who listens there shows another certificate than that of refresh.tls.cert")
			}
			return nil
		},
	}
	if cert != "" {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return nil, err
		}
		transport.TLSClientConfig.Certificates = []tls.Certificate{pair}
	}
	return r, nil
}

func (r *reporter) post(ctx context.Context, query string, body []byte, async bool) (answer refresh.Answer, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.url+query, bytes.NewReader(body))
	if err != nil {
		return answer, err
	}
	req.Header.Set("Content-Type", "application/json")
	if r.token != "" {
		req.Header.Set("Authorization", "Bearer "+r.token)
	}
	if async {
		req.Header.Set("Prefer", "respond-async")
	}
	resp, err := r.http.Do(req)
	if err != nil {
		return answer, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, 16<<20))
	if err = cmp.Or(err, json.Unmarshal(data, &answer)); err != nil {
		return answer, fmt.Errorf("%s answered %s, which no rosterd says: %.100q", r.url, resp.Status, strings.TrimSpace(string(data)))
	}
	return answer, nil
}
