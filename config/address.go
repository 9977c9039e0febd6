package config

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"rosterd/jid"
)

// hostPort is text for host:port, of which a port alone is a number to YAML, and
// an IPv6 address in brackets a list. Validate says what is missing.
func hostPort(field *string) func(string, any) error {
	return func(name string, v any) error {
		switch v := v.(type) {
		case string:
			*field = v
		case int:
			*field = strconv.Itoa(v)
		default:
			return problem(name, "host:port, in quotes if it begins with '['", showAny(v))
		}
		return nil
	}
}

// splitAddress splits host:port, of which the host is a name, an IP address
// (IPv6 in brackets) or empty, and the port a number.
func splitAddress(s string) (host, port string, ok bool) {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return "", "", false
	}
	if !isPort(port) {
		return "", "", false
	}
	if host == "" {
		return host, port, !strings.HasPrefix(s, "[")
	}
	a, err := netip.ParseAddr(host)
	bracketed := strings.HasPrefix(s, "[")
	if err == nil {
		return host, port, a.Is6() == bracketed
	}
	_, err = jid.PrepareDomain(host)
	return host, port, err == nil && !bracketed
}

// addressProblem is the problem of a value that is not host:port, with the part
// that is missing. least is the lowest port, and usual has the usual host and port.
func addressProblem(key, got, least, usual string) error {
	host, port, _ := net.SplitHostPort(usual)
	missing := ""
	if a, err := netip.ParseAddr(strings.Trim(got, "[]")); err == nil {
		missing = "the port is missing, as in " + net.JoinHostPort(a.String(), port)
		if a.Is6() && !strings.HasPrefix(got, "[") {
			missing = "an IPv6 address stands in brackets, as in [::1]:" + port
		}
	} else if p := strings.TrimPrefix(got, ":"); isPort(p) {
		missing = "the host is missing, as in " + net.JoinHostPort(host, p)
	} else if _, err := jid.PrepareDomain(strings.TrimSuffix(got, ":")); err == nil && strings.Trim(got, "0123456789") != "" {
		missing = "the port is missing, as in " + strings.TrimSuffix(got, ":") + ":" + port
	}
	err := problem(key, "host:port with a port from "+least+" to 65535", show(got))
	if missing != "" && len(got) <= maxShown {
		err = fmt.Errorf("%w: %s", err, missing)
	}
	return err
}

func isPort(s string) bool {
	_, err := strconv.ParseUint(s, 10, 16)
	return err == nil
}

// isZero reports whether a valid port is 0.
func isZero(port string) bool { return strings.Trim(port, "0") == "" }

// isLoopback reports whether only this machine can reach host. An empty host
// is every address.
func isLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.IsLoopback()
}
