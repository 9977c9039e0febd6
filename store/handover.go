package store

import (
	"bytes"
	"encoding/gob"
	"errors"
	"time"
)

// handed is a change that one instance of a pair hands over to the next one, as it could not
// write it.
type handed struct {
	Table, Key string
	WithRoster bool // as that of change
	Unread     bool // see PutUnread
	At         time.Time
	User       *User // one of these, or none: it is deleted
	Resource   *Resource
	Server     *ServerRoster
	Mark       *handedMark
	Text       *string
}

type handedMark struct {
	Why   string
	Since time.Time
	Anew  bool
}

// errDoubts says that all are still in doubt as they were told by the instance before.
var errDoubts = errors.New("all users are in doubt, and that is not written")

// Unwritten is all that waits to be written, for the instance that is active now, see
// [Lease.Open]; nil: nothing does. If it fails, users may have been told what it does not
// have. It is called after Abandon.
func (s *Store) Unwritten() ([]byte, error) {
	var all []handed
	var failed error
	s.queue.mu.Lock()
	for i, c := range s.queue.changes {
		h := handed{Table: i.table.name, Key: i.key, WithRoster: c.roster, At: c.at}
		switch v := c.value.(type) {
		case nil:
		case User:
			v.Unsure = true // its last answers may not have arrived
			h.User = &v
		case Resource:
			h.Resource = &v
		case ServerRoster:
			h.Server = &v
		case mark:
			h.Mark = &handedMark{v.why, v.since, v.anew}
		case string:
			h.Text = &v
		}
		if of, is := c.value.(doubts); is && of.all {
			failed = errDoubts
		}
		if i.key == keyAlive || i == doubtfulID { // of this process
			continue
		}
		all = append(all, h)
	}
	s.queue.mu.Unlock()
	for _, u := range s.allUnread() {
		all = append(all, handed{Table: users.name, Key: u.JID, Unread: true, At: s.Now(), User: &u})
	}
	if len(all) == 0 {
		return nil, failed
	}
	var b bytes.Buffer
	err := gob.NewEncoder(&b).Encode(all)
	return b.Bytes(), errors.Join(err, failed)
}

// HandedUsers are the users in what another instance has handed over, see [Store.Unwritten],
// for one that works already. Those without a Roster have no Version either.
func HandedUsers(data []byte) (all []User, err error) {
	changes, err := decodeHanded(data)
	if err != nil {
		return nil, err
	}
	for _, h := range changes {
		if h.User == nil {
			continue
		}
		if h.User.Roster == nil {
			h.User.Version = ""
		}
		all = append(all, *h.User)
	}
	return all, nil
}

func decodeHanded(data []byte) (all []handed, err error) {
	if len(data) == 0 {
		return nil, nil
	}
	err = gob.NewDecoder(bytes.NewReader(data)).Decode(&all)
	return all, err
}

// adopt puts what another instance has handed over.
func (s *Store) adopt(data []byte) error {
	all, err := decodeHanded(data)
	if err != nil {
		return err
	}
	for _, h := range all {
		s.clock.goOnAfter(h.At)
		if h.Unread { // behind what else there is of the user
			if err := s.join(*h.User); err != nil {
				return err
			}
			continue
		}
		for _, t := range tables {
			if t.name != h.Table {
				continue
			}
			c := &change{id: id{t, h.Key}, roster: h.WithRoster}
			switch {
			case h.User != nil:
				c.value = *h.User
			case h.Resource != nil:
				c.value = *h.Resource
			case h.Server != nil:
				c.value = *h.Server
			case h.Text != nil:
				c.value = *h.Text
			case h.Mark != nil:
				c.value = mark{why: h.Mark.Why, since: h.Mark.Since, anew: h.Mark.Anew}
			}
			s.put(c, nil)
		}
	}
	return nil
}
