package component

import (
	"errors"
	"slices"
	"strings"

	"rosterd/jid"
	"rosterd/roster"
	"rosterd/xmlstream"
)

// The values of the label result of rosterd_edits_total.
const (
	editOK      = "ok"      // the backend has taken it
	editRefused = "refused" // the backend does not permit it
	editFailed  = "failed"  // nobody knows, or it was not passed on
)

// EditResults are all values of the label.
var EditResults = []string{editOK, editRefused, editFailed}

// What a user may set, in bytes (RFC 6121, section 2.3.3).
const (
	maxName   = 1023    // of a name, and of a group
	maxGroups = 8 << 10 // of all groups, with groupCost for each
	groupCost = 16
)

// editOf is what a roster set asks for, or why it cannot be (RFC 6121, sections 2.1.5 and
// 2.3.3). raw is the stanza that it came in, which has the texts.
func (c *Component) editOf(user jid.JID, query *xmlstream.Element, raw []byte) (e roster.Edit, refusal stanzaError, ok bool) {
	var item *xmlstream.Element
	for _, child := range query.Children {
		if child.Is(nsRoster, "item") {
			if item != nil {
				return e, errBadRequest, false
			}
			item = child
		}
	}
	if item == nil {
		return e, errBadRequest, false
	}
	contact, err := jid.Parse(strings.Clone(item.Get("jid")))
	if err != nil || !contact.IsBare() {
		return e, errBadRequest, false
	}
	e.Contact = c.names.read([]roster.Item{{JID: contact}})[0]
	if e.Contact.JID == user {
		return e, errNotAllowed, false
	}
	if e.Remove = item.Get("subscription") == "remove"; e.Remove {
		return e, refusal, true
	}
	name := item.Get("name")
	groups, err := xmlstream.Texts(raw, nsRoster, "group")
	if err != nil || len(groups) != countGroups(item) {
		return e, errBadRequest, false // some are elsewhere in the stanza, or it has too many
	}
	size := 0
	for i, group := range groups {
		if group == "" || len(group) > maxName {
			return e, errNotAcceptable, false
		}
		size += len(group) + groupCost
		groups[i] = roster.CleanText(group)
	}
	if len(name) > maxName || size > maxGroups {
		return e, errNotAcceptable, false
	}
	slices.Sort(groups)
	if len(slices.Compact(slices.Clone(groups))) != len(groups) {
		return e, errBadRequest, false
	}
	e.Contact.Name, e.Contact.Groups = roster.CleanText(strings.Clone(name)), groups
	return e, refusal, true
}

func countGroups(item *xmlstream.Element) (n int) {
	for _, child := range item.Children {
		if child.Is(nsRoster, "group") {
			n++
		}
	}
	return n
}

// handleEdit hands an edit over, to be answered when the backend has answered.
func (c *Component) handleEdit(s *stream, e envelope, full jid.JID, edit roster.Edit) {
	edit.Confirm = c.pushes(s, full.Domain())
	answer := func(err error) {
		edited, result, data := editOK, queryOK, []byte(nil)
		if err == nil {
			data = e.same()
		} else {
			var refusal stanzaError
			edited, result, refusal = editFailure(err)
			data = e.refusal(refusal)
			if edited == editFailed {
				c.warn(c.unanswered, "edit "+err.Error(), "a user's edit failed, and they were told to try again", "user", full.Bare(), "err", err)
			}
		}
		c.count(result)
		c.opts.Metrics.Edits.WithLabelValues(edited).Inc()
		s, _ := c.current() // see deliver
		if s == nil {
			return
		}
		if e.delegation != "" {
			s.barrier.answered(full)
		}
		if c.offer(s, data); err != nil {
			c.undo(s, full, []jid.JID{edit.Contact.JID})
		}
	}
	if err := c.rosters.Edit(full, edit, answer); err != nil {
		answer(err)
	}
}

// editFailure is what becomes of an edit that failed: how it counts, as an edit and as a query,
// and what the client is told.
func editFailure(err error) (edited, result string, refusal stanzaError) {
	if refused, ok := errors.AsType[*roster.NotAllowedError](err); ok {
		if refused.Message == "" {
			return editRefused, querySet, errEditRefused
		}
		return editRefused, querySet, stanzaError{kind: errNotAllowed.kind, condition: errNotAllowed.condition, text: refused.Message}
	}
	result, refusal = failureOf(err)
	return editFailed, result, refusal
}
