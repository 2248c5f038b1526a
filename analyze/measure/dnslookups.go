package detect

import (
	"time"

	"jindan/analyze"
	"jindan/analyze/flow"
	"jindan/analyze/stat"
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

// lookup is one question of a program: all tries for a name and type at one server. Several make a group.
type lookup struct {
	resolverKey
	resolver    uint32 // its number
	name        uint64
	qtype       uint16
	id          uint16          // of the first query
	record      uint64          // of the first query, for its name
	group       *group          // nil: there were too many
	at          capture.Instant // first query, or a later one of an endless lookup
	first, last capture.Instant // queries
	frame       uint64          // of the first one
	port        uint16          // from which it was asked
	tries       uint32          // of this piece, at most maxTries
	proto       uint8
	begun       bool // the fields above are set
	over        bool // answered, or decided
	again       bool // a late try of a lookup that counts as unanswered already
	truncated   bool // answered over UDP, but cut: TCP should follow
	same        bool // asked again under the same id from the same socket
	served      bool // another server, asked at the same time, answered at once: nobody waited for this one
	cutAt       capture.Instant
	unreachable bool             // ICMP said so
	stray       capture.Endpoint // who answered, if that was not who was asked
	elsewhere   time.Duration    // another server was asked after that time; 0: none was
	next        *lookup          // of the same asker for the same name
}

// group is what a program waits for: the questions for one name that one caller asks one server together, the A and the
// AAAA of getaddrinfo(3). It fails if one of them does, and is as slow as the slowest.
type group struct {
	at      capture.Instant // first query
	port    uint16          // from which that was asked
	types   uint8           // see typeBit
	open    int             // questions without an answer
	counted bool            // among all
	failed  bool            // among those that failed
	waited  bool            // counted among all that were waited for
	late    bool            // among those that took a time-out
	fast    bool            // one of the questions was answered at once
	asked   capture.Instant // newest of the questions that stages counts
}

// askedKey is whose question for which name, and from which port; port 0: the newest, from whichever. It has no gaps: a map
// hashes such a key as one piece.
type askedKey struct {
	resolver uint32
	port     uint32
	name     uint64
}

// typeBit is a bit for each type of those that are asked together (getaddrinfo(3): A and AAAA; RFC 9460: browsers ask
// for HTTPS beside them), 0 for others.
func typeBit(qtype uint16) uint8 {
	switch qtype {
	case typeA:
		return 1
	case typeAAAA:
		return 2
	case typeHTTPS:
		return 4
	}
	return 0
}

// Record types (IANA dns-parameters).
const (
	typeA     = 1
	typeAAAA  = 28
	typeHTTPS = 65
)

// began is when the caller began to wait.
func (l *lookup) began() capture.Instant {
	if l.group != nil {
		return l.group.at
	}
	return l.first
}

// groups joins questions into groups. By port are kept only those that are not the newest of their name, or were not begun from
// that port.
type groups struct{ subjects[askedKey, *group] }

// join returns the group of a question that is asked at at, nil if there are too many.
func (gs *groups) join(d *flow.DNS, at capture.Instant) *group {
	bit := typeBit(d.QType)
	if bit == 0 {
		return &group{at: at, open: 1}
	}
	own := askedKey{d.Resolver, uint32(d.Client.Port), d.NameHash}
	last := gs.get(askedKey{d.Resolver, 0, d.NameHash})
	if last == nil {
		return nil
	}
	var g *group
	if *last != nil && (*last).port == d.Client.Port {
		g = *last
	} else if x := gs.peek(own); x != nil {
		g = *x
	}
	switch {
	case g != nil && g.open > 0:
		// glibc asks for all of a lookup again, from the same socket, when one of the answers is missing.
	case g.takes(bit, at):
	case (*last).takes(bit, at): // a socket for each question
		g = *last
		if !gs.keep(own, g) {
			return nil
		}
	default:
		if o := *last; o != nil && (o.open > 0 || at.Sub(o.at) <= askTogether) &&
			!gs.keep(askedKey{d.Resolver, uint32(o.port), d.NameHash}, o) {
			return nil
		}
		g = &group{at: at, port: d.Client.Port}
		*last = g
	}
	g.types |= bit
	g.open++
	return g
}

// keep keeps g under k, if there is room.
func (gs *groups) keep(k askedKey, g *group) bool {
	x := gs.get(k)
	if x != nil {
		*x = g
	}
	return x != nil
}

// takes reports whether a question of another type, asked at at, belongs to g.
func (g *group) takes(bit uint8, at capture.Instant) bool {
	return g != nil && g.types&bit == 0 && at.Sub(g.at) <= askTogether
}

// judge forgets groups that nothing will join any more.
func (gs *groups) judge(now capture.Instant) {
	gs.each(func(_ askedKey, g **group) bool {
		if *g == nil {
			return false
		}
		age := now.Sub((*g).at)
		return age <= askTogether || (*g).open > 0 && age <= lookupLongest
	})
}

const (
	// askTogether is how far apart the questions of one group are asked. glibc sends the pair in one sendmmsg(2), or,
	// with single-request, the second when the first is answered; programs with a thread for each within milliseconds.
	askTogether = 300 * time.Millisecond
	// askAtOnce: servers that are asked within that time of one another are asked in parallel (musl, dnsmasq
	// --all-servers): in a loop that sends, microseconds apart.
	askAtOnce = 5 * time.Millisecond
	// maxLookups bounds the questions that wait for an answer: 3,000 a second for the 6 s that
	// it takes to call one unanswered.
	maxLookups = 1 << 14
	// lookupPiece cuts an endless lookup into pieces: a program that asks for the same name every
	// second looks like one that tries again. Two attempts of 5 s (resolv.conf(5)) are one piece.
	lookupPiece = lookupDecided
	// lookupLongest decides a piece in which trying goes on.
	lookupLongest = 10 * time.Second
	// dnsSettled is how old a second must be before its questions are counted: by then each
	// question is answered or called unanswered, so that the two are counted alike.
	dnsSettled = lookupDecided + analyze.WindowLength
	// maxTries bounds the count of tries.
	maxTries = 1 << 20
	// askElsewhere: programs that ask several servers at once do so within milliseconds; what
	// comes later is a second server asked because the first is silent.
	askElsewhere = 300 * time.Millisecond
	// maxCallers bounds the callers that wait for one name at a time and are followed one by one.
	maxCallers = 64
)

// lookups follows questions until they are answered or given up.
type lookups struct {
	pending subjects[uint64, lookup]   // by number of the lookup and of its piece
	asked   subjects[nameKey, waiters] // by asker and name, at whichever server
	groups  groups
	// newest is the lookup that the newest event belongs to, nil if it is not followed; it, or its piece, began at newestAt.
	newest   *lookup
	newestAt capture.Instant
	// known is what is known of questions, and of that of the newest event if it was an answer; nil: it was none, or there are too many.
	known    subjects[question, knownQuestion]
	question *knownQuestion
	decided  func(*analyze.Window, *lookup) // is called with each lookup that nobody answered; may be nil
	sealed   capture.Instant                // end of the newest window that was judged
	steps    uint64                         // along the chains of asked, for tests of what a packet costs
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

func newLookups() *lookups {
	return &lookups{pending: newSubjects[uint64, lookup](maxLookups), asked: newSubjects[nameKey, waiters](maxLookups),
		groups: groups{newSubjects[askedKey, *group](maxLookups)}, known: newSubjects[question, knownQuestion](maxPerDetector)}
}

// lookupEvents wake lookups.
var lookupEvents = flow.Of(flow.DNSQuery, flow.DNSRepeat, flow.DNSAnswer, flow.DNSLate, flow.DNSStray, flow.ICMPError)

// Measures implements analyze.Measurer for the detectors that read them.
func (ls *lookups) Measures() []analyze.Measure { return []analyze.Measure{ls} }

// Events implements analyze.Measure.
func (ls *lookups) Events() flow.Mask { return lookupEvents }

// Event implements analyze.Measure.
func (ls *lookups) Event(e *flow.Event) {
	if e.DNS == nil {
		return
	}
	ls.newestAt, ls.newest = ls.follow(e)
	ls.question = nil
	if e.Kind == flow.DNSAnswer || e.Kind == flow.DNSLate {
		if ls.question = ls.known.get(questionOf(e.DNS)); ls.question != nil && e.DNS.Proto == capture.ProtoUDP {
			ls.question.answered(e)
		}
	}
}

func (ls *lookups) follow(e *flow.Event) (capture.Instant, *lookup) {
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
		case e.Kind == flow.DNSStray:
			l.stray = e.From
		case d.Truncated && d.Proto == capture.ProtoUDP:
			l.truncated, l.cutAt = true, e.At
		default:
			l.over = true
			if l.group != nil {
				l.group.open--
			}
			ls.pending.drop(k)
			ls.serve(d, e.At)
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
			id: d.ID, record: d.Record, group: ls.groups.join(d, e.At),
			first: e.At, frame: e.Frame, port: d.Client.Port, again: d.Tries > 1 && piece == 0}
		ls.moved(l, e.At, d.KeepsID)
	}
	// DNSQuery and DNSRepeat tell of the same packet, and a packet that was captured twice is one: what comes sooner
	// than any time-out is no try.
	if try := l.tries == 0 || e.At.Sub(l.last) >= askElsewhere; try && l.tries < maxTries {
		l.same = l.same || e.Kind == flow.DNSRepeat && !e.OtherID()
		l.tries++
	}
	l.last, l.proto = e.At, d.Proto
	return at, l
}

// pieceBits is room for the pieces of a lookup that goes on for four days.
const pieceBits = 16

// moved notes that the asker of l turns to another server for a name that it waits for: of several
// callers that wait, the one whose id it keeps, or else that which has waited longest.
func (ls *lookups) moved(l *lookup, at capture.Instant, keepsID bool) {
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
		if o.server != l.server && !o.over && o.elsewhere == 0 && at.Sub(o.first) >= askElsewhere && (o.id == l.id || !keepsID) {
			o.elsewhere = at.Sub(o.first)
			break
		}
	}
	if w.n < maxCallers {
		w.add(l)
	}
}

// serve notes that d, answered at at, was asked in parallel at other servers: what those do is of no harm to the caller.
// One answer serves one lookup at each.
func (ls *lookups) serve(d *flow.DNS, at capture.Instant) {
	w := ls.asked.peek(nameKey{d.Client.Addr, nameAndType(d.NameHash, d.QType)})
	if w == nil || !w.mixed {
		return
	}
	var last capture.Endpoint
	for o := w.oldest; o != nil; o = o.next {
		ls.steps++
		apart := max(o.first.Sub(d.First), d.First.Sub(o.first))
		if o.server == d.Server || o.server == last || o.over || o.served || o.elsewhere != 0 ||
			apart > askTogether || at.Sub(o.first) > askElsewhere {
			continue
		}
		// One socket for all servers (musl), or one id (dnsmasq), or all in one loop; who keeps the id of a question keeps it there, too.
		if o.port == d.Client.Port || o.id == d.ID || !d.KeepsID && apart <= askAtOnce {
			o.served, last = true, o.server
		}
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

// judge ends the window, once, however many detectors call it. It calls decided for each lookup whose time is over without an answer, be it that nobody waits for it any more
// (served), or that its answer was cut and it did not go on over TCP (truncated), and forgets what is decided.
func (ls *lookups) judge(w *analyze.Window) {
	now := w.End
	if ls.sealed == now {
		return
	}
	ls.sealed = now
	ls.groups.judge(now)
	ls.pending.each(func(_ uint64, l *lookup) bool {
		if l.over {
			return false
		}
		if now.Sub(l.last) < lookupDecided && now.Sub(l.first) < lookupLongest {
			return true
		}
		if l.group != nil {
			l.group.open--
		}
		if !l.again && ls.decided != nil {
			ls.decided(w, l)
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
func (l *lookup) evidence(what string) analyze.Evidence {
	return analyze.Evidence{At: l.first, Note: what, Frames: frames(l.frame),
		Flow: capture.Endpoint{Addr: l.client, Port: l.port}.String() + " > " + l.server.String()}
}

// knownQuestion is what is known of a question from its answers so far. Sizes are lengths in IP, in bytes, of answers over UDP; 0: there
// was none.
type knownQuestion struct {
	whole uint32          // the largest that was not cut
	first uint32          // the largest of those that were the first to their query
	at    capture.Instant // when dns-delay first took an answer
}

func (k *knownQuestion) answered(e *flow.Event) {
	if !e.DNS.Truncated {
		k.whole = max(k.whole, e.DNS.AnswerIPLen)
	}
	if e.Kind == flow.DNSAnswer {
		k.first = max(k.first, e.DNS.AnswerIPLen)
	}
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

// tally is how the answers of a resolver fare.
type tally struct {
	series stat.Series // bad: what went wrong; total: all
	lastAt capture.Instant
	total  int
	bad    int // of these
}

// quiet reports whether nothing is wrong, and whether the state is still needed. Where it is not, its share goes to gone.
func (t *tally) quiet(w *analyze.Window, gone *stat.Worst) (quiet, keep bool) {
	switch {
	case t.series.Since.Bad > 0:
		return t.series.Over(), true
	case w.End.Sub(t.lastAt) < idleState:
		return true, true
	}
	gone.Add(t.bad, t.total)
	return true, false
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
