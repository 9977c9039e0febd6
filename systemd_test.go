package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"rosterd/internal/leak"
)

// systemd listens as systemd does, and returns what it is told.
func systemd(t *testing.T) <-chan string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("NOTIFY_SOCKET", socket)
	told, ended := make(chan string, 100), make(chan struct{})
	go func() {
		defer close(ended)
		for b := make([]byte, 4096); ; {
			n, err := conn.Read(b)
			if err != nil {
				return
			}
			told <- string(b[:n])
		}
	}()
	t.Cleanup(func() { conn.Close(); <-ended })
	return told
}

func TestSystemdIsTold(t *testing.T) {
	leak.Check(t)
	told := systemd(t)
	t.Setenv("WATCHDOG_USEC", "30000")
	t.Setenv("WATCHDOG_PID", fmt.Sprint(os.Getpid()))
	stop := begin(t, configured(t, `
xmpp: {address: "127.0.0.1:1", domain: contacts.example.org, secret: x, hosts: [example.org]}
contacts: {url: "http://127.0.0.1:1/contacts/%s"}
refresh: {listen: "127.0.0.1:0"}
metrics: {listen: "127.0.0.1:0"}
state: {path: ""}
`), io.Discard)
	if got := <-told; got != "READY=1" {
		t.Errorf("first: %q", got)
	}
	for range 3 {
		if got := <-told; !strings.HasPrefix(got, "WATCHDOG=1\nSTATUS=not connected") || strings.Count(got, "\n") != 1 {
			t.Errorf("a beat: %q", got)
		}
	}
	if code := stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	for got := range told {
		if got == "STOPPING=1" {
			break
		}
	}
}

// Who hangs does not say that they live.
func TestWatchdogInADeadlock(t *testing.T) {
	leak.Check(t)
	told := systemd(t)
	t.Setenv("WATCHDOG_USEC", "3000")
	t.Setenv("WATCHDOG_PID", fmt.Sprint(os.Getpid()))
	ctx, stop := context.WithCancel(t.Context())
	hangs, free := make(chan struct{}), make(chan struct{})
	beats := 0
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		watchdog(ctx, nil, func() string {
			if beats++; beats == 3 {
				close(hangs)
				<-free
			}
			return fmt.Sprint(beats)
		})
	}()
	<-hangs
	for _, want := range []string{"1", "2"} {
		if got := <-told; got != "WATCHDOG=1\nSTATUS="+want {
			t.Errorf("told %q", got)
		}
	}
	select {
	case got := <-told:
		t.Errorf("told %q while it hangs", got)
	default:
	}
	stop()
	close(free)
	<-ended
}
