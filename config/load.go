package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/viper"
)

// The files that Load looks for if it is given none.
const (
	localFile  = "./config.yaml"
	systemFile = "/etc/rosterd/config.yaml"
)

const (
	maxConfigFile = 1 << 20  // bytes
	maxSecretFile = 64 << 10 // bytes
)

// delimiter separates the parts of a key within viper. It is not viper's dot,
// because header names and domains have dots; no key and none of these has a NUL.
const delimiter = "\x00"

// Load reads the file at path, puts the environment over it and what is still
// missing from [Default] under it, reads the files that the keys …_file name,
// and validates the result. If path is empty, the file is ./config.yaml or, if
// that does not exist, /etc/rosterd/config.yaml; if neither exists, the
// environment may hold everything.
//
// Each key is the environment variable ROSTERD_ and the key in upper case with
// '_' for '.': ROSTERD_XMPP_SECRET is xmpp.secret. A list is written with
// commas, contacts.headers and contacts.hosts as JSON objects. As viper has it, a
// variable that is set but empty counts as not set. One with that prefix that is no
// key is an error, but for those that Kubernetes makes of a service.
//
// In the file, a key without a value counts as not set. Where a secret and the key of
// its file are both set, that of the environment counts.
//
// The warnings are of what is allowed and seldom meant. None has a secret in it.
func Load(path string) (c Config, warnings []string, err error) {
	b, name, err := readConfigFile(path)
	if err != nil {
		return Config{}, nil, err
	}
	c, warnings, err = loadBytes(b)
	if err != nil {
		if line := (*lineError)(nil); errors.As(err, &line) {
			return Config{}, nil, fmt.Errorf("%s:%d: %s", name, line.line, line.text)
		}
		if name == "" {
			return Config{}, nil, fmt.Errorf("%w (there is no configuration file: neither %s nor %s exists)", err, localFile, systemFile)
		}
		return Config{}, nil, err
	}
	return c, warnings, nil
}

// readConfigFile returns the content and the name of the file, which are empty
// if path is and neither file is there.
func readConfigFile(path string) ([]byte, string, error) {
	candidates := []string{localFile, systemFile}
	if path != "" {
		candidates = []string{path}
	}
	for _, name := range candidates {
		b, err := readFile(name, maxConfigFile)
		if err == nil {
			return b, name, nil
		}
		if path != "" || !errors.Is(err, fs.ErrNotExist) {
			return nil, "", fmt.Errorf("configuration file %s: %w", show(name), err)
		}
	}
	return nil, "", nil
}

var errTooLong = errors.New("too long")

// readFile reads a file of at most limit bytes. Its errors do not contain the
// name, which the caller shows.
func readFile(name string, limit int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, cause(err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, cause(err)
	}
	if int64(len(b)) > limit {
		return nil, errTooLong
	}
	return b, nil
}

func cause(err error) error {
	if e := (*fs.PathError)(nil); errors.As(err, &e) {
		return e.Err
	}
	return err
}

// loadBytes is Load for the content of a file.
func loadBytes(b []byte) (c Config, warnings []string, err error) {
	c = Default()
	keys := c.keys()
	if err := checkEnvironment(keys, os.Environ()); err != nil {
		return Config{}, nil, err
	}
	v := viper.NewWithOptions(viper.KeyDelimiter(delimiter), viper.WithDecoderRegistry(decoder{keys, &warnings}))
	v.SetConfigType("yaml")
	if err := v.ReadConfig(bytes.NewReader(b)); err != nil {
		return Config{}, nil, err
	}
	for _, k := range keys {
		path := strings.ReplaceAll(k.name, ".", delimiter)
		if err := v.BindEnv(path, k.env()); err != nil {
			return Config{}, nil, fmt.Errorf("%s: %w", k.name, err)
		}
		if value := v.Get(path); value != nil {
			if err := k.set(k.name, value); err != nil {
				return Config{}, nil, err
			}
		}
	}
	if err := c.readSecretFiles(); err != nil {
		return Config{}, nil, err
	}
	if err := c.Validate(); err != nil {
		return Config{}, nil, err
	}
	return c, append(warnings, spaced(keys)...), nil
}

func (c *Config) readSecretFiles() error {
	for _, s := range []struct {
		name  string
		value *Secret
		file  *string
	}{
		{"xmpp.secret", &c.XMPP.Secret, &c.XMPP.SecretFile},
		{"contacts.token", &c.Contacts.Token, &c.Contacts.TokenFile},
		{"refresh.token", &c.Refresh.Token, &c.Refresh.TokenFile},
	} {
		name := s.name + "_file"
		if *s.value != "" && *s.file != "" {
			switch inEnv, fileInEnv := isSet(s.name), isSet(name); {
			case inEnv == fileInEnv:
				return problem(name, "to stand alone", s.name+" beside it")
			case inEnv:
				*s.file = ""
			default:
				*s.value = ""
			}
		}
		if *s.file == "" {
			continue
		}
		b, err := readFile(*s.file, maxSecretFile)
		if err != nil {
			return problem(name, "a readable file of at most 64 KiB", show(*s.file)+": "+err.Error())
		}
		*s.value = Secret(strings.TrimRight(string(b), "\r\n"))
		if *s.value == "" {
			return problem(name, "a file with a text in it", show(*s.file)+", which is empty")
		}
	}
	return nil
}
