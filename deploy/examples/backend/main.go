// A small contacts backend for rosterd: contacts.url is http://127.0.0.1:8000/contacts/%s,
// contacts.bulk_url http://127.0.0.1:8000/bulk.
package main

import (
	"crypto/sha256"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"net/http"
)

// table has the contacts of each user. A backend of your own looks into its database.
var table = map[string]json.RawMessage{
	"juliet": json.RawMessage(`{"romeo@example.org": {"name": "Romeo", "groups": ["Friends"]}}`),
	"romeo":  json.RawMessage(`{"juliet@example.org": {"name": "Juliet", "subscription": "both"}}`),
	"nurse":  json.RawMessage(`{}`),
}

// one answers GET /contacts/juliet.
func one(w http.ResponseWriter, r *http.Request) {
	contacts, known := table[r.PathValue("user")]
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
		if contacts, known := table[user]; known {
			answer[user] = contacts
		}
	}
	json.NewEncoder(w).Encode(answer)
}

func main() {
	listen := flag.String("listen", "127.0.0.1:8000", "host:port")
	flag.Parse()
	http.HandleFunc("GET /contacts/{user}", one)
	http.HandleFunc("POST /bulk", many)
	log.Fatal(http.ListenAndServe(*listen, nil))
}
