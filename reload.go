package main

import (
	"rosterd/config"
)

// reload reads the configuration again and takes over what can be while rosterd
// runs. If anything is wrong with it, all stays as it was.
func (a *app) reload(file string) {
	next, warnings, err := config.Load(file)
	if err != nil {
		a.keep(err)
		return
	}
	now, took, left, err := a.cfg.Reload(next)
	if err != nil {
		a.keep(err)
		return
	}
	secured, err := now.XMPP.TLS.Client()
	if err != nil {
		a.keep(err)
		return
	}
	authorities, err := now.Contacts.TLS.Client()
	if err != nil {
		a.keep(err)
		return
	}
	if t := now.Refresh.TLS; t.Enabled() {
		if err := a.certificates.Replace(t.Cert, t.Key, t.ClientCA); err != nil {
			a.keep(err)
			return
		}
	}
	a.component.Renew(now.XMPP.Secret.Reveal(), secured)
	a.fetcher.SetHeader(headerOf(now.Contacts))
	a.fetcher.SetTLS(authorities)
	a.tokens.Set(tokensOf(now.Refresh)...)
	a.cfg = now
	warn(a.log, warnings)
	level := levelOf(now.Log)
	a.level.Set(min(level, a.level.Level())) // that the line is seen, if one of the two lets it
	a.log.Info("the configuration is read again", "changed", took)
	if len(left) > 0 {
		a.log.Warn("settings have changed that take a restart", "keys", left)
	}
	a.level.Set(level)
}

// keep says that nothing was taken over.
func (a *app) keep(err error) {
	a.log.Error("the configuration cannot be read again, all stays as it was", "err", err)
}
