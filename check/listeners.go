package check

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"strings"
	"syscall"

	"rosterd/refresh"
)

// listeners looks whether rosterd can listen, or does.
func (c *checker) listeners(ctx context.Context) {
	c.metricsListener()
	c.refreshListener(ctx)
}

func (c *checker) metricsListener() {
	const key = "metrics.listen"
	switch address := c.cfg.Metrics.Listen; c.running.kind {
	case ours, outdated:
		c.ok("%s: %s, held by the rosterd that runs", key, address)
	case foreign:
		c.fail("%s: %s is taken by another rosterd, of the component %s", key, address, c.running.status.Domain)("give each rosterd a " + key + " of its own")
	case stranger:
		c.fail("%s: %s is taken by another program", key, address)("stop it, or set another " + key)
	default:
		if err := bind(address); err != nil {
			c.cannotListen(key, address, err)
		} else if _, ok := reachable(address); !ok {
			c.warn("%s: %s is a port that nobody knows: had a rosterd been running, it could not have been asked", key, address)("set a port")
		} else {
			c.ok("%s: %s is free", key, address)
		}
	}
}

func (c *checker) refreshListener(ctx context.Context) {
	const key = "refresh.listen"
	address := c.cfg.Refresh.Listen
	token := "callers need refresh.token"
	if c.cfg.Refresh.Token == "" {
		token = "without refresh.token, which it does not need on loopback" // config has seen to it
	}
	err := bind(address)
	switch {
	case err == nil && c.running.kind == ours:
		c.fail("%s: %s is free, though rosterd runs: it was started with another one", key, address)("restart it")
	case err == nil:
		c.ok("%s: %s is free, %s", key, address, token)
	case errors.Is(err, syscall.EADDRINUSE) && (c.running.kind == ours || c.running.kind == outdated) && isRefresh(ctx, address):
		c.ok("%s: %s, held by the rosterd that runs, %s", key, address, token)
	default:
		c.cannotListen(key, address, err)
	}
}

// cannotListen says why an address cannot be listened on.
func (c *checker) cannotListen(key, address string, err error) {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		c.fail("%s: %s is taken by another program", key, address)("stop it, or set another " + key)
	case errors.Is(err, syscall.EACCES):
		c.fail("%s: %s needs rights that rosterd should not have", key, address)("set a port of 1024 or more")
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		c.fail("%s: %s is no address of this machine", key, address)("correct " + key)
	default:
		c.fail("%s: cannot listen on %s: %s", key, address, err)("correct " + key)
	}
}

// bind listens for a moment.
func bind(address string) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	return l.Close()
}

// isRefresh reports whether a rosterd's refresh endpoint answers: by a request
// that refreshes nobody.
func isRefresh(ctx context.Context, listen string) bool {
	address, ok := reachable(listen)
	if !ok {
		return false
	}
	_, body, err := get(ctx, "http://"+address+"/")
	var answer refresh.Answer
	return err == nil && json.Unmarshal(body, &answer) == nil && strings.Contains(answer.Message, refresh.Path)
}
