package config

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"net/url"
	"os"
	"reflect"
	"slices"
	"strings"

	"github.com/go-viper/mapstructure/v2"
	"github.com/spf13/viper"
)

const (
	localFile  = "./config.yaml" // these two are looked for if Load is given none
	systemFile = "/etc/rosterd/config.yaml"

	maxConfigFile = 1 << 20  // bytes; a longer file is an error
	maxSecretFile = 64 << 10 // bytes, the same way

	// delimiter separates the parts of a key within viper. It is not viper's dot,
	// because header names and domains have dots; no key and none of these has a NUL.
	delimiter = "\x00"
)

// File is the name of the file that [Load] reads if it is given path; "" if there is
// none.
func File(path string) string {
	if path != "" {
		return path
	}
	for _, name := range []string{localFile, systemFile} {
		if _, err := os.Stat(name); !errors.Is(err, fs.ErrNotExist) {
			return name
		}
	}
	return ""
}

// Load reads the file at path, or else ./config.yaml, or else
// /etc/rosterd/config.yaml. The environment goes before the file, and [Default] after
// it; there need not be a file. Then Load reads the files that the keys …_file name,
// and validates the result.
//
// The environment variable ROSTERD_XMPP_SECRET is xmpp.secret. A list is written with
// commas there, contacts.headers and contacts.hosts as JSON objects. A variable that
// begins like that and is no key is an error, unless Kubernetes makes it of a service.
// An empty variable, and a key without a value in the file, count as not set; but
// a secret without a value, which may be a '#' too much, is an error. Where a
// secret and the key of its file are both set, that of the environment counts.
//
// The warnings are of what is allowed and seldom meant. None has a secret in it.
func Load(path string) (c Config, warnings []string, err error) {
	var b []byte
	name := File(path)
	if name != "" {
		if b, err = readFile(name, maxConfigFile); err != nil {
			return Config{}, nil, fmt.Errorf("configuration file %s: %w", show(name), err)
		}
	}
	c, warnings, err = loadBytes(b, name)
	if err == nil {
		return c, warnings, nil
	} else if name == "" {
		err = fmt.Errorf("%w (there is no configuration file: neither %s nor %s exists)", err, localFile, systemFile)
	}
	return Config{}, nil, err
}

// readFile reads a file of at most limit bytes. Its errors leave the name to the
// caller.
func readFile(name string, limit int64) (b []byte, err error) {
	f, err := os.Open(name)
	if err == nil {
		defer f.Close()
		b, err = io.ReadAll(io.LimitReader(f, limit+1))
	}
	if e := (*fs.PathError)(nil); errors.As(err, &e) {
		return nil, e.Err
	}
	if int64(len(b)) > limit {
		return nil, errors.New("too long")
	}
	return b, err
}

// loadBytes is Load for the content of the file with that name.
func loadBytes(b []byte, name string) (c Config, warnings []string, err error) {
	c = Default()
	keys := c.keys()
	if err := checkEnvironment(keys, os.Environ()); err != nil {
		return c, nil, err
	}
	settings, err := parse(b)
	if err != nil {
		return c, nil, fmt.Errorf("configuration file %s: %w", show(name), err)
	}
	v := viper.NewWithOptions(viper.KeyDelimiter(delimiter))
	err = v.MergeConfigMap(settings)
	for _, k := range keys {
		err = cmp.Or(err, v.BindEnv(strings.ReplaceAll(k.name, ".", delimiter), envName(k.name)))
	}
	err = cmp.Or(err, v.UnmarshalExact(&c, func(d *mapstructure.DecoderConfig) {
		d.DecodeHook, d.WeaklyTypedInput = decodeHook, false
	}))
	if err != nil {
		return c, nil, decodeError(err)
	}
	if err := readSecretFiles(keys); err != nil {
		return c, nil, err
	}
	// Validate refuses those that cannot be prepared.
	c.XMPP.Domain = prepared(c.XMPP.Domain)
	for i, h := range c.XMPP.Hosts {
		c.XMPP.Hosts[i] = prepared(h)
	}
	c.Refresh.Advertise = c.Refresh.advertised()
	return c, append(warnInvisible(keys), c.warnUnreachable()...), c.Validate()
}

// warnUnreachable warns of an instance of a pair that the other one does not reach, unless
// something stands in front.
func (c Config) warnUnreachable() []string {
	here, err := url.Parse(c.Refresh.Advertise)
	host, _, _ := splitHostPort(c.Refresh.Listen)
	if c.Refresh.Advertise == "" || err != nil || !isLoopback(host) || isLoopback(here.Hostname()) {
		return nil
	}
	return []string{"refresh.listen: " + show(c.Refresh.Listen) + " takes connections of this machine alone: the other instance cannot reach refresh.advertise, unless a proxy stands in front"}
}

// advertised is Advertise as a URL, if it is an IP address alone: an environment that knows no
// more, as that of a pod of Kubernetes, cannot put one of IPv6 into brackets.
func (r Refresh) advertised() string {
	ip, err := netip.ParseAddr(r.Advertise)
	_, port, ok := splitHostPort(r.Listen)
	if err != nil || ip.Zone() != "" || !ok || port == 0 {
		return r.Advertise
	}
	scheme := "http"
	if r.TLS.Enabled() {
		scheme = "https"
	}
	return fmt.Sprintf("%s://%s", scheme, netip.AddrPortFrom(ip, uint16(port)))
}

// readSecretFiles reads the file of each secret that has one: the key of xmpp.secret's
// file is xmpp.secret_file.
func readSecretFiles(keys []key) error {
	for _, k := range keys {
		name, isFile := strings.CutSuffix(k.name, "_file")
		i := slices.IndexFunc(keys, func(s key) bool { return s.name == name && s.value.Type() == reflect.TypeFor[Secret]() })
		file := k.value.String()
		if !isFile || i < 0 || file == "" {
			continue
		}
		secret := keys[i].value
		if secret.String() != "" {
			if isSet(name) == isSet(k.name) {
				return problem(k.name, "to stand alone", name+" beside it")
			} else if isSet(name) {
				k.value.SetString("")
				continue
			}
		}
		b, err := readFile(file, maxSecretFile)
		if err != nil {
			return problem(k.name, "a readable file of at most 64 KiB", show(file)+": "+err.Error())
		}
		text := strings.TrimRight(string(b), "\r\n")
		if text == "" {
			return problem(k.name, "a file with a text in it", show(file)+", which is empty")
		}
		secret.SetString(text)
	}
	return nil
}
