package main

import (
	"io"
	"strings"
	"testing"
)

// What the table says is what the tests have said.
func TestTable(t *testing.T) {
	all, err := read(strings.NewReader(strings.NewReplacer("'", `"`).Replace(`# of the go command
{'Action':'pass','Test':'TestSmoke/prosody'}
{'Action':'pass','Test':'TestSmoke/ejabberd/gosrc'}
{'Action':'pass','Test':'TestSmoke/ejabberd'}
{'Action':'pass','Test':'TestPushes/prosody'}
{'Action':'output','Test':'TestPushes/ejabberd','Output':'why\n'}
{'Action':'fail','Test':'TestPushes/ejabberd'}
{'Action':'skip','Test':'TestVersions/prosody'}
{'Action':'pass','Test':'TestCheck/plain_ejabberd'}
{'Action':'attr','Test':'TestJabberd/query','Key':'cell','Value':'no: it answers itself'}
{'Action':'pass','Test':'TestJabberd/query'}
{'Action':'output','Output':'ok rosterd/e2e\n'}
`)), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	ok := printTable(&out, []row{newRow("prosody", "1.2", all), newRow("ejabberd", "3.4", all), newRow("jabberd2", "5", all)})
	want := `server    version  query  push  presence  restart  refused set  versioning  check
prosody   1.2      ok     ok    FAIL      FAIL     FAIL         FAIL        FAIL
ejabberd  3.4      ok     FAIL  FAIL      FAIL     FAIL         FAIL        ok
jabberd2  5        no     no    no        no       no           no          FAIL
jabberd2 5, no: it answers itself
`
	if got := out.String(); got != want || ok {
		t.Errorf("all is well: %v; got\n%s", ok, got)
	}
	if ok := printTable(io.Discard, []row{{cells: []string{"ok", "no"}}}); !ok {
		t.Error("a table without a failure has failed")
	}
}
