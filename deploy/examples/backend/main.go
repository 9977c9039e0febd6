// A small contacts backend for rosterd: contacts.url is http://127.0.0.1:8000/contacts/%s,
// contacts.bulk_url http://127.0.0.1:8000/bulk, contacts.edit_url http://127.0.0.1:8000/edit.
package main

import (
	"crypto/sha256"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"net/http"
	"sync"
)

// contact is one of a user's contacts.
type contact struct {
	Name         string   `json:"name,omitempty"`
	Groups       []string `json:"groups,omitempty"`
	Subscription string   `json:"subscription,omitempty"`
}

// table has the contacts of each user, by JID. A backend of your own looks into its database.
var (
	mu    sync.Mutex // guards table
	table = map[string]map[string]contact{
		"juliet": {"romeo@example.org": {Name: "Romeo", Groups: []string{"Friends"}}},
		"romeo":  {"juliet@example.org": {Name: "Juliet", Subscription: "both"}},
		"nurse":  {},
	}
)

// contactsOf is what is said of a user; nothing if there is no such user.
func contactsOf(user string) (contacts json.RawMessage, known bool) {
	mu.Lock()
	defer mu.Unlock()
	list, known := table[user]
	if known {
		contacts, _ = json.Marshal(list)
	}
	return contacts, known
}

// one answers GET /contacts/juliet.
func one(w http.ResponseWriter, r *http.Request) {
	contacts, known := contactsOf(r.PathValue("user"))
	if !known {
		http.NotFound(w, r) // not {}: that is a user without contacts
		return
	}
	tag := fmt.Sprintf(`"%x"`, sha256.Sum256(contacts))
	w.Header().Set("ETag", tag)
	if r.Header.Get("If-None-Match") == tag {
		w.WriteHeader(http.StatusNotModified) // rosterd has them
		return
	}
	w.Write(contacts)
}

// many answers POST /bulk with the contacts of those users who are known.
func many(w http.ResponseWriter, r *http.Request) {
	var users []string
	if err := json.NewDecoder(r.Body).Decode(&users); err != nil {
		http.Error(w, "no JSON array of users", http.StatusBadRequest)
		return
	}
	answer := make(map[string]json.RawMessage)
	for _, user := range users {
		if contacts, known := contactsOf(user); known {
			answer[user] = contacts
		}
	}
	json.NewEncoder(w).Encode(answer)
}

// edit takes what a user changes in a client, by POST /edit. rosterd asks for the contacts then.
func edit(w http.ResponseWriter, r *http.Request) {
	var e struct {
		User, Action, JID, Name string
		Groups                  []string
	}
	if err := json.NewDecoder(r.Body).Decode(&e); err != nil {
		http.Error(w, "no JSON object of an edit", http.StatusBadRequest)
		return
	}
	mu.Lock()
	defer mu.Unlock()
	contacts, known := table[e.User]
	if !known { // the user reads that
		w.WriteHeader(http.StatusUnprocessableEntity)
		json.NewEncoder(w).Encode(map[string]string{"message": "There is no user of that name."})
		return
	}
	if e.Action == "remove" {
		delete(contacts, e.JID)
	} else {
		contacts[e.JID] = contact{e.Name, e.Groups, contacts[e.JID].Subscription}
	}
	w.WriteHeader(http.StatusNoContent)
}

func main() {
	listen := flag.String("listen", "127.0.0.1:8000", "host:port")
	flag.Parse()
	http.HandleFunc("GET /contacts/{user}", one)
	http.HandleFunc("POST /bulk", many)
	http.HandleFunc("POST /edit", edit)
	log.Fatal(http.ListenAndServe(*listen, nil))
}
