package measure

import (
	"time"

	"jindan/analyze"
	"jindan/analyze/flow"
	"jindan/capture"
)

// Lookup is one question of a program: all tries for a name and type at one server. Several make a group.
type Lookup struct {
	ResolverKey
	Resolver    uint32 // its number
	Name        uint64
	Qtype       uint16
	id          uint16          // of the first query
	Record      uint64          // of the first query, for its name
	Group       *Group          // nil: there were too many
	at          capture.Instant // first query, or a later one of an endless lookup
	First, last capture.Instant // queries
	frame       uint64          // of the first one
	port        uint16          // from which it was asked
	Tries       uint32          // of this piece, at most maxTries
	Proto       uint8
	begun       bool // the fields above are set
	Over        bool // answered, or decided
	Again       bool // a late try of a lookup that counts as unanswered already
	Truncated   bool // answered over UDP, but cut: TCP should follow
	Same        bool // asked again under the same id from the same socket
	Served      bool // another server, asked at the same time, answered at once: nobody waited for this one
	CutAt       capture.Instant
	Unreachable bool             // ICMP said so
	Stray       capture.Endpoint // who answered, if that was not who was asked
	Elsewhere   time.Duration    // another server was asked after that time; 0: none was
	next        *Lookup          // of the same asker for the same name
}

// Began is when the caller began to wait.
func (l *Lookup) Began() capture.Instant {
	if l.Group != nil {
		return l.Group.At
	}
	return l.First
}

const (
	// AskTogether is how far apart the questions of one group are asked. glibc sends the pair in one sendmmsg(2), or,
	// with single-request, the second when the first is answered; programs with a thread for each within milliseconds.
	AskTogether = 300 * time.Millisecond
	// askAtOnce: servers that are asked within that time of one another are asked in parallel (musl, dnsmasq
	// --all-servers): in a loop that sends, microseconds apart.
	askAtOnce = 5 * time.Millisecond
	// MaxLookups bounds the questions that wait for an answer: 3,000 a second for the 6 s that
	// it takes to call one unanswered.
	MaxLookups = 1 << 14
	// lookupPiece cuts an endless lookup into pieces: a program that asks for the same name every
	// second looks like one that tries again. Two attempts of 5 s (resolv.conf(5)) are one piece.
	lookupPiece = lookupDecided
	// lookupLongest decides a piece in which trying goes on.
	lookupLongest = 10 * time.Second
	// DNSSettled is how old a second must be before its questions are counted: by then each
	// question is answered or called unanswered, so that the two are counted alike.
	DNSSettled = lookupDecided + analyze.WindowLength
	// maxTries bounds the count of tries.
	maxTries = 1 << 20
	// AskElsewhere tells one server after another: programs that ask several servers at once do so within milliseconds; what
	// comes later is a second server asked because the first is silent.
	AskElsewhere = 300 * time.Millisecond
	// maxCallers bounds the callers that wait for one name at a time and are followed one by one.
	maxCallers = 64
)

// Lookups follows questions until they are answered or given up.
type Lookups struct {
	Pending Subjects[uint64, Lookup]   // by number of the lookup and of its piece
	asked   Subjects[nameKey, waiters] // by asker and name, at whichever server
	groups  groups
	// newest is the lookup that the newest event belongs to, nil if it is not followed; it, or its piece, began at newestAt.
	Newest   *Lookup
	NewestAt capture.Instant
	// known is what is known of questions, and of that of the newest event if it was an answer; nil: it was none, or there are too many.
	Known    Subjects[Question, knownQuestion]
	Question *knownQuestion
	Decided  func(*analyze.Window, *Lookup) // is called with each lookup that nobody answered; may be nil
	sealed   capture.Instant                // end of the newest window that was judged
	Steps    uint64                         // along the chains of asked, for tests of what a packet costs
}

// waiters are the lookups of one name that wait, oldest first, maxCallers at most.
type waiters struct {
	oldest, newest *Lookup
	n              int
	mixed          bool // they wait for several servers
}

type nameKey struct {
	client capture.Addr
	name   uint64 // and type, see question
}

// NewLookups returns lookups of which nothing is known.
func NewLookups() *Lookups {
	return &Lookups{Pending: NewSubjects[uint64, Lookup](MaxLookups), asked: NewSubjects[nameKey, waiters](MaxLookups),
		groups: groups{NewSubjects[askedKey, *Group](MaxLookups)}, Known: NewSubjects[Question, knownQuestion](MaxPerDetector)}
}

// LookupEvents wake lookups.
var LookupEvents = flow.Of(flow.DNSQuery, flow.DNSRepeat, flow.DNSAnswer, flow.DNSLate, flow.DNSStray, flow.ICMPError)

// Measures implements analyze.Measurer for the detectors that read them.
func (ls *Lookups) Measures() []analyze.Measure { return []analyze.Measure{ls} }

// Events implements analyze.Measure.
func (ls *Lookups) Events() flow.Mask { return LookupEvents }

// Event implements analyze.Measure.
func (ls *Lookups) Event(e *flow.Event) {
	if e.DNS == nil {
		return
	}
	ls.NewestAt, ls.Newest = ls.follow(e)
	ls.Question = nil
	if e.Kind == flow.DNSAnswer || e.Kind == flow.DNSLate {
		if ls.Question = ls.Known.Get(QuestionOf(e.DNS)); ls.Question != nil && e.DNS.Proto == capture.ProtoUDP {
			ls.Question.answered(e)
		}
	}
}

func (ls *Lookups) follow(e *flow.Event) (capture.Instant, *Lookup) {
	d := e.DNS
	piece := max(d.First.Sub(d.LookupAt)/lookupPiece, 0)
	k := d.Lookup<<pieceBits | uint64(piece)&(1<<pieceBits-1)
	at := d.LookupAt.Add(piece * lookupPiece)
	l := ls.Pending.Peek(k)
	if e.Kind != flow.DNSQuery && e.Kind != flow.DNSRepeat {
		if l == nil || l.Over {
			return at, nil
		}
		switch {
		case e.Kind == flow.ICMPError:
			l.Unreachable = true
		case e.Kind == flow.DNSStray:
			l.Stray = e.From
		case d.Truncated && d.Proto == capture.ProtoUDP:
			l.Truncated, l.CutAt = true, e.At
		default:
			l.Over = true
			if l.Group != nil {
				l.Group.Open--
			}
			ls.Pending.Drop(k)
			ls.serve(d, e.At)
		}
		return at, l
	}
	if l == nil && e.Kind == flow.DNSQuery {
		l = ls.Pending.Get(k)
	}
	if l == nil {
		return at, nil
	}
	if !l.begun {
		*l = Lookup{begun: true, ResolverKey: resolverOf(d), Resolver: d.Resolver, Name: d.NameHash, Qtype: d.QType, at: at,
			id: d.ID, Record: d.Record, Group: ls.groups.join(d, e.At),
			First: e.At, frame: e.Frame, port: d.Client.Port, Again: d.Tries > 1 && piece == 0}
		ls.moved(l, e.At, d.KeepsID)
	}
	// DNSQuery and DNSRepeat tell of the same packet, and a packet that was captured twice is one: what comes sooner
	// than any time-out is no try.
	if try := l.Tries == 0 || e.At.Sub(l.last) >= AskElsewhere; try && l.Tries < maxTries {
		l.Same = l.Same || e.Kind == flow.DNSRepeat && !e.OtherID()
		l.Tries++
	}
	l.last, l.Proto = e.At, d.Proto
	return at, l
}

// pieceBits is room for the pieces of a lookup that goes on for four days.
const pieceBits = 16

// moved notes that the asker of l turns to another server for a name that it waits for: of several
// callers that wait, the one whose id it keeps, or else that which has waited longest.
func (ls *Lookups) moved(l *Lookup, at capture.Instant, keepsID bool) {
	w := ls.asked.Get(nameKey{l.Client, NameAndType(l.Name, l.Qtype)})
	if w == nil {
		return
	}
	for w.oldest != nil && (w.oldest.Over || w.oldest.Elsewhere != 0) {
		w.oldest, w.n = w.oldest.next, w.n-1
	}
	w.mixed = w.mixed || w.oldest != nil && w.oldest.Server != l.Server
	// Where all wait for one server nobody turns to another: a flood of equal questions walks nowhere.
	for o := w.oldest; o != nil && w.mixed && at.Sub(o.at) >= AskElsewhere; o = o.next {
		ls.Steps++
		if o.Server != l.Server && !o.Over && o.Elsewhere == 0 && at.Sub(o.First) >= AskElsewhere && (o.id == l.id || !keepsID) {
			o.Elsewhere = at.Sub(o.First)
			break
		}
	}
	if w.n < maxCallers {
		w.add(l)
	}
}

// serve notes that d, answered at at, was asked in parallel at other servers: what those do is of no harm to the caller.
// One answer serves one lookup at each.
func (ls *Lookups) serve(d *flow.DNS, at capture.Instant) {
	w := ls.asked.Peek(nameKey{d.Client.Addr, NameAndType(d.NameHash, d.QType)})
	if w == nil || !w.mixed {
		return
	}
	var last capture.Endpoint
	for o := w.oldest; o != nil; o = o.next {
		ls.Steps++
		apart := max(o.First.Sub(d.First), d.First.Sub(o.First))
		if o.Server == d.Server || o.Server == last || o.Over || o.Served || o.Elsewhere != 0 ||
			apart > AskTogether || at.Sub(o.First) > AskElsewhere {
			continue
		}
		// One socket for all servers (musl), or one id (dnsmasq), or all in one loop; who keeps the id of a question keeps it there, too.
		if o.port == d.Client.Port || o.id == d.ID || !d.KeepsID && apart <= askAtOnce {
			o.Served, last = true, o.Server
		}
	}
}

func (w *waiters) add(l *Lookup) {
	l.next = nil
	switch {
	case w.oldest == nil:
		w.oldest = l
	case w.newest == l:
		return // a chain that ends in itself has no end
	default:
		w.mixed = w.mixed || w.oldest.Server != l.Server
		w.newest.next = l
	}
	w.newest = l
	w.n++
}

// Judge ends the window, once, however many detectors call it. It calls decided for each lookup whose time is over without an answer, be it that nobody waits for it any more
// (served), or that its answer was cut and it did not go on over TCP (truncated), and forgets what is decided.
func (ls *Lookups) Judge(w *analyze.Window) {
	now := w.End
	if ls.sealed == now {
		return
	}
	ls.sealed = now
	ls.groups.judge(now)
	ls.Pending.Each(func(_ uint64, l *Lookup) bool {
		if l.Over {
			return false
		}
		if now.Sub(l.last) < lookupDecided && now.Sub(l.First) < lookupLongest {
			return true
		}
		if l.Group != nil {
			l.Group.Open--
		}
		if !l.Again && ls.Decided != nil {
			ls.Decided(w, l)
		}
		l.Over = true
		return false
	})
	ls.asked.Each(func(_ nameKey, w *waiters) bool {
		l := w.oldest
		for *w = (waiters{}); l != nil; {
			next := l.next
			if !l.Over && l.Elsewhere == 0 {
				w.add(l)
			}
			l = next
		}
		return w.n > 0
	})
}

// Evidence of l.
func (l *Lookup) Evidence(what string) analyze.Evidence {
	return analyze.Evidence{At: l.First, Note: what, Frames: Frames(l.frame),
		Flow: capture.Endpoint{Addr: l.Client, Port: l.port}.String() + " > " + l.Server.String()}
}

// knownQuestion is what is known of a question from its answers so far. Sizes are lengths in IP, in bytes, of answers over UDP; 0: there
// was none.
type knownQuestion struct {
	Whole uint32          // the largest that was not cut
	First uint32          // the largest of those that were the first to their query
	At    capture.Instant // when dns-delay first took an answer
}

func (k *knownQuestion) answered(e *flow.Event) {
	if !e.DNS.Truncated {
		k.Whole = max(k.Whole, e.DNS.AnswerIPLen)
	}
	if e.Kind == flow.DNSAnswer {
		k.First = max(k.First, e.DNS.AnswerIPLen)
	}
}

// Question is what a server is asked for.
type Question struct {
	Server capture.Addr
	Name   uint64 // and type
}

// QuestionOf is what d asks.
func QuestionOf(d *flow.DNS) Question {
	return Question{d.Server.Addr, NameAndType(d.NameHash, d.QType)}
}

// NameAndType makes one number of a name's hash and a record type.
func NameAndType(hash uint64, qtype uint16) uint64 {
	return hash ^ uint64(qtype)*0x9e3779b97f4a7c15 // odd: another number for each type
}
