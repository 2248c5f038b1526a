package detect

import (
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

// lookup is one question of a program: all tries for a name at one server are one lookup,
// because a program waits for the lookup, not for a try.
type lookup struct {
	resolverKey
	resolver    uint32 // its number
	name        uint64
	qtype       uint16
	at          capture.Instant // first query, or a later one of an endless lookup
	first, last capture.Instant // queries
	frame       uint64          // of the first one
	port        uint16          // from which it was asked
	tries       uint32          // of this piece, at most maxTries
	proto       uint8
	begun       bool          // the fields above are set
	over        bool          // answered, or decided
	again       bool          // a late try of a lookup that counts as unanswered already
	truncated   bool          // answered over UDP, but cut: TCP should follow
	unreachable bool          // ICMP said so
	elsewhere   time.Duration // another server was asked after that time; 0: none was
	next        *lookup       // of the same asker for the same name
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
	// maxTries bounds the count of tries; nobody tells more of them apart.
	maxTries = 1 << 20
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
	pending subjects[uint64, lookup]   // by number of the lookup and of its piece
	asked   subjects[nameKey, waiters] // by asker and name, at whichever server
	steps   uint64                     // along the chains of asked, for tests of what a packet costs
}

// waiters are the lookups of one name that wait, oldest first, maxCallers at most.
type waiters struct {
	oldest, newest *lookup
	n              int
	mixed          bool // they wait for several servers
}

type nameKey struct {
	client capture.Addr
	name   uint64 // and type, see question
}

func newLookups() lookups {
	return lookups{pending: newSubjects[uint64, lookup](maxLookups), asked: newSubjects[nameKey, waiters](maxLookups)}
}

// lookupEvents wake lookups.
var lookupEvents = flow.Of(flow.DNSQuery, flow.DNSRepeat, flow.DNSAnswer, flow.DNSLate, flow.ICMPError)

// event takes a DNS event and returns the lookup that it belongs to, nil if it is not followed, and when
// that, or its piece, began.
func (ls *lookups) event(e *flow.Event) (capture.Instant, *lookup) {
	d := e.DNS
	piece := max(d.First.Sub(d.LookupAt)/lookupPiece, 0)
	k := d.Lookup<<pieceBits | uint64(piece)&(1<<pieceBits-1)
	at := d.LookupAt.Add(piece * lookupPiece)
	l := ls.pending.peek(k)
	if e.Kind != flow.DNSQuery && e.Kind != flow.DNSRepeat {
		if l == nil || l.over {
			return at, nil
		}
		switch {
		case e.Kind == flow.ICMPError:
			l.unreachable = true
		case d.Truncated && d.Proto == capture.ProtoUDP:
			l.truncated = true
		default:
			l.over = true
			ls.pending.drop(k)
		}
		return at, l
	}
	if l == nil && e.Kind == flow.DNSQuery {
		l = ls.pending.get(k)
	}
	if l == nil {
		return at, nil
	}
	if !l.begun {
		*l = lookup{begun: true, resolverKey: resolverOf(d), resolver: d.Resolver, name: d.NameHash, qtype: d.QType, at: at,
			first: e.At, frame: e.Frame, port: d.Client.Port, again: d.Tries > 1 && piece == 0}
		ls.moved(l, e.At)
	}
	if (l.last != e.At || l.tries == 0) && l.tries < maxTries {
		l.tries++ // DNSQuery and DNSRepeat tell of the same packet
	}
	l.last, l.proto = e.At, d.Proto
	return at, l
}

// pieceBits is room for the pieces of a lookup that goes on for four days.
const pieceBits = 16

// moved notes that the asker of l turns to another server for a name that it waits for: of several
// callers that wait, the one that has waited longest.
func (ls *lookups) moved(l *lookup, at capture.Instant) {
	w := ls.asked.get(nameKey{l.client, nameAndType(l.name, l.qtype)})
	if w == nil {
		return
	}
	for w.oldest != nil && (w.oldest.over || w.oldest.elsewhere != 0) {
		w.oldest, w.n = w.oldest.next, w.n-1
	}
	w.mixed = w.mixed || w.oldest != nil && w.oldest.server != l.server
	// Where all wait for one server nobody turns to another: a flood of equal questions walks nowhere.
	for o := w.oldest; o != nil && w.mixed && at.Sub(o.at) >= askElsewhere; o = o.next {
		ls.steps++
		if o.server != l.server && !o.over && o.elsewhere == 0 {
			o.elsewhere = at.Sub(o.at)
			break
		}
	}
	if w.n < maxCallers {
		w.add(l)
	}
}

func (w *waiters) add(l *lookup) {
	l.next = nil
	switch {
	case w.oldest == nil:
		w.oldest = l
	case w.newest == l:
		return // a chain that ends in itself has no end
	default:
		w.mixed = w.mixed || w.oldest.server != l.server
		w.newest.next = l
	}
	w.newest = l
	w.n++
}

// judge calls unanswered for each lookup whose time is over, and forgets what is decided.
func (ls *lookups) judge(now capture.Instant, unanswered func(*lookup)) {
	ls.pending.each(func(_ uint64, l *lookup) bool {
		if l.over {
			return false
		}
		if now.Sub(l.last) < lookupDecided && now.Sub(l.first) < lookupLongest {
			return true
		}
		if !l.again && (!l.truncated || l.proto == capture.ProtoTCP) {
			unanswered(l)
		}
		l.over = true
		return false
	})
	ls.asked.each(func(_ nameKey, w *waiters) bool {
		l := w.oldest
		for *w = (waiters{}); l != nil; {
			next := l.next
			if !l.over && l.elsewhere == 0 {
				w.add(l)
			}
			l = next
		}
		return w.n > 0
	})
}

// evidence of l.
func (l *lookup) evidence(note string) analyze.Evidence {
	e := analyze.Evidence{At: l.first, Note: note,
		Flow: capture.Endpoint{Addr: l.client, Port: l.port}.String() + " > " + l.server.String()}
	if l.frame != 0 {
		e.Frames = []uint64{l.frame}
	}
	return e
}

// question is what a server is asked for.
type question struct {
	server capture.Addr
	name   uint64 // and type
}

func questionOf(d *flow.DNS) question {
	return question{d.Server.Addr, nameAndType(d.NameHash, d.QType)}
}

// nameAndType makes one number of a name's hash and a record type.
func nameAndType(hash uint64, qtype uint16) uint64 {
	return hash ^ uint64(qtype)*0x9e3779b97f4a7c15 // odd: another number for each type
}

// resolvers are states by who asks whom for names.
type resolvers[V any] struct{ numbered[resolverKey, V] }

func newResolvers[V any]() resolvers[V] {
	return resolvers[V]{numbered[resolverKey, V]{limit: maxPerDetector}}
}

func (s *resolvers[V]) get(d *flow.DNS) *V {
	k := resolverOf(d)
	return s.numbered.get(d.Resolver, &k)
}
