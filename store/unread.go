package store

import (
	"slices"
	"time"
)

// PutUnread keeps what clients of a user were told while what is kept of that user could not be
// read: Told, and in Missed the contacts that some client may show. It is not written, as what
// is kept must not be replaced by it: whoever can read that puts both together, the next
// PutUser, [Store.Close], or the instance of a pair that this one hands it to. As of what waits
// to be written, there is one for each user. It is safe for concurrent use, and does not block.
func (s *Store) PutUnread(u User) {
	s.unreadMu.Lock()
	defer s.unreadMu.Unlock()
	if s.unread == nil {
		s.unread = make(map[string]User)
	}
	s.unread[u.JID] = u.copied()
}

// forgetUnread forgets what PutUnread keeps of a user: what is put now has it.
func (s *Store) forgetUnread(jid string) {
	s.unreadMu.Lock()
	defer s.unreadMu.Unlock()
	delete(s.unread, jid)
}

// allUnread are those that PutUnread keeps.
func (s *Store) allUnread() (all []User) {
	s.unreadMu.Lock()
	defer s.unreadMu.Unlock()
	for _, u := range s.unread {
		all = append(all, u)
	}
	return all
}

// join puts what is kept of a user together with what their clients were told without it.
func (s *Store) join(told User) error {
	kept, err := s.User(told.JID)
	if err != nil {
		return err
	}
	kept.JID, kept.Outdated, kept.Epoch = told.JID, true, max(kept.Epoch, told.Epoch)+1
	for _, t := range told.Told {
		i := slices.IndexFunc(kept.Told, func(k Told) bool { return k.Resource == t.Resource })
		if i < 0 {
			kept.Told = append(kept.Told, t)
			continue
		}
		is := &kept.Told[i]
		if is.Since.IsZero() && !is.Doubt || t.Since.Before(is.Since) {
			is.Since = t.Since
		}
		is.Versioned, is.Doubt, is.Asked = is.Versioned || t.Versioned, true, time.Time{}
	}
	kept.Missed = append(kept.Missed, told.Missed...)
	slices.Sort(kept.Missed)
	kept.Missed = slices.Compact(kept.Missed)
	s.PutUser(kept, false, nil)
	return nil
}
