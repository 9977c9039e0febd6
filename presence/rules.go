package presence

import "rosterd/roster"

// opens reports whether a user whose roster has a contact with the subscription lets the
// contact see their presence (RFC 6121, section 2.1.2.5).
func opens(s roster.Subscription) bool {
	return s == roster.SubscriptionFrom || s == roster.SubscriptionBoth
}

// sees reports whether the user sees the contact's presence then.
func sees(s roster.Subscription) bool {
	return s == roster.SubscriptionTo || s == roster.SubscriptionBoth
}

// action is what a subscriber is sent of a resource.
type action uint8

const (
	nothing     action = iota
	later              // nothing yet, and everything later
	toBare             // its presence, to the subscriber's bare JID
	toResource         // its presence, to the one new resource of the subscriber
	unavailable        // unavailable presence, with what the resource said when it left
	withdraw           // unavailable presence that says nothing
)

// server is what the user's server has done by itself, by its own rosters.
type server struct {
	native   bool // it has sent the subscriber what the resource said last
	answered bool // it has sent the fresh resources of the subscriber that
}

// decide is the rule of RFC 6121, section 4, for one resource and one subscriber. certain:
// the user's roster is known, and the resource was reported on this stream, if its end may
// have been missed. available are the subscriber's resources, none of one who is
// elsewhere; fresh are those of them that came after what the subscriber was sent.
func decide(r *resource, certain bool, to *subscriber, available, fresh int, by server) action {
	news, lost := r.changed > to.sent, to.lost || to.doubt
	if to.doubt && to.end == lasts {
		by = server{}
	}
	switch {
	case to.end != lasts: // no subscriber any more
		mayShow := to.end == untold && (to.doubt || r.shown && r.since <= to.sent)
		if mayShow && (news || !r.gone()) || by.native && (to.doubt || news || fresh > 0) && !r.gone() {
			return withdraw
		}
		return nothing
	case r.gone(): // who was sent that it is available is told, once
		if news && (to.doubt || r.since <= to.sent && !by.native) {
			return unavailable
		}
		return nothing
	case !certain:
		return later
	}
	if by.native || by.answered && fresh == available {
		news, lost = false, false
	}
	if by.answered {
		fresh = 0
	}
	switch {
	case fresh == 1 && !lost && (!news || to.sent > 0 && available == 1):
		return toResource // section 4.3.2: the answer is for who asks
	case lost || news || fresh > 1:
		return toBare
	}
	return nothing
}
