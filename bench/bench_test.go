package main

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

func TestCutter(t *testing.T) {
	long := "<iq type='result' id='1'><delegation xmlns='d'><forwarded xmlns='f'><iq type='result'><query>" +
		strings.Repeat("<item jid='a@b'><group>q</group></item>", 40) + "</query></iq></forwarded></delegation></iq>"
	short := "<iq type='result' id='2'><delegation xmlns='d'><forwarded xmlns='f'><iq type='result'/></forwarded></delegation></iq>"
	want := []string{
		"<stream:stream id='x'>", "<handshake/>", "<presence from='a'/>", short, long, short, long, long,
		"<message><body>1 &gt; 0</body></message>", "</stream:stream>",
	}
	stream := "<?xml version='1.0'?>" + strings.Join(want, " \n")
	for name, r := range map[string]io.Reader{
		"at once":      strings.NewReader(stream),
		"in halves":    iotest.HalfReader(strings.NewReader(stream)),
		"byte by byte": iotest.OneByteReader(strings.NewReader(stream)),
	} {
		t.Run(name, func(t *testing.T) {
			c := newCutter(r, 64)
			for i, w := range want {
				if got, err := c.read(); err != nil || string(got) != w {
					t.Fatalf("stanza %d: %q, %v, want %q", i, got, err, w)
				}
			}
			if _, err := c.read(); err != io.EOF {
				t.Errorf("at the end: %v", err)
			}
		})
	}
}

func TestAttr(t *testing.T) {
	for _, test := range []struct{ tag, name, want string }{
		{`<iq type='set' id="a'b">`, "id", "a'b"},
		{`<iq xml:id='1' id='2'/>`, "id", "2"},
		{`<iq to='id=3'>`, "id", ""},
		{`<iq id=''>`, "id", ""},
		{`<iq>`, "id", ""},
	} {
		if got := string(attr([]byte(test.tag), test.name)); got != test.want {
			t.Errorf("%s of %s: %q, want %q", test.name, test.tag, got, test.want)
		}
	}
}

// TestRosters holds the backend and echo to the same number of contacts, with
// none twice, and to one more or less from one version to the next.
func TestRosters(t *testing.T) {
	for _, u := range []user{{'u', 200, 0}, {'u', 200, 99_999}, {'u', 10_000, 7}, {'p', 30, 2}, {'e', 0, 1}} {
		if back, ok := parseUser(u.String()); !ok || back != u {
			t.Errorf("%s is read as %v", u, back)
		}
		for version, more := range []int{0, 1, 0, 1} {
			var contacts map[string]getContact
			if err := json.Unmarshal(u.appendJSON(nil, version), &contacts); err != nil {
				t.Fatal(err)
			}
			if len(contacts) != u.contacts+more {
				t.Errorf("%s, version %d: %d contacts", u, version, len(contacts))
			}
		}
		if n := strings.Count(string(u.appendXML(nil)), "<item "); n != u.contacts {
			t.Errorf("%s: %d items", u, n)
		}
	}
	for _, name := range []string{"", "u", "u200", "u-1", "u2-x", "juliet", "u999999999-1"} {
		if u, ok := parseUser(name); ok {
			t.Errorf("%q is %v", name, u)
		}
	}
}

func TestBackend(t *testing.T) {
	b := newBackend()
	server := httptest.NewServer(b.handler())
	defer server.Close()
	get := func(tag string) *http.Response {
		request, _ := http.NewRequest(http.MethodGet, server.URL+"/contacts/u3-1", nil)
		request.Header.Set("If-None-Match", tag)
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		return response
	}
	tag := get("").Header.Get("Etag")
	if status := get(tag).StatusCode; status != http.StatusNotModified {
		t.Errorf("unchanged: %d", status)
	}
	response, err := http.Post(server.URL+"/change?kind=u&contacts=3&first=1&n=1", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if status := get(tag).StatusCode; status != http.StatusOK {
		t.Errorf("changed: %d", status)
	}
	response, err = http.Post(server.URL+"/bulk", "application/json", strings.NewReader(`["u3-1","u3-2","juliet"]`))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var all map[string]map[string]getContact
	if err := json.NewDecoder(response.Body).Decode(&all); err != nil {
		t.Fatal(err)
	}
	if len(all) != 2 || len(all["u3-1"]) != 4 || len(all["u3-2"]) != 3 {
		t.Errorf("bulk: %v", all)
	}
}

// TestLongNames holds the users of the tags to one contact, whose name is as long
// as theirs says, and to one tag.
func TestLongNames(t *testing.T) {
	for u, escaped := range map[user]int{{'n', 30_000, 0}: 30_000, {'q', 5_400, 0}: 32_400, {'n', 10, 1}: 10} {
		var contacts map[string]getContact
		if err := json.Unmarshal(u.appendJSON(nil, 0), &contacts); err != nil {
			t.Fatal(err)
		}
		if n := len(contacts["long@"+host].Name); len(contacts) != 1 || n != u.contacts {
			t.Errorf("%s: %d contacts, the name has %d bytes", u, len(contacts), n)
		}
		if n := len(attr(tag(u.appendXML(nil)), "name")); n != escaped {
			t.Errorf("%s: the name has %d bytes in XML", u, n)
		}
	}
}

// TestEchoOnFake runs echo against the fake server: whole rosters, versions, and
// pushes.
func TestEchoOnFake(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	f, err := newFake()
	if err != nil {
		t.Fatal(err)
	}
	defer f.close()
	conn, err := net.Dial("tcp", f.address())
	if err != nil {
		t.Fatal(err)
	}
	e := &echo{conn: conn, rosters: make(map[int][]byte), full: make(map[string]string)}
	ended := make(chan error, 1)
	go func() { ended <- e.run() }()
	l, err := f.accept(ctx, &child{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		l.conn.Close()
		<-l.closed
		<-ended
	}()

	all := users('u', 200, 0, 30)
	whole := &flow{users: all, window: 8, learn: true, presence: true}
	if err := l.run(ctx, whole); err != nil {
		t.Fatal(err)
	}
	if whole.bytes < 30*200*80 || slices.Contains(whole.versions, "") {
		t.Errorf("%d bytes, versions %q", whole.bytes, whole.versions)
	}
	named := &flow{users: all, passes: 3, window: 8, versions: whole.versions}
	if err := l.run(ctx, named); err != nil {
		t.Fatal(err)
	}
	if each := named.bytes / 90; each > 300 {
		t.Errorf("an empty result has %d bytes", each)
	}
	wait := l.expect(&l.pushes, len(all))
	e.refresh(httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/", strings.NewReader(string(namesOf(all)))))
	if _, err := wait(ctx); err != nil {
		t.Error(err)
	}
}

func TestRowFigures(t *testing.T) {
	var b board
	r := b.row("what", "/s", "get", 0.6, true)
	for _, s := range []sample{{100, 50}, {1000, 700}, {10, 9}} {
		r.add(s.limit, s.got)
	}
	limit, got, ratios := r.figures()
	if limit != 100 || got != 50 || !slices.Equal(ratios, []float64{0.5, 0.7, 0.9}) {
		t.Errorf("%v %v %v", limit, got, ratios)
	}
	b.row("none", "", "echo", 0.9, true).note = "not there yet: a key"
	var out strings.Builder
	b.print(&out)
	for _, want := range []string{"0.7", "reached", "≥ 0.6", "0.5 to 0.9", "not there yet: a key"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, &out)
		}
	}
}
