package config

import (
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
)

func TestDatabaseURL(t *testing.T) {
	for text, want := range map[string]bool{
		"postgres://rosterd@db.example.org/rosterd":                                   true,
		"postgresql://rosterd:s3cret@db.example.org:5433/rosterd?sslmode=verify-full": true,
		"postgres://db/rosterd?sslmode=verify-full&sslrootcert=/etc/ssl/ca.pem":       true,
		"postgres://u:p%40%2F%3F%23%25@h1:5432,h2:5432/db":                            true,
		"postgres://u:p:q;$&=+!*'(),~^{|}\"@h1,h2:5433,[::1]:5434,[::1]/db":           true,
		"postgres://u@[fe80::1%25eth0]:5432/db":                                       true,
		"postgres://u@192.0.2.1/db":                                                   true,
		"postgres://u@my_db/a%20b":                                                    true,
		"postgres://u@h/db?host=/run/postgresql":                                      true,
		"":                                                                            false,
		"POSTGRES://u@h/db":                                                           false, // the driver does not take it for a URL
		"mysql://u@h/db":                                                              false,
		"host=h dbname=db user=u":                                                     false,
		"postgres:///db?host=/run":                                                    false,
		"postgres://u@/db":                                                            false,
		"postgres://u@h":                                                              false,
		"postgres://u@h/":                                                             false,
		"postgres://u@h1,/db":                                                         false,
		"postgres://u@h:0/db":                                                         false,
		"postgres://u@h:65536/db":                                                     false,
		"postgres://u@h:p/db":                                                         false,
		"postgres://u@%2Frun/db":                                                      false,
		"postgres://u@::1/db":                                                         false,
		"postgres://u@[::1/db":                                                        false,
		"postgres://u@[]/db":                                                          false,
		"postgres://u@[1.2.3.4]/db":                                                   false,
		"postgres://u@[::1]5432/db":                                                   false,
		"postgres://u@h/db?application_name=a@b":                                      false,
		"postgres://u@h/db?sslmode":                                                   false,
		"postgres://u@h/db?sslmode=a=b":                                               false,
		"postgres://u@h/db?sslmode=%":                                                 false,
		"postgres://u@h/d%b":                                                          false,
		"postgres://u@h/db#":                                                          false,
		"postgres://u@h/d b":                                                          false,
		"postgres://u:p\x00@h/db":                                                     false,
	} {
		if isDatabaseURL(text) != want {
			t.Errorf("%s: %v", text, !want)
		}
	}
}

// What is taken for the URL of a database, the driver reads as everybody else does.
func FuzzDatabaseURL(f *testing.F) {
	for _, name := range os.Environ() { // the driver would read what these say
		if name, _, _ := strings.Cut(name, "="); strings.HasPrefix(name, "PG") {
			f.Setenv(name, "")
		}
	}
	for _, seed := range []string{"rosterd:p@ssw0rd@db/rosterd", "rosterd:/s3cret@db/rosterd", "rosterd:12/s3cret@db/rosterd", "u:1?x@h/db", "u:1#x@h/db", "u:%40%2f@h/d%41",
		"u:p@h1:5432,h2/db", "u:p@[::1]:5432,h2/db", "[::1]/db", "h/db", "u@h//db", "u:@h/db", ":p@h/db", "u:p@h/db/x"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, rest string) {
		text := "postgres://" + rest
		if !isDatabaseURL(text) || strings.Contains(text, "?") {
			return
		}
		driver, err := pgconn.ParseConfig(text + "?sslmode=disable")
		if err != nil {
			if strings.Contains(text, "%00") {
				return // which it refuses
			}
			t.Fatalf("%q: %v", text, err)
		}
		others, err := url.Parse(text)
		if err != nil {
			return // several hosts, and characters that the driver takes
		}
		password, _ := others.User.Password()
		if user := others.User.Username(); user != "" && user != driver.User || password != "" && password != driver.Password || others.Path != "/"+driver.Database ||
			!strings.Contains(others.Host, driver.Host) || strings.Count(others.Host, ",") != len(driver.Fallbacks) {
			t.Errorf("%q: the driver reads user %q, password %q, host %q, database %q", text, driver.User, driver.Password, driver.Host, driver.Database)
		}
	})
}
