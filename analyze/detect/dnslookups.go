package detect

import (
	"slices"
	"time"

	"jindan/analyze"
	"jindan/analyze/flow"
	"jindan/capture"
)

// resolverKey is who asks whom for names.
type resolverKey struct {
	client capture.Addr
	server capture.Endpoint
}

func resolverOf(d *flow.DNS) resolverKey { return resolverKey{d.Client.Addr, d.Server} }

func (k resolverKey) subject() analyze.Subject {
	return analyze.Subject{Kind: analyze.SubjectResolver, Host: k.client.String(), Peer: k.server.Addr.String(), Port: k.server.Port}
}

// lookupKey is one question of a program: all tries for a name at one server are one lookup,
// because a program waits for the lookup, not for a try.
type lookupKey struct {
	resolverKey
	name  uint64
	qtype uint16
	at    capture.Instant // first query, or a later one of an endless lookup
}

// lookup is a question without an answer so far.
type lookup struct {
	first, last capture.Instant // queries
	frame       uint64          // of the first one
	port        uint16          // from which it was asked
	tries       uint16          // of this piece
	proto       uint8
	over        bool
	again       bool // a late try of a lookup that counts as unanswered already
	truncated   bool // answered over UDP, but cut: TCP should follow
	unreachable bool
	elsewhere   time.Duration // another server was asked after that time; 0: none was
}

const (
	// maxLookups bounds the questions that wait for an answer: 3,000 a second for the 6 s that
	// it takes to call one unanswered.
	maxLookups = 1 << 14
	// lookupDecided: a lookup is unanswered when its newest query has waited for 5 s (resolv.conf(5),
	// RES_TIMEOUT) and a second more, in which a resolver that times out at 5 s asks again.
	lookupDecided = 6 * time.Second
	// lookupPiece cuts an endless lookup into pieces: a program that asks for the same name every
	// second looks like one that tries again. Two attempts of 5 s (resolv.conf(5)) are one piece.
	lookupPiece = lookupDecided
	// lookupLongest decides a piece in which trying goes on.
	lookupLongest = 10 * time.Second
	// dnsSettled is how old a second must be before its questions are counted: by then each
	// question is answered or called unanswered, so that the two are counted alike.
	dnsSettled = lookupDecided + analyze.WindowLength
	// askElsewhere: programs that ask several servers at once do so within milliseconds; what
	// comes later is a second server asked because the first is silent.
	askElsewhere = 300 * time.Millisecond
	// maxCallers bounds the callers that wait for one name at a time and are told apart.
	maxCallers = 64
	// idleState is after how long without traffic the state of a healthy subject is dropped.
	idleState = 10 * time.Minute
)

// lookups follows questions until they are answered or given up.
type lookups struct {
	pending subjects[lookupKey, lookup]
	asked   subjects[nameKey, []lookupKey] // by asker and name, at whichever server, oldest first
}

type nameKey struct {
	client capture.Addr
	name   uint64
	qtype  uint16
}

func newLookups() lookups {
	return lookups{newSubjects[lookupKey, lookup](maxLookups), newSubjects[nameKey, []lookupKey](maxLookups)}
}

// lookupEvents wake lookups.
var lookupEvents = flow.Of(flow.DNSQuery, flow.DNSRepeat, flow.DNSAnswer, flow.DNSLate, flow.ICMPError)

// event takes a DNS event and returns the lookup that it belongs to; nil if it is not followed.
func (ls *lookups) event(e *flow.Event) (lookupKey, *lookup) {
	d := e.DNS
	piece := max(d.First.Sub(d.LookupAt)/lookupPiece, 0)
	k := lookupKey{resolverOf(d), d.NameHash, d.QType, d.LookupAt.Add(piece * lookupPiece)}
	if e.Kind != flow.DNSQuery && e.Kind != flow.DNSRepeat {
		l := ls.pending.peek(k)
		if l == nil || l.over {
			return k, nil
		}
		switch {
		case e.Kind == flow.ICMPError:
			l.unreachable = true
		case d.Truncated && d.Proto == capture.ProtoUDP:
			l.truncated = true
		default:
			l.over = true
		}
		return k, l
	}
	l := ls.pending.peek(k)
	if l == nil && e.Kind == flow.DNSQuery {
		l = ls.pending.get(k)
	}
	if l == nil {
		return k, nil
	}
	if l.tries == 0 {
		l.first, l.frame, l.port, l.again = e.At, e.Frame, d.Client.Port, d.Tries > 1 && piece == 0
		ls.moved(k, e.At)
	}
	if l.last != e.At || l.tries == 0 {
		l.tries++ // DNSQuery and DNSRepeat tell of the same packet
	}
	l.last, l.proto = e.At, d.Proto
	return k, l
}

// moved notes that the asker of k turns to another server for a name that it waits for: of several
// callers that wait, the one that has waited longest.
func (ls *lookups) moved(k lookupKey, at capture.Instant) {
	list := ls.asked.get(nameKey{k.client, k.name, k.qtype})
	if list == nil {
		return
	}
	for _, o := range *list {
		if o.server == k.server || at.Sub(o.at) < askElsewhere {
			continue
		}
		if l := ls.pending.peek(o); l != nil && !l.over && l.elsewhere == 0 {
			l.elsewhere = at.Sub(o.at)
			break
		}
	}
	if len(*list) < maxCallers {
		*list = append(*list, k)
	}
}

// judge calls unanswered for each lookup whose time is over, and forgets what is decided.
func (ls *lookups) judge(now capture.Instant, unanswered func(lookupKey, *lookup)) {
	ls.pending.each(func(k lookupKey, l *lookup) bool {
		if l.over {
			return false
		}
		if now.Sub(l.last) < lookupDecided && now.Sub(l.first) < lookupLongest {
			return true
		}
		if !l.again && (!l.truncated || l.proto == capture.ProtoTCP) {
			unanswered(k, l)
		}
		return false
	})
	ls.asked.each(func(_ nameKey, list *[]lookupKey) bool {
		*list = slices.DeleteFunc(*list, func(k lookupKey) bool {
			l := ls.pending.peek(k)
			return l == nil || l.over || l.elsewhere != 0
		})
		return len(*list) > 0
	})
}

// evidence of a lookup.
func (k *lookupKey) evidence(l *lookup, note string) analyze.Evidence {
	e := analyze.Evidence{At: l.first, Note: note,
		Flow: capture.Endpoint{Addr: k.client, Port: l.port}.String() + " > " + k.server.String()}
	if l.frame != 0 {
		e.Frames = []uint64{l.frame}
	}
	return e
}
