package main

import (
	"context"
	"log/slog"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// tellSystemd tells systemd how rosterd does, if that has started it with Type=notify; see
// sd_notify(3).
func tellSystemd(log *slog.Logger, state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		log.Warn("systemd cannot be told how rosterd does", "err", err)
	}
}

// watchdog says to systemd that rosterd lives, until ctx ends, as often as WatchdogSec wants
// it. It says so only when alive has returned, which blocks in a deadlock: then systemd ends
// the process, and starts it again. status is one line for systemctl status.
func watchdog(ctx context.Context, log *slog.Logger, alive func() (status string)) {
	limit, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		log.Warn("the watchdog of systemd cannot be served", "err", err)
	}
	if limit <= 0 {
		return
	}
	beat := time.NewTicker(limit / 3)
	defer beat.Stop()
	for {
		tellSystemd(log, daemon.SdNotifyWatchdog+"\nSTATUS="+alive())
		select {
		case <-beat.C:
		case <-ctx.Done():
			return
		}
	}
}
