package main

import "rosterd/config"

// reload reads the configuration again and takes over what can change while
// rosterd runs. If anything in it is wrong, all stays as it was.
func (a *app) reload(file string) {
	if err := a.tryReload(file); err != nil {
		a.log.Error("the configuration cannot be read again, all stays as it was", "err", err)
	}
}

func (a *app) tryReload(file string) error {
	next, warnings, err := config.Load(file)
	if err != nil {
		return err
	}
	now, taken, left, err := a.cfg.Load().Reload(next)
	if err != nil {
		return err
	}
	serverTLS, err := now.XMPP.TLS.Client()
	if err != nil {
		return err
	}
	backendTLS, err := now.Contacts.TLS.Client()
	if err != nil {
		return err
	}
	if t := now.Refresh.TLS; t.Enabled() {
		if err := a.certificates.Replace(t.Cert, t.Key, t.ClientCA); err != nil {
			return err
		}
		if a.pair != nil {
			a.pair.peer.Close() // the next connections go by the new ones
		}
	}
	// From here on nothing can fail.
	if a.working.Load() {
		a.component.Renew(now.XMPP.Secret.Reveal(), serverTLS)
	}
	a.fetcher.SetHeader(headerOf(now.Contacts))
	a.fetcher.SetTLS(backendTLS)
	if a.ejabberd != nil {
		a.ejabberd.Renew(loginOf(now.Ejabberd.API))
	}
	a.tokens.Set(tokensOf(now.Refresh)...)
	a.cfg.Store(&now)
	warn(a.log, warnings)
	level := levelOf(now.Log)
	a.level.Set(min(level, a.level.Level())) // so that the line is logged if the old or the new level lets it
	a.log.Info("the configuration is read again", "changed", taken)
	if len(left) > 0 {
		a.log.Warn("settings have changed that take a restart", "keys", left)
	}
	a.level.Set(level)
	return nil
}
