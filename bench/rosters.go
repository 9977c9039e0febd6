package main

import (
	"fmt"
	"strconv"
	"strings"
	"sync"

	"rosterd/xmlstream"
)

// host is the domain of all users, and domain that of the component.
const (
	host   = "example.org"
	domain = "contacts." + host
	secret = "bench"
)

// A user's name says what their roster is: "u200-17" is user 17 of those with 200
// contacts, drawn from all people; "p1000-3" is one whose contacts are the users
// "e0-0" to "e0-999". "n30000-0" has one contact, whose name has that many
// bytes; "q30000-0", too, and each of these is six in XML. So the processes of a run need no common data.
type user struct {
	kind     byte
	contacts int
	index    int
}

func (u user) String() string { return fmt.Sprintf("%c%d-%d", u.kind, u.contacts, u.index) }

func parseUser(name string) (u user, ok bool) {
	if len(name) < 4 {
		return user{}, false
	}
	contacts, index, _ := strings.Cut(name[1:], "-")
	var err1, err2 error
	u.kind = name[0]
	u.contacts, err1 = strconv.Atoi(contacts)
	u.index, err2 = strconv.Atoi(index)
	return u, err1 == nil && err2 == nil && u.contacts >= 0 && u.contacts < population && u.index >= 0
}

// users are those of one kind from first on.
func users(kind byte, contacts, first, n int) []user {
	all := make([]user, n)
	for i := range all {
		all[i] = user{kind, contacts, first + i}
	}
	return all
}

// population is how many people there are. It is prime: stepping through them
// meets each one once.
const population = 100_003

// person is a contact as the backend writes it, and as a roster item.
type person struct{ json, xml string }

var people = sync.OnceValue(func() []person {
	first := []string{"Juliet", "Romeo", "Mercutio", "Benvolio", "Rosaline", "Paris", "Tybalt", "Laurence", "Balthasar", "Abram", "Gregory", "Sampson", "Petruchio"}
	last := []string{"Capulet", "Montague", "Escalus", "Verona", "Mantua", "Della Scala", "Nurse"}
	groups := []string{"Friends", "Family", "Colleagues", "Neighbours", "School"}
	all := make([]person, population)
	for i := range all {
		given, family := first[i%len(first)], last[i%len(last)]
		local := strings.ToLower(given) + "." + strconv.Itoa(i)
		all[i] = newPerson(local, given+" "+family, groups[i%len(groups)])
	}
	return all
})

func newPerson(local, name, group string) person {
	return person{
		json: fmt.Sprintf(`"%s@%s":{"name":"%s","groups":{"%s":true}}`, local, host, name, group),
		xml:  fmt.Sprintf(`<item jid='%s@%s' subscription='both' name='%s'><group>%s</group></item>`, local, host, xmlstream.AppendEscaped(nil, name), group),
	}
}

// each calls f with the contacts of a user, of whom the backend knows a version.
// Each odd version has one contact more than the even ones: what changes from
// one version to the next is one item, which every server takes for a change.
func (u user) each(version int, f func(person)) {
	switch u.kind {
	case 'n':
		f(newPerson("long", strings.Repeat("n", u.contacts), "Friends"))
	case 'q':
		f(newPerson("long", strings.Repeat("'", u.contacts), "Friends"))
	case 'p':
		for i := range u.contacts {
			f(newPerson(user{'e', 0, i}.String(), "Somebody", "Online"))
		}
	default:
		all := people()
		at, step := mix(2*u.index)%population, 1+mix(2*u.index+1)%(population-1)
		for range u.contacts {
			f(all[at])
			at = (at + step) % population
		}
	}
	if version%2 == 1 {
		f(newPerson("new-"+strconv.Itoa(version), "Somebody New", "Friends"))
	}
}

// mix spreads small numbers over all.
func mix(n int) int {
	x := uint64(n+1) * 0x9E3779B97F4A7C15
	x ^= x >> 31
	x *= 0xBF58476D1CE4E5B9
	return int((x ^ x>>29) >> 2)
}

// appendJSON appends the contacts object.
func (u user) appendJSON(b []byte, version int) []byte {
	b = append(b, '{')
	first := true
	u.each(version, func(p person) {
		if !first {
			b = append(b, ',')
		}
		first = false
		b = append(b, p.json...)
	})
	return append(b, '}')
}

// appendXML appends the items of the roster.
func (u user) appendXML(b []byte) []byte {
	u.each(0, func(p person) { b = append(b, p.xml...) })
	return b
}
